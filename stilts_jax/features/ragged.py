"""What featurizers share: their settings, tokenized texts, and rows put together of them without a loop over rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, NamedTuple

import numpy as np

from stilts_jax.checked import Checked, Range
from stilts_jax.features.records import Ragged
from stilts_jax.settings import LENGTH, POSITIVE
from stilts_jax.tokenization import Tokenizer

PAIR_SPECIALS = 4  # <s> A </s></s> B </s>
SINGLE_SPECIALS = 2  # <s> A </s>
_BLOCK = 2**20  # values that are copied at a time
Columns = dict[str, np.ndarray | Ragged]


@dataclass(frozen=True)
class FeatureSettings(Checked):
    """The settings of a task that change its rows; part of the cache's key."""

    group: ClassVar[str] = ""
    # Tokens of a row at most, specials included.
    max_length: Annotated[int, Range(PAIR_SPECIALS + 2, int(LENGTH.high))] = 256
    # Subwords kept of a question (span), or of the first text of a pair (embed).
    max_query_length: Annotated[int, POSITIVE] = 64
    # Subwords from the beginning of one window of a long context to that of the next (span).
    stride: Annotated[int, POSITIVE] = 128


class Segments(NamedTuple):
    """One stretch of ``values`` for each row, ``values[starts[i] : starts[i] + lengths[i]]``.

    Rows may share a stretch, so that a text that occurs often is tokenized and kept once.
    """

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def head(self, count: np.ndarray | int) -> "Segments":
        """Keeps the first ``count`` values of each."""
        return self._replace(lengths=np.minimum(self.lengths, count))

    def pick(self, rows: np.ndarray) -> "Segments":
        """Returns the stretches of ``rows``."""
        return self._replace(starts=self.starts[rows], lengths=self.lengths[rows])

    def tail(self, count: np.ndarray | int) -> "Segments":
        """Keeps the last ``count`` values of each."""
        lengths = np.minimum(self.lengths, count)
        return self._replace(starts=self.starts + self.lengths - lengths, lengths=lengths)


@dataclass(frozen=True)
class Work:
    """What a featurizer is given besides the examples; without ``training``, columns that predictions need are made."""

    tokenizer: Tokenizer
    settings: FeatureSettings
    training: bool
    advance: Callable[[int], object]
    say: Callable[[str], None]

    def tokenize(self, *columns: Sequence[str]) -> list[Segments]:
        """Tokenizes columns of texts; each distinct text once."""
        unique, inverse = find_unique(text for column in columns for text in column)
        encoded = self.tokenizer.encode(unique, advance=self.advance)
        whole = Segments(encoded.ids, encoded.offsets[:-1], np.diff(encoded.offsets))
        borders = np.cumsum([len(column) for column in columns])[:-1]
        return [whole.pick(numbers) for numbers in np.split(inverse, borders)]


def find_unique(texts: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Returns the distinct texts in order of appearance, and for each text its number among them."""
    numbers: dict[str, int] = {}
    inverse = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64)
    return list(numbers), inverse


def _copy_ranges(target: np.ndarray, target_starts: np.ndarray, part: Segments) -> None:
    """Copies each stretch of ``part`` to where it starts in the target."""
    ends = np.cumsum(part.lengths)
    before = ends - part.lengths
    # In blocks of rows: the index arrays are several times what is copied.
    borders = np.searchsorted(ends, np.arange(0, ends[-1] if len(ends) else 0, _BLOCK), side="right")
    for first, last in pairwise([*borders.tolist(), len(ends)]):
        rows = slice(first, last)
        index = np.arange(int(before[first]), int(ends[last - 1])) if last > first else np.arange(0)
        target[np.repeat(target_starts[rows] - before[rows], part.lengths[rows]) + index] = part.values[
            np.repeat(part.starts[rows] - before[rows], part.lengths[rows]) + index
        ]


def join(*parts: Segments | int, rows: int) -> Ragged:
    """Lays parts end to end, row by row; an int is one and the same value in every row."""
    lengths = np.zeros(rows, np.int64)
    for part in parts:
        lengths += 1 if isinstance(part, int) else part.lengths
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.empty(offsets[-1], np.int32)
    cursor = offsets[:-1].copy()
    for part in parts:
        if isinstance(part, int):
            values[cursor] = part
            cursor += 1
        else:
            _copy_ranges(values, cursor, part)
            cursor += part.lengths
    return Ragged(values, offsets)
