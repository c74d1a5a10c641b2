"""What the readers of hub repositories and of TFDS builders share.

The data itself says what its columns and classes are: hub files in the features of the ``datasets`` library,
TFDS data in its metadata. Class numbers become class names here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stilts_jax.errors import DataError
from stilts_jax.tasks.spec import Source


class SourceFailure(DataError):
    """A whole data set can't be had (no such repository, no connection, a library missing), not just a part."""


def fill_names(source: Source, split: str, language: str) -> tuple[str, str]:
    """Returns the configuration and the data set's own name of a split."""
    code = source.codes.get(language, language)
    return source.config.replace("{language}", code), source.splits[split].replace("{language}", code)


def has_language(source: Source, language: str) -> bool:
    """Returns whether a data set is published in a language; the rows say it where it holds several."""
    return bool(source.by_language) or language in (source.languages or ("en",))


def name_classes(classes: Mapping[str, Sequence[str]], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row with class names in the place of class numbers; None stands for a class that is not known.

    Args:
        classes: the class names of those columns that hold a class, or a list of classes.
        fields: the row.
    """

    def name(names: Sequence[str], value: Any) -> Any:
        if isinstance(value, list):
            return [name(names, item) for item in value]
        return None if value is None or value < 0 else names[value]

    return {
        column: name(classes[column], value) if column in classes else value
        for column, value in fields.items()
    }
