"""The cache of features: one Arrow file for each key, mapped into memory when read, and a manifest with its digest."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from stilts_jax.errors import DataError, RecordError
from stilts_jax.features.build import FEATURE_VERSION
from stilts_jax.features.records import Features, Ragged, open_table
from stilts_jax.files import read_record, replacing, write_record
from stilts_jax.progress import SILENT, Progress

FORMAT = 3
_UNREADABLE = (DataError, RecordError, OSError, ValueError, TypeError, pa.ArrowException)


def load_or_build(
    folder: Path, key_parts: Mapping[str, object], build: Callable[[], Features], progress: Progress = SILENT
) -> Features:
    """Returns the features of a key of plain values: from the cache, else built and put there, or a DataError."""
    parts = {"format": FORMAT, "features": FEATURE_VERSION, "parts": dict(key_parts)}
    key = hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()
    data, manifest = folder / f"{key[:32]}.arrow", folder / f"{key[:32]}.json"
    try:
        return _load(data, manifest, key)
    except _UNREADABLE as error:
        if not isinstance(error, FileNotFoundError):
            progress.say(f"cached features are built again: {getattr(error, 'what', error)} ({data})")
    features = build()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Removed before the data file is rewritten, so that a stale manifest never describes new data.
        manifest.unlink(missing_ok=True)
        with replacing(data) as temporary:
            _write_arrow(temporary, features)
        described = vars(features) | {"pictures": Path(features.pictures).name}
        del described["columns"]
        about = {"format": FORMAT, "key": key, "parts": parts["parts"], "sha256": _digest(data)}
        write_record(manifest, about | {"features": described})
    except OSError as error:
        what = f"features can't be written to the cache: {error.strerror or error}"
        fix = "make room, give permission or remove what stands there, or set data.cache to another folder"
        raise DataError(what, where=str(error.filename or folder), fix=fix) from error
    try:
        return _load(data, manifest, key)
    except _UNREADABLE:  # another process is just building the same
        return features


def _load(data: Path, manifest: Path, key: str) -> Features:
    record = read_record(manifest, FORMAT)
    if record["key"] != key or not data.is_file() or _digest(data) != record["sha256"]:
        raise DataError("the file is not what its manifest says, or missing")
    with pa.memory_map(str(data)) as source:
        table = pa.ipc.open_file(source).get_batch(0)
    columns: dict[str, np.ndarray | Ragged] = {}  # views of the mapped file; nothing is copied
    for name, column in zip(table.schema.names, table.columns):
        if pa.types.is_large_list(column.type) and pa.types.is_large_list(column.type.value_type):
            column = column.values  # the lists of lists of choice; ``first_choice`` has the borders
        is_list = pa.types.is_large_list(column.type)
        columns[name] = (
            Ragged(column.values.to_numpy(), column.offsets.to_numpy()) if is_list else column.to_numpy()
        )
    described = {**record["features"], "languages": tuple(record["features"]["languages"])}
    if described["pictures"]:
        described["pictures"] = str(data.parent / described["pictures"])
        open_table(described["pictures"])
    return Features(columns=columns, **described)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_arrow(path: Path, features: Features) -> None:
    columns = features.columns
    arrays = {
        name: pa.LargeListArray.from_arrays(pa.array(column.offsets), pa.array(column.values))
        if isinstance(column, Ragged)
        else pa.array(column)
        for name, column in columns.items()
    }
    if "first_choice" in columns:  # one list of sequences a row
        borders = np.append(columns["first_choice"], len(arrays["tokens"]))
        arrays["tokens"] = pa.LargeListArray.from_arrays(pa.array(borders), arrays["tokens"])
    batch = pa.record_batch(arrays)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
