"""Reads data sets of the Hugging Face hub from ``ROOT/hub/OWNER/NAME``, and fetches them there.

The folder is laid out as the repository is: ``CONFIG/SPLIT-*.parquet`` (or ``data/`` where there is one
configuration), so that a copy of a repository serves as it is. Folders that ``datasets`` has written with
``save_to_disk`` are read too. Reading never asks the hub.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from stilts_jax.data.files import find_files
from stilts_jax.data.rows import LANGUAGE, Row
from stilts_jax.data.schemas import HUB, Column, check_columns, name_classes
from stilts_jax.errors import DataError
from stilts_jax.tasks.spec import Prepared

_BATCH = 1000


def find(data_set: Prepared, split: str, language: str, root: Path) -> tuple[Path, ...]:
    """Returns the files of a split in a language; none if it isn't there."""
    name, config = _names(data_set, split, language)
    if not name or (language not in data_set.languages if data_set.languages else language != "en"):
        return ()
    folder = root / "hub" / data_set.name
    patterns = [f"{config}/{name}-*.parquet", f"{config}/{name}.parquet", f"{config}/{name}/*.parquet"]
    patterns.append(f"{config}/{name}/*.arrow")  # save_to_disk of all splits
    if config == "default":
        patterns += [f"data/{name}-*.parquet", f"{name}-*.parquet"]
    return next(filter(None, (find_files(folder, pattern) for pattern in patterns)), ())


def _names(data_set: Prepared, split: str, language: str) -> tuple[str, str]:
    code = data_set.codes.get(language, language)
    return (
        data_set.splits.get(split, "").replace("{language}", code),
        data_set.config.replace("{language}", code),
    )


def list_languages(data_set: Prepared, split: str, root: Path) -> set[str]:
    """Returns the languages that a split has data for."""
    return {language for language in data_set.languages or ("en",) if find(data_set, split, language, root)}


def read_rows(data_set: Prepared, split: str, language: str, root: Path) -> Iterator[tuple[Path, Row]]:
    """Yields the rows of a split with the file that they stand in; class labels are names.

    ``Row.line`` counts the rows of the file from 1 on.
    """
    schema = HUB[data_set.name, data_set.config]
    before = 0
    for path in find(data_set, split, language, root):
        row_count = 0
        actual, batches = _open(path)
        name = name_classes(check_columns(schema, actual, str(path)))
        for batch in batches:
            for fields in batch:
                yield path, Row(row_count + 1, before + row_count, {**name(fields), LANGUAGE: language})
                row_count += 1
        before += row_count


def _open(path: Path) -> tuple[Mapping[str, Column], Iterator[list[dict[str, Any]]]]:
    datasets = import_datasets()
    import pyarrow
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            file = pyarrow.parquet.ParquetFile(path)
            schema, batches = file.schema_arrow, file.iter_batches(_BATCH)
        else:
            reader = pyarrow.ipc.open_stream(path)
            schema, batches = reader.schema, reader
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"the file can't be read: {error}", where=str(path), fix="remove it and prepare it again"
        ) from error
    features = datasets.Features.from_arrow_schema(schema)
    columns = {name: _describe(feature) for name, feature in features.items()}
    return columns, (batch.to_pylist() for batch in batches)


def _describe(feature: Any) -> Column:
    if isinstance(feature, dict):
        return {name: _describe(inner) for name, inner in feature.items()}
    if hasattr(feature, "names"):
        return tuple(feature.names)
    if hasattr(feature, "feature"):
        return [_describe(feature.feature)]
    dtype = str(getattr(feature, "dtype", feature))
    for prefix, kind in (
        ("string", "text"),
        ("large_string", "text"),
        ("int", "int"),
        ("uint", "int"),
        ("bool", "bool"),
    ):
        if dtype.startswith(prefix):
            return kind
    return dtype


def import_datasets() -> ModuleType:
    """Returns the ``datasets`` library."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "reading data of the hub needs the datasets library",
            where=str(error),
            fix="pip install 'stilts-jax[hub]'",
        ) from error
    return datasets


def fetch(data_set: Prepared, split: str, language: str, root: Path) -> None:
    """Downloads a split in a language, and puts it in its place whole.

    Repositories that are still a script on the hub are taken from the parquet files that the hub makes of
    them.
    """
    datasets = import_datasets()
    name, config = _names(data_set, split, language)
    target = root / "hub" / data_set.name / config / f"{name}-00000-of-00001.parquet"
    where = f"{data_set.name}, {config}, {name}"
    try:
        try:
            data = datasets.load_dataset(data_set.name, config, split=name)
        except (RuntimeError, ValueError):  # scripts are not run any more
            converted = f"hf://datasets/{data_set.name}@refs%2Fconvert%2Fparquet/{config}/{name}/*.parquet"
            data = datasets.load_dataset("parquet", data_files={name: converted}, split=name)
    except Exception as error:  # the hub's client raises many kinds, and all mean the same here
        raise DataError(
            f"{where} can't be fetched from the hub: {type(error).__name__}: {error}",
            where=f"https://huggingface.co/datasets/{data_set.name}",
            fix="check the connection (and HF_HUB_OFFLINE), or read the task from files",
        ) from error
    check_columns(
        HUB[data_set.name, data_set.config],
        {key: _describe(feature) for key, feature in data.features.items()},
        where,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    data.to_parquet(str(partial))
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, target)
