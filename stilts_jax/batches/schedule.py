"""Endless orders that can be entered anywhere: of rows, and of what to take next of several things.

Random numbers are a function of where they are used, not of what was drawn before, so that a run that is resumed sees
the same batches. Only raw bits of a counter-based generator are used: numpy keeps those the same from version to
version, which it does not promise of ``permutation`` or ``integers``.
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from stilts_jax.errors import ConfigError

_UNIT = 2**60  # shares are whole numbers of these, so that counts are exact at any step


def draw_bits(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """Returns uint64 [count], a pure function of its arguments.

    Args:
        seed: the run's seed.
        purpose: keeps streams apart (order, masking, ...).
        index: epoch, window, step: what the draw belongs to.
    """
    key = np.array([seed % 2**64, zlib.crc32(purpose.encode())], np.uint64)
    counter = np.array([0, 0, index, 0], np.uint64)  # the lowest word counts the draws
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def draw_permutation(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """Returns int64 [count], the numbers below ``count`` in random order."""
    return np.argsort(draw_bits(seed, purpose, index, count), kind="stable")


def draw_uniform(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """Returns float64 [count] in [0, 1)."""
    return (draw_bits(seed, purpose, index, count) >> np.uint64(11)) * 2.0**-53


class Rows(Protocol):
    """An endless stream of row numbers."""

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Returns the rows at ``positions`` [P]."""


def _by_block(positions: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the number of each block of ``size``, which of the positions lie in it, and their places there."""
    numbers, places = np.divmod(positions, size)
    for number in range(int(numbers.min()), int(numbers.max()) + 1):
        chosen = numbers == number
        yield number, chosen, places[chosen]


class ShuffledRows:
    """Epoch after epoch, each a permutation of its own of rows 0 to ``count - 1``."""

    def __init__(self, count: int, seed: int, purpose: str = "rows") -> None:
        self._count = count
        self._permutation = lru_cache(maxsize=4)(lambda epoch: draw_permutation(seed, purpose, epoch, count))

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Returns the rows at ``positions`` [P]."""
        rows = np.empty(len(positions), np.int64)
        for epoch, chosen, places in _by_block(positions, self._count):
            rows[chosen] = self._permutation(epoch)[places]
        return rows


class Schedule:
    """An order of several things in given shares, block by block.

    After any whole number of blocks each has come as often as its share says, to within one. Inside a block
    the order is random.

    Attributes:
        shares: float64 [things], as they are really used.
        block: steps of a block: at least what gives the rarest thing one step in each.
    """

    def __init__(self, weights: Sequence[float], seed: int, *, block: int, purpose: str) -> None:
        values = np.asarray(weights, np.float64)
        if not len(values) or not np.isfinite(values).all() or (values <= 0).any():
            raise ConfigError(f"weights of a mixture must be positive numbers; these are {list(weights)}")
        self._borders = [round(share * _UNIT) for share in np.cumsum(values / values.sum())]
        self._borders[-1] = _UNIT
        units = np.diff([0, *self._borders])
        if units.min() < 1:
            raise ConfigError(f"the smallest of the weights {list(weights)} is too small beside the others")
        self.shares = units / _UNIT
        self.block = max(block, -(-_UNIT // int(units.min())))
        self._seed, self._purpose = seed, purpose
        self._make = lru_cache(maxsize=4)(self._make_block)

    def at(self, step: int) -> tuple[int, int]:
        """Returns which thing comes at ``step``, and how often it came before."""
        item, occurrence = self._make(step // self.block)[:, step % self.block].tolist()
        return item, occurrence

    def take(self, steps: np.ndarray) -> np.ndarray:
        """Returns both for many steps [P] that lie close together: int64 [2, P]."""
        found = np.empty((2, len(steps)), np.int64)
        for number, chosen, places in _by_block(steps, self.block):
            found[:, chosen] = self._make(number)[:, places]
        return found

    def _count_before(self, block: int) -> np.ndarray:
        """int64 [things]: how often each comes in the first ``block`` blocks. Python ints don't overflow."""
        return np.diff([0, *(block * self.block * border // _UNIT for border in self._borders)])

    def _make_block(self, number: int) -> np.ndarray:
        before = self._count_before(number)
        counts = self._count_before(number + 1) - before
        item, occurrence = block = np.empty((2, self.block), np.int64)
        order = draw_permutation(self._seed, self._purpose, number, self.block)
        item[order] = np.repeat(np.arange(len(counts)), counts)
        for thing in np.flatnonzero(counts):
            occurrence[item == thing] = before[thing] + np.arange(counts[thing])
        return block


class SmoothedRows:
    """Rows of several groups, a group as often as ``its number of rows ** alpha`` says.

    Args:
        group: [N] the group of each row; each group from 0 on has one at least.
        alpha: 1 is proportional, 0 uniform; XLM-R was pre-trained with 0.3.
    """

    def __init__(self, group: np.ndarray, alpha: float, seed: int) -> None:
        self._rows = [np.flatnonzero(group == number) for number in range(int(group.max()) + 1)]
        weights = [float(len(rows)) ** alpha for rows in self._rows]
        self._schedule = Schedule(weights, seed, block=256, purpose="groups")
        self._orders = [
            ShuffledRows(len(rows), seed, f"rows of group {number}") for number, rows in enumerate(self._rows)
        ]

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Returns the rows at ``positions`` [P]."""
        groups, occurrences = self._schedule.take(positions)
        rows = np.empty(len(positions), np.int64)
        for number in np.unique(groups):
            chosen = groups == number
            rows[chosen] = self._rows[number][self._orders[number].take(occurrences[chosen])]
        return rows
