"""Reads data sets that TFDS has prepared in ``ROOT/tfds/NAME/CONFIG/VERSION``, and prepares them there.

Reading needs no tensorflow: it takes data in the array_record or parquet format through ``as_data_source``.
"""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from stilts_jax.errors import DataError, explain
from stilts_jax.tasks.sources.documents import read_json
from stilts_jax.tasks.sources.hub import SourceFailure, name_classes
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.spec import Source

FILE_FORMAT = "array_record"
_LONGEST = 300  # characters of an error of TFDS that are shown; some list every builder there is


def _folder(source: Source, config: str, root: Path) -> Path | None:
    """Returns the folder of the newest version that is there."""
    infos = (root / "tfds" / source.name / config).glob("*.*.*/dataset_info.json")
    return max((path.parent for path in infos), key=_version, default=None)


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in folder.name.split("."))


def find(source: Source, split: str, language: str, root: Path) -> dict[str, tuple[Path, ...]]:
    """Returns the files of a split in a language; nothing if it is not there."""
    config, name = source.names(split, language)
    folder = _folder(source, config, root)
    if folder is None or not source.has(language):
        return {}
    known = {entry["name"] for entry in read_json(folder / "dataset_info.json").get("splits", ())}
    paths = tuple(sorted(folder.glob(f"*-{name}.*"))) if name in known else ()
    return {"": paths} if paths else {}


def read_rows(
    source: Source, split: str, language: str, root: Path, problems: Problems
) -> Iterator[tuple[Path, Row]]:
    """Yields the rows of a split; class labels are names.

    The path beside each row is the folder of the data set, and ``Row.line`` is the row's number, from 1.
    """
    tfds = _import_tfds()
    config, name = source.names(split, language)
    folder = _folder(source, config, root)
    assert folder is not None
    builder = tfds.builder_from_directory(folder)
    # A list's own attributes are those of what it is a list of.
    classes = {key: one.names for key, one in builder.info.features.items() if getattr(one, "names", None)}
    try:
        records = builder.as_data_source(name)
    except (ImportError, NotImplementedError) as error:
        raise DataError(
            f"this data can't be read without tensorflow: {error}",
            where=str(folder),
            fix=f"prepare it again in the format {FILE_FORMAT}: stilts prepare",
        ) from error
    for number in range(len(records)):
        yield folder, Row(number + 1, number, name_classes(classes, _plain(records[number])), strict=True)


def _plain(value: Any) -> Any:
    """Returns what TFDS decodes to as plain Python values."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value  # numpy


def _import_tfds() -> ModuleType:
    try:
        import tensorflow_datasets
    except ImportError as error:
        fix = "pip install 'stilts-jax[tfds]'"
        raise SourceFailure("TFDS data needs tensorflow_datasets", where=str(error), fix=fix) from error
    return tensorflow_datasets


def fetch(source: Source, split: str, language: str, root: Path) -> None:
    """Downloads a configuration and writes it in a format that can be read without tensorflow.

    Raises:
        SourceFailure: the builder does not work here.
    """
    tfds = _import_tfds()
    config, _ = source.names(split, language)
    name = f"{source.name}/{config}" if config else source.name
    try:
        # Without tensorflow TFDS does not find the builders of these modules by name unless they are imported.
        import tensorflow_datasets.question_answering
        import tensorflow_datasets.text
        import tensorflow_datasets.translate  # noqa: F401

        tfds.builder(name, data_dir=str(root / "tfds"), file_format=FILE_FORMAT).download_and_prepare()
    except Exception as error:  # builders fail in many ways, and say it in many kinds
        if explain(error):  # a full disk
            raise
        chain: list[BaseException] = [error]
        while link := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(link)
        absent = [one for one in chain if isinstance(one, ImportError)]  # TFDS wraps them in others
        if absent:
            what = f"{name} can't be prepared without another library: {absent[-1]}"
            fix = "pip install 'stilts-jax[tfds-prepare]' (it has tensorflow); reading does not need it"
        else:
            what = f"{name} can't be prepared: {type(error).__name__}: {str(error).strip()[:_LONGEST]}"
            fix = "check the connection, or read the task from files or the hub"
        address = f"https://www.tensorflow.org/datasets/catalog/{source.name}"
        raise SourceFailure(what, where=address, fix=fix) from error
