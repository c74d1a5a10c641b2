"""Reads data sets that TFDS has prepared in ``ROOT/tfds/NAME/CONFIG/VERSION``, and prepares them there.

Reading needs no tensorflow: it takes data in the array_record or parquet format through ``as_data_source``.
"""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from stilts_jax.data.documents import read_json
from stilts_jax.data.rows import LANGUAGE, Row
from stilts_jax.data.schemas import TFDS, Column, check_columns, name_classes
from stilts_jax.errors import DataError
from stilts_jax.tasks.spec import Prepared

FILE_FORMAT = "array_record"


def _folder(data_set: Prepared, language: str, root: Path) -> Path | None:
    """Returns the folder of the newest version that is there."""
    code = data_set.codes.get(language, language)
    parent = root / "tfds" / data_set.name / data_set.config.replace("{language}", code)
    versions = [path.parent for path in parent.glob("*.*.*/dataset_info.json")]
    return max(versions, key=_version, default=None)


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in folder.name.split("."))


def _split_name(data_set: Prepared, split: str, language: str) -> str:
    return data_set.splits.get(split, "").replace("{language}", data_set.codes.get(language, language))


def find(data_set: Prepared, split: str, language: str, root: Path) -> tuple[Path, ...]:
    """Returns the files of a split in a language; none if it isn't there."""
    if language not in data_set.languages if data_set.languages else language != "en":
        return ()
    folder, name = _folder(data_set, language, root), _split_name(data_set, split, language)
    if folder is None or not name:
        return ()
    known = {entry["name"] for entry in read_json(folder / "dataset_info.json").get("splits", ())}
    return tuple(sorted(folder.glob(f"*-{name}.*"))) if name in known else ()


def list_languages(data_set: Prepared, split: str, root: Path) -> set[str]:
    """Returns the languages that a split has data for."""
    return {language for language in data_set.languages or ("en",) if find(data_set, split, language, root)}


def read_rows(data_set: Prepared, split: str, language: str, root: Path) -> Iterator[tuple[Path, Row]]:
    """Yields the rows of a split; class labels are names.

    The file that is named with a row is the folder of the data set, and ``Row.line`` its number from 1 on.
    """
    tfds = import_tfds()
    folder = _folder(data_set, language, root)
    assert folder is not None
    schema = TFDS[data_set.name, data_set.config]
    builder = tfds.builder_from_directory(folder)
    name = name_classes(check_columns(schema, _describe_all(builder.info.features), str(folder)))
    try:
        source = builder.as_data_source(_split_name(data_set, split, language))
    except (ImportError, NotImplementedError) as error:
        raise DataError(
            f"this data can't be read without tensorflow: {error}",
            where=str(folder),
            fix=f"prepare it again in the format {FILE_FORMAT}: stilts prepare",
        ) from error
    for number in range(len(source)):
        yield folder, Row(number + 1, number, {**name(_plain(source[number])), LANGUAGE: language})


def _plain(value: Any) -> Any:
    """Returns what TFDS decodes to as plain Python values."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy
        return _plain(value.tolist())
    return value


def _describe_all(features: Any) -> dict[str, Column]:
    return {name: _describe(features[name]) for name in features}


def _describe(feature: Any) -> Column:
    # By the name of the class, since the library is imported only where data is read.
    kind = type(feature).__name__
    if kind == "TranslationVariableLanguages":
        return {"language": ["text"], "translation": ["text"]}
    if kind in ("FeaturesDict", "Translation"):
        return {name: _describe(feature[name]) for name in feature}
    if kind == "Sequence":
        inner = _describe(feature.feature)
        return {name: [column] for name, column in inner.items()} if isinstance(inner, dict) else [inner]
    if kind == "ClassLabel":
        return tuple(feature.names) if feature.names else "int"
    dtype = str(getattr(feature, "np_dtype", feature))
    if kind == "Text" or "str" in dtype or "object" in dtype:
        return "text"
    return next((name for name in ("bool", "int") if name in dtype), dtype)


def import_tfds() -> ModuleType:
    """Returns the TFDS library."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            "reading TFDS data needs tensorflow_datasets",
            where=str(error),
            fix="pip install 'stilts-jax[tfds]'",
        ) from error
    return tensorflow_datasets


def fetch(data_set: Prepared, split: str, language: str, root: Path) -> None:
    """Downloads and prepares a data set in a language; TFDS prepares all its splits at once."""
    tfds = import_tfds()
    code = data_set.codes.get(language, language)
    config = data_set.config.replace("{language}", code)
    name = f"{data_set.name}/{config}" if config else data_set.name
    try:
        builder = tfds.builder(name, data_dir=str(root / "tfds"), file_format=FILE_FORMAT)
        builder.download_and_prepare()
    except ImportError as error:
        raise DataError(
            f"TFDS needs another library to prepare {name}: {error}",
            where=str(root / "tfds"),
            fix="pip install 'stilts-jax[tfds-prepare]' (it has tensorflow); reading does not need it",
        ) from error
    except Exception as error:  # downloads fail in many ways, and all mean the same here
        raise DataError(
            f"{name} can't be prepared: {type(error).__name__}: {error}",
            where=f"https://www.tensorflow.org/datasets/catalog/{data_set.name}",
            fix="check the connection, or read the task from files or the hub",
        ) from error
