"""Endless orders that can be entered anywhere, so that a resumed run sees the same batches.

Only raw bits of a counter-based generator are used, which numpy keeps the same from version to version.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from stilts_jax.errors import ConfigError
from stilts_jax.features.records import count_up

Rows = Callable[[np.ndarray], np.ndarray]  # the row numbers at some positions of an endless stream
_UNIT = 2**60  # shares are whole numbers of these, so that counts are exact at any step
_LONGEST = 2**20  # steps of a block: what comes more rarely has no place in it


def draw_bits(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """Returns uint64 [count], a pure function of seed, purpose and ``index`` (of an epoch, window or step)."""
    key = np.array([seed % 2**64, zlib.crc32(purpose.encode())], np.uint64)
    counter = np.array([0, 0, index, 0], np.uint64)  # the lowest word counts the draws
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def draw_permutation(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """Returns int64 [count], the numbers below ``count`` in random order."""
    return np.argsort(draw_bits(seed, purpose, index, count), kind="stable")


def _gather(
    numbers: np.ndarray, places: np.ndarray, read: Callable[[int, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Returns int64 [..., P], column by column what ``read(number, places)`` gives; each number is read once."""
    parts = [read(number, places[numbers == number]) for number in np.unique(numbers).tolist()]
    found = np.empty((*parts[0].shape[:-1], len(numbers)), np.int64)
    found[..., np.argsort(numbers, kind="stable")] = np.concatenate(parts, axis=-1)
    return found


def shuffled_rows(count: int, seed: int, purpose: str = "rows") -> Rows:
    """Returns a stream of epochs, each a permutation of its own of rows 0 to ``count - 1``."""
    permutation = lru_cache(maxsize=4)(lambda epoch: draw_permutation(seed, purpose, epoch, count))
    return lambda positions: _gather(*np.divmod(positions, count), lambda epoch, at: permutation(epoch)[at])


class Schedule:
    """An order of several things in given shares, block by block: inside a block it is random.

    After any whole number of blocks each has come as often as its share says, to within one. ``shares`` (float64
    [things]) and ``block`` are those that are really used: a block has a step for the rarest thing at least.
    """

    def __init__(self, weights: Sequence[float], seed: int, *, block: int, purpose: str) -> None:
        values = np.asarray(weights, np.float64)
        self._borders = [round(share * _UNIT) for share in np.cumsum(values / values.sum())]
        self._borders[-1] = _UNIT
        units = np.diff([0, *self._borders])
        if units.min() < _UNIT / _LONGEST:
            what = f"The smallest of the weights {list(weights)} is too small beside the others."
            raise ConfigError(what, where=purpose, fix=f"none may be less than 1/{_LONGEST} of their sum")
        self.shares = units / _UNIT
        self.block = max(block, -(-_UNIT // int(units.min())))
        self._seed, self._purpose = seed, purpose
        self._make = lru_cache(maxsize=4)(self._make_block)

    def take(self, steps: np.ndarray) -> np.ndarray:
        """Returns which thing comes at each step, and how often it came before: int64 [2, P]."""
        return _gather(*np.divmod(steps, self.block), lambda number, at: self._make(number)[:, at])

    def _make_block(self, number: int) -> np.ndarray:
        # How often each comes before this block and the next; Python's integers don't overflow.
        steps = (number * self.block, (number + 1) * self.block)
        marks = [[0, *(step * border // _UNIT for border in self._borders)] for step in steps]
        before, after = np.diff(marks)
        counts = after - before
        item, occurrence = block = np.empty((2, self.block), np.int64)
        order = draw_permutation(self._seed, self._purpose, number, self.block)
        item[order] = np.repeat(np.arange(len(counts)), counts)
        occurrence[np.argsort(item, kind="stable")] = np.repeat(before, counts) + count_up(counts)
        return block


def smoothed_rows(group: np.ndarray, alpha: float, seed: int) -> Rows:
    """Returns a stream of rows of ``group`` [N] 0, 1, ..., each as often as its number of rows ``** alpha`` says."""
    members = [np.flatnonzero(group == number) for number in range(int(group.max()) + 1)]
    schedule = Schedule([float(len(rows)) ** alpha for rows in members], seed, block=256, purpose="groups")
    orders = [shuffled_rows(len(rows), seed, f"rows of group {n}") for n, rows in enumerate(members)]

    def take(positions: np.ndarray) -> np.ndarray:
        groups, occurrences = schedule.take(positions)
        return _gather(groups, occurrences, lambda number, at: members[number][orders[number](at)])

    return take
