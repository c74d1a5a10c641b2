"""Rows put together from pieces of flat arrays, without a loop over the rows."""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from stilts_jax.features.records import Ragged
from stilts_jax.tokenization import Encoded

_BLOCK = 2**20  # values that are copied at a time


class Segments(NamedTuple):
    """One stretch of ``values`` for each row: ``values[starts[i] : starts[i] + lengths[i]]``.

    Rows may share a stretch, so that a text that occurs often is tokenized and kept once.

    Attributes:
        values: [V]
        starts: int64 [N]
        lengths: int64 [N]
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


def find_unique(texts: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Returns the distinct texts in order of appearance, and for each text its number among them."""
    numbers: dict[str, int] = {}
    inverse = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64)
    return list(numbers), inverse


def select(encoded: Encoded, numbers: np.ndarray) -> Segments:
    """Returns the texts ``numbers`` [N] of ``encoded``."""
    return Segments(encoded.ids, encoded.offsets[numbers], np.diff(encoded.offsets)[numbers])


def copy_ranges(
    target: np.ndarray,
    target_starts: np.ndarray,
    source: np.ndarray,
    source_starts: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """``target[target_starts[i] + k] = source[source_starts[i] + k]`` for every i and ``k < lengths[i]``."""
    ends = np.cumsum(lengths)
    before = ends - lengths
    total = int(ends[-1]) if len(ends) else 0
    # In blocks of rows: the index arrays are several times what is copied.
    borders = np.searchsorted(ends, np.arange(0, total, _BLOCK), side="right")
    for first, last in pairwise([*borders.tolist(), len(lengths)]):
        rows = slice(first, last)
        index = np.arange(int(before[first]), int(ends[last - 1])) if last > first else np.arange(0)
        target[np.repeat(target_starts[rows] - before[rows], lengths[rows]) + index] = source[
            np.repeat(source_starts[rows] - before[rows], lengths[rows]) + index
        ]


def join(*parts: Segments | int, rows: int) -> Ragged:
    """Lays parts end to end, row by row; an int is one and the same value in every row."""
    lengths = np.zeros(rows, np.int64)
    for part in parts:
        lengths += 1 if isinstance(part, int) else part.lengths
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    values = np.empty(offsets[-1], np.int32)
    cursor = offsets[:-1].copy()
    for part in parts:
        if isinstance(part, int):
            values[cursor] = part
            cursor += 1
        else:
            copy_ranges(values, cursor, part.values, part.starts, part.lengths)
            cursor += part.lengths
    return Ragged(values, offsets)
