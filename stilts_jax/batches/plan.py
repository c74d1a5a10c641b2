"""Training batches are computed from (seed, step). Prediction reads every row once, longest first.

In training, every epoch is a new permutation of the rows, and epochs follow each other without a gap. This stream is
cut into windows of W batches, whose rows are sorted by length and cut into batches in an order that is drawn. So rows
of a batch have nearly one length, every batch is full, and any step can be asked for, or made ahead by threads.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import product
from typing import TypeVar

import numpy as np

from stilts_jax.batches.collate import Masking, PackedText, collate, draw_bits, measure_rows
from stilts_jax.errors import ConfigError
from stilts_jax.features.records import Batch, Features, count_up
from stilts_jax.progress import counted
from stilts_jax.settings import MixtureSettings

Made = TypeVar("Made")
Rows = Callable[[np.ndarray], np.ndarray]  # the row numbers at some positions of an endless stream
MLM = "mlm"  # the task
_SAMPLE = 512  # windows whose batches decide the lengths
_WORTH = 1.01  # without a price fewer lengths are taken where they cost no more than this beside the best
# Up to here lengths are multiples of a quarter, and up to twice that of a half, of what longer ones are multiples of: a
# fixed step would be half of a short row.
_SHORT = 32
_UNIT = 2**60  # shares are whole numbers of these, so that counts are exact at any step
_LONGEST = 2**20  # steps of a block: what comes more rarely has no place in it


def round_lengths(lengths: np.ndarray, multiple: int) -> np.ndarray:
    """Rounds up to what padded lengths may be: multiples of ``multiple``, for the hardware; short ones of less."""
    divisor = np.where(lengths <= _SHORT, 4, np.where(lengths <= 2 * _SHORT, 2, 1))
    step = np.maximum(multiple // divisor, 1)
    return -(-lengths // step) * step


def bucket_lengths(
    lengths: np.ndarray, longest: int, max_count: int, multiple: int, limit: int | None, price: float
) -> tuple[int, ...]:
    """Chooses the few lengths, ascending, to pad to that cost least, by dynamic programming; each is a compilation.

    There are ``max_count`` at most, and fewer where one more would save no more padding than ``price`` tokens of the
    ``lengths`` [N] (of batches in training, of rows in prediction), or next to nothing where that is 0. ``longest``
    must fit, whether or not it is among these. No length exceeds ``limit``, whatever ``multiple`` is.
    """
    rounded = round_lengths(np.append(lengths, longest), multiple)
    sizes, counts = np.unique(np.minimum(rounded, limit or rounded[-1]), return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    # costs[j]: the least padded size of the first j sizes, with k lengths; cuts[k][j]: where the last one begins.
    costs = np.where(np.arange(len(sizes) + 1) == 0, 0.0, np.inf)
    totals, cuts = [], []
    for number in range(min(max_count, len(sizes))):
        step = costs[:-1, None] + (before[None, 1:] - before[:-1, None]) * sizes[None, :]
        step[np.tril_indices(len(sizes), -1)] = np.inf
        cut = np.argmin(step, axis=0)
        costs = np.concatenate([[np.inf], step[cut, np.arange(len(sizes))]])
        totals.append(costs[-1] + price * number)
        cuts.append(cut)
    most = min(totals) * (1 if price else _WORTH)
    count = next(k for k, total in enumerate(totals) if total <= most)
    chosen, end = tuple[int, ...](), len(sizes) - 1
    for cut in reversed(cuts[: count + 1]):
        chosen, end = (int(sizes[end]), *chosen), int(cut[end]) - 1
    return chosen


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


def _draw_rows(task: str, features: Features, label_alpha: float, seed: int) -> Rows:
    """Returns the order in which rows come: each once an epoch, or a label by its rows to the power ``label_alpha``."""
    if label_alpha == 1.0:
        return shuffled_rows(len(features), seed)
    if features.kind != "classify":
        what = f"Labels of a {features.kind} task can't be drawn by how many they are."
        fix = "set it for tasks with classes only: train.by_task=TASK.label_alpha=..."
        raise ConfigError(what, where=f"label_alpha of {task}", fix=fix)
    return smoothed_rows(np.unique(features.columns["label"], return_inverse=True)[1], label_alpha, seed)


class TrainingBatches:
    """The batches of one task: an epoch has ``num_rows`` rows (of mlm: packed rows) and ``steps_per_epoch`` batches.

    The last one may be shared with the next epoch. A batch has one of ``shapes``, rows and lengths, compiled once each.
    """

    def __init__(
        self,
        task: str,
        features: Features,
        *,
        batch_size: int,
        seed: int,
        max_length: int,  # the longest padded length; in masked language modelling that of every packed row
        window: int = 8,  # batches that are sorted together; 1 is a plain shuffle, as of rows with pictures
        max_buckets: int = 8,
        price: float = 0.0,  # tokens of padding that one more padded length must save in a step, on average
        masking: Masking | None = None,  # of masked language modelling
        alpha: float = 0.3,  # there a language is drawn by its rows to this power
        label_alpha: float = 1.0,  # so is a label in classification; 1 draws every row once an epoch
    ) -> None:
        self.task, self._features, self._seed, self._batch_size = task, features, seed, batch_size
        # The length of a question about a picture often tells what kind of answer it has: sorted batches would have one
        # kind each, which is not learnt from. And most of a row are its patches, as many in every row.
        self._window = 1 if features.pictures else window
        self._lengths = measure_rows(features)
        self._queries: tuple[int, ...] = ()  # padded lengths of ``tokens`` that have partners
        self._masking, columns = masking, features.columns
        if masking:
            # Captions have rows of their own, also in the control without pictures, which so takes as many steps.
            apart = bool(features.pictures) or task.partition("@")[0].endswith(".text")
            if apart:  # so they need not be longer than the longest
                max_length = min(max_length, int(round_lengths(self._lengths.max(keepdims=True), 8)[0]))
            self._packed = PackedText(features, max_length, packed=not apart)
            self._lengths = np.full(len(self._packed), max_length)
            self._rows = smoothed_rows(self._packed.group, alpha, seed)
            self.buckets: tuple[int, ...] = (max_length,)
        else:
            self._rows = _draw_rows(task, features, label_alpha, seed)
            # No more batches than come before a row comes again: sorted over several epochs, a batch would hold it
            # again and again, and a short run would never see others.
            once = float(len(features))
            if label_alpha != 1.0:
                counts = np.unique(columns["label"], return_counts=True)[1]
                once = np.min(counts ** (1 - label_alpha)) * np.sum(counts**label_alpha)
            self._window = min(self._window, max(int(once / batch_size), 1))
            paired = "pair_tokens" in columns
            count = max(max_buckets // 2, 1) if paired else max_buckets
            self.buckets = self._choose(self._lengths, count, price, max_length)
            if paired:
                self._queries = self._choose(columns["tokens"].lengths, min(2, max_buckets), price, None)
        self.num_rows = len(self._lengths)
        self.steps_per_epoch = -(-self.num_rows // batch_size)
        lengths = filter(None, (self._queries, self.buckets))
        self.shapes = tuple((batch_size, *some) for some in product(*lengths))

    def describe(self) -> str:
        """One line for the log."""
        shapes = " ".join("x".join(map(str, shape)) for shape in self.shapes)
        steps = f"{counted(self.num_rows, 'row')}, {counted(self.steps_per_epoch, 'step')} an epoch"
        return f"{self.task}: {steps}, {counted(len(self.shapes), 'shape')} ({shapes})"

    def rows_at(self, step: int) -> np.ndarray:
        """int64 [batch_size]: the rows of the global batch."""
        return self._order_window(step // self._window)[step % self._window]

    def batch_at(self, step: int) -> Batch:
        rows = self.rows_at(step)
        if self._masking:
            arrays = self._packed.mask(rows, self._masking, self._seed, step)
        else:
            query = 0
            if self._queries:
                longest = self._features.columns["tokens"].lengths[rows].max()
                query = self._queries[np.searchsorted(self._queries, longest)]
            length = self.buckets[np.searchsorted(self.buckets, self._lengths[rows].max())]
            arrays = collate(self._features, rows, length, query)
        return Batch(self.task, arrays | {"weight": np.ones(len(rows), np.float32)}, rows)

    def _order_window(self, window: int) -> np.ndarray:
        """int64 [W, batch_size]"""
        size = self._window * self._batch_size
        rows = self._rows(np.arange(window * size, (window + 1) * size))
        if self._window == 1:
            return rows[None]
        batches = rows[np.argsort(self._lengths[rows], kind="stable")].reshape(self._window, self._batch_size)
        return batches[draw_permutation(self._seed, "batches", window, self._window)]

    def _choose(self, lengths: np.ndarray, count: int, price: float, limit: int | None) -> tuple[int, ...]:
        """Returns the lengths that serve best the longest rows of the batches of some windows."""
        windows = range(min(_SAMPLE, -(-len(lengths) // (self._batch_size * self._window))))
        maxima = np.concatenate([lengths[self._order_window(window)].max(axis=1) for window in windows])
        price *= len(maxima) / self._batch_size
        return bucket_lengths(maxima, int(lengths.max()), count, 8, limit, price)


def weigh_tasks(
    sizes: Mapping[str, int], mixture: MixtureSettings, given: Mapping[str, float]
) -> dict[str, float]:
    """Returns how often each task comes, by its number of rows or as ``given`` says; MLM has a share of its own."""
    if given:
        return {name: given[name] for name in sizes}
    cap = mixture.cap if mixture.sampler in ("capped", "temperature") else math.inf
    power = {"uniform": 0.0, "temperature": 1 / mixture.temperature}.get(mixture.sampler, 1.0)
    weights = {name: float(min(size, cap)) ** power for name, size in sizes.items()}
    if MLM not in weights:
        return weights
    total, rest = sum(one for name, one in weights.items() if name != MLM), 1 - mixture.mlm_weight
    return {name: mixture.mlm_weight if name == MLM else rest * one / total for name, one in weights.items()}


def count_steps(tasks: Sequence[tuple[int, float, int]], cap: int) -> int:
    """The length of a phase: the sum of epochs * ceil(min(rows, cap) / batch size) over (rows, epochs, batch size)."""
    return sum(round(epochs * -(-min(rows, cap) // batch_size)) for rows, epochs, batch_size in tasks)


class Mixture:
    """The batches of several tasks, in an order that is a pure function of (seed, step)."""

    def __init__(self, tasks: Mapping[str, TrainingBatches], weights: Mapping[str, float], seed: int) -> None:
        self._tasks = list(tasks.values())
        self._schedule = Schedule([weights[name] for name in tasks], seed, block=64, purpose="tasks")
        self.shares = dict(zip(tasks, self._schedule.shares.tolist()))
        self.shapes = tuple(shape for batches in self._tasks for shape in batches.shapes)

    def batch_at(self, step: int) -> Batch:
        """The next batch of the task whose turn it is."""
        number, occurrence = self._schedule.take(np.array([step]))[:, 0].tolist()
        return self._tasks[number].batch_at(occurrence)


class PredictionStream:
    """Batches in which every row occurs exactly once, the longest first: memory runs out at once, or never.

    A batch takes the next longest rows, padded to the least of ``buckets`` that holds them; the number of rows is
    static for a length. So only the last batch is filled up: it repeats a row with weight 0.
    """

    def __init__(
        self,
        features: Features,
        *,
        tokens_per_batch: int = 16384,  # at most, padding included, if rows can be so few
        max_buckets: int = 8,
        multiple: int = 8,
        limit: int | None = None,  # no row is padded to more
        price: float = 0.0,  # tokens of padding that one more length must save
        row_multiple: int = 8,  # numbers of rows are multiples of it (devices of all hosts)
    ) -> None:
        self._features, lengths = features, measure_rows(features)
        self._order = np.argsort(-lengths, kind="stable")
        ordered = lengths[self._order]
        width = int(features.columns["num_choices"].max(initial=1)) if features.kind == "choice" else 1
        # A length that a single batch would have takes longer to compile than it saves.
        worthwhile = min(max_buckets, max(1, int(width * int(lengths.sum()) / tokens_per_batch / 2)))
        longest = int(ordered[0]) if len(ordered) else 1
        limit = max(limit, longest) if limit else None  # a row that is too long is refused with its length
        self.buckets = bucket_lengths(lengths, longest, worthwhile, multiple, limit, price / width)
        self._plan: list[tuple[int, int, int]] = []  # first place in the order, rows, length
        first = 0
        while first < len(lengths):
            length = self.buckets[np.searchsorted(self.buckets, ordered[first])]
            tokens = length * width + features.visual_tokens
            rows = max(tokens_per_batch // tokens // row_multiple, 1) * row_multiple
            left = len(lengths) - first
            if rows > left and all(shape[1:] != (rows, length) for shape in self._plan):
                rows = -(-left // row_multiple) * row_multiple  # alone of its shape: no need to be full
            self._plan.append((first, rows, length))
            first += rows
        self.shapes = tuple(dict.fromkeys((rows, length) for _, rows, length in self._plan))

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch_at, range(len(self)))

    def batch_at(self, index: int) -> Batch:
        """Returns a batch; ``rows`` is -1 where a repeated row fills it up."""
        first, count, length = self._plan[index]
        place = first + np.arange(count)
        real = place < len(self._order)
        rows = self._order[np.where(real, place, first)]
        arrays = collate(self._features, rows, length) | {"weight": real.astype(np.float32)}
        return Batch(self._features.kind, arrays, np.where(real, rows, -1))


@contextmanager
def made_ahead(
    make: Callable[[int], Made], count: float = math.inf, *, threads: int = 1, ahead: int = 4
) -> Iterator[Callable[[int], Made]]:
    """Gives a function that returns ``make(step)`` (a pure function) and makes the ``ahead`` steps behind it meanwhile.

    Numpy and the copying of memory let other threads run. There are ``count`` steps. An exception is raised where its
    step is asked for. Threads end with the context.
    """
    pool, coming = ThreadPoolExecutor(threads, thread_name_prefix="prefetch"), dict[int, Future]()

    def take(step: int) -> Made:
        wanted = range(step, int(min(step + ahead + 1, count)))
        for late in coming.keys() - set(wanted):
            coming.pop(late).cancel()
        for one in wanted:
            if one not in coming:
                coming[one] = pool.submit(make, one)
        return coming.pop(step).result()

    try:
        yield take
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
