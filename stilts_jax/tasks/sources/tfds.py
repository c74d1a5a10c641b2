"""Prepares data sets of TFDS in ``ROOT/tfds/NAME/CONFIG/VERSION``, and reads them, which needs no tensorflow."""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stilts_jax.errors import DataError, explain
from stilts_jax.tasks.sources.hub import SourceFailure, list_causes, make_rows, need
from stilts_jax.tasks.sources.rows import BadRow, Opened, Problems, Row
from stilts_jax.tasks.spec import Source

_FILE_FORMAT = "array_record"
_LONGEST = 300  # characters of an error of TFDS that are shown; some list every builder there is


def find(source: Source, split: str, language: str, root: Path) -> dict[str, tuple[Path, ...]]:
    """Returns the files of a split in a language, of the newest version; nothing if it is not there."""
    config, name = source.names(split, language)
    infos = (root / "tfds" / source.name / config).glob("*.*.*/dataset_info.json")
    info = max(infos, key=lambda one: [*map(int, re.findall(r"\d+", one.parent.name))], default=None)
    if info is None or not source.has(language):
        return {}
    described = Row.document(info)
    try:
        entries = described.parts("splits") if "splits" in described.fields else []
        known = {entry["name"] for entry in entries}
    except BadRow as error:
        fix = "remove its folder, and prepare it again: stilts prepare"
        raise DataError(f"this is not what TFDS writes: {error}", where=str(info), fix=fix) from error
    paths = tuple(sorted(info.parent.glob(f"*-{name}.*"))) if name in known else ()
    return {"": paths} if paths else {}


def open_rows(source: Source, split: str, language: str, paths: Sequence[Path], problems: Problems) -> Opened:
    """Yields the folder of the data set with its rows."""
    folder, (_, name) = paths[0].parent, source.names(split, language)
    builder = need("tensorflow_datasets", "tfds").builder_from_directory(folder)
    try:
        records = builder.as_data_source(name)
    except (ImportError, NotImplementedError) as error:
        what = f"this data can't be read without tensorflow: {error}"
        fix = f"prepare it again in the format {_FILE_FORMAT}: stilts prepare"
        raise DataError(what, where=str(folder), fix=fix) from error
    plain = (_plain(records[number]) for number in range(len(records)))
    yield folder, make_rows(plain, builder.info.features)


def _plain(value: Any) -> Any:
    """Returns what TFDS decodes to as plain Python values."""
    value = value.tolist() if hasattr(value, "tolist") else value  # numpy
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def fetch(source: Source, split: str, language: str, root: Path) -> None:
    """Downloads a configuration and writes it in a format that can be read without tensorflow."""
    tfds = need("tensorflow_datasets", "tfds")
    config, _ = source.names(split, language)
    name = f"{source.name}/{config}" if config else source.name
    try:
        # Without tensorflow TFDS does not find the builders of these modules by name unless they are imported.
        for module in ("question_answering", "text", "translate"):
            importlib.import_module(f"tensorflow_datasets.{module}")
        tfds.builder(name, data_dir=str(root / "tfds"), file_format=_FILE_FORMAT).download_and_prepare()
    except Exception as error:  # builders fail in many ways, and say it in many kinds
        if explain(error):  # a full disk
            raise
        what = f"{name} can't be prepared: {type(error).__name__}: {str(error).strip()[:_LONGEST]}"
        fix = "check the connection, or read the task from files or the hub"
        if absent := [one for one in list_causes(error) if isinstance(one, ImportError)]:  # within others
            what = f"{name} can't be prepared without another library: {absent[-1]}"
            fix = "pip install 'stilts-jax[tfds-prepare]' (it has tensorflow); reading does not need it"
        address = f"https://www.tensorflow.org/datasets/catalog/{source.name}"
        raise SourceFailure(what, where=address, fix=fix) from error
