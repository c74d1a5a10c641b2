"""What the readers of hub repositories and of TFDS builders share.

The data itself says what its columns and classes are: hub files in the features of the ``datasets`` library,
TFDS data in its metadata. Class numbers become class names here, and a column that is not there is an error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stilts_jax.errors import DataError
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import Prepared


class SourceFailure(DataError):
    """A whole data set can't be had (no such repository, no connection, a library missing), not just a part."""


class PreparedRow(Row):
    """A row of data whose columns are known: one that is not there is an error, never blanked gold."""

    __slots__ = ()

    def get(self, name: str, default: Any = None) -> Any:
        return self.value(name) if default is None else super().get(name, default)


def fill_names(data_set: Prepared, split: str, language: str) -> tuple[str, str]:
    """Returns the configuration and the data set's own name of a split; empty where it does not have the split."""
    code = data_set.codes.get(language, language)
    return (
        data_set.config.replace("{language}", code),
        data_set.splits.get(split, "").replace("{language}", code),
    )


def has_language(data_set: Prepared, language: str) -> bool:
    """Returns whether a data set is published in a language."""
    return language in (data_set.languages or ("en",))


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
