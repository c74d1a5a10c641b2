"""Endless orders that can be entered anywhere: of rows, and of what to take next of several things."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from stilts_jax.batches.draws import draw_permutation
from stilts_jax.errors import ConfigError

_UNIT = 2**60  # shares are whole numbers of these, so that counts are exact at any step


class Rows(Protocol):
    """An endless stream of row numbers."""

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Returns the rows at ``positions`` [P]."""


class ShuffledRows:
    """Epoch after epoch, each a permutation of its own of rows 0 to ``count - 1``."""

    def __init__(self, count: int, seed: int, purpose: str = "rows") -> None:
        self._count = count
        self._permutation = lru_cache(maxsize=4)(
            lambda epoch: draw_permutation(seed, purpose, epoch, count),
        )

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Returns the rows at ``positions`` [P]."""
        epochs, places = np.divmod(positions, self._count)
        rows = np.empty(len(positions), np.int64)
        for epoch in range(int(epochs.min()), int(epochs.max()) + 1):
            chosen = epochs == epoch
            rows[chosen] = self._permutation(epoch)[places[chosen]]
        return rows


class Block(NamedTuple):
    """One block of a schedule.

    Attributes:
        item: int64 [K], which of the things.
        occurrence: int64 [K], how often it came before, from the beginning of time.
    """

    item: np.ndarray
    occurrence: np.ndarray


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
        block = self._make(step // self.block)
        return int(block.item[step % self.block]), int(block.occurrence[step % self.block])

    def take(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for many steps [P] that lie close together."""
        item, occurrence = np.empty(len(steps), np.int64), np.empty(len(steps), np.int64)
        numbers, places = np.divmod(steps, self.block)
        for number in range(int(numbers.min()), int(numbers.max()) + 1):
            chosen = numbers == number
            block = self._make(number)
            item[chosen] = block.item[places[chosen]]
            occurrence[chosen] = block.occurrence[places[chosen]]
        return item, occurrence

    def _count_before(self, block: int) -> np.ndarray:
        """int64 [things]: how often each comes in the first ``block`` blocks. Python ints don't overflow."""
        return np.diff([0, *(block * self.block * border // _UNIT for border in self._borders)])

    def _make_block(self, number: int) -> Block:
        before = self._count_before(number)
        counts = self._count_before(number + 1) - before
        order = draw_permutation(self._seed, self._purpose, number, self.block)
        item = np.empty(self.block, np.int64)
        item[order] = np.repeat(np.arange(len(counts)), counts)
        occurrence = np.empty(self.block, np.int64)
        for thing in np.flatnonzero(counts):
            occurrence[item == thing] = before[thing] + np.arange(counts[thing])
        return Block(item, occurrence)


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
