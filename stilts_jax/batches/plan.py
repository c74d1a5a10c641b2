"""Training batches are computed from (seed, step). Prediction reads every row once, longest first.

In training, every epoch is a new permutation of the rows, and epochs follow each other without a gap. This stream is
cut into windows of W batches. The rows of a window are sorted by length and cut into batches, and the order of these
batches is drawn. So a batch holds rows of nearly one length, every batch is exactly full, and the last batch of an
epoch is completed with the first rows of the next. No draw depends on an earlier one, so that any step can be asked
for. Every host makes the whole batch and puts the rows of its own devices there.
"""

from collections.abc import Iterator

import numpy as np

from stilts_jax.batches.buckets import bucket_lengths, find_bucket, round_up
from stilts_jax.batches.collate import COLLATORS, flat, measure_rows, pad, ragged
from stilts_jax.batches.draws import draw_permutation
from stilts_jax.batches.masking import Masking
from stilts_jax.batches.packing import PackedText
from stilts_jax.batches.schedule import Rows, ShuffledRows, SmoothedRows
from stilts_jax.errors import ConfigError, DataError
from stilts_jax.features.records import PAD_ID, Batch, Features

_SAMPLE = 512  # windows whose batches decide the buckets
_MASKING_SEED = 0  # of predictions: two checkpoints are scored on the same masked tokens


class TrainingBatches:
    """The batches of one task.

    Attributes:
        task: goes into each batch.
        num_rows: rows of an epoch (of mlm: packed rows).
        steps_per_epoch: batches that see each row once; the last of them may be shared with the next epoch.
        buckets: lengths that ``tokens`` may have (``pair_tokens``, where there are pairs).
        query_buckets: lengths that ``tokens`` may have where there are pairs.
    """

    def __init__(
        self,
        task: str,
        features: Features,
        *,
        batch_size: int,
        seed: int,
        max_length: int,
        window: int = 8,
        max_buckets: int = 8,
        multiple: int = 8,
        masking: Masking | None = None,
        alpha: float = 0.3,
    ) -> None:
        """Makes the plan.

        Args:
            features: one split, built for training.
            batch_size: rows of a global batch.
            max_length: the longest padded length; in masked language modelling the length of every packed row.
            window: W, the number of batches that are sorted together; 1 is a plain shuffle.
            max_buckets: the largest number of padded lengths.
            multiple: padded lengths are multiples of this.
            masking: needed by masked language modelling only.
            alpha: in masked language modelling, a language is drawn in proportion to its rows to this power.
        """
        if batch_size < 1 or window < 1:
            raise ConfigError(f"batch_size={batch_size} and window={window} must be 1 or more")
        if not len(features):
            raise DataError(
                "There are no rows to train on.", where=f"task {task}", fix="give the task training data"
            )
        self.task = task
        self._features = features
        self._batch_size, self._seed, self._window = batch_size, seed, window
        self._masking = masking
        self.query_buckets: tuple[int, ...] = ()
        self._rows: Rows
        if features.kind == "mlm":
            if masking is None:
                raise ConfigError("masked language modelling needs a Masking")
            self._packed = PackedText(features, max_length)
            self.num_rows = len(self._packed)
            self._lengths = np.full(self.num_rows, max_length)
            self._rows = SmoothedRows(self._packed.group, alpha, seed)
            self.buckets: tuple[int, ...] = (max_length,)
        else:
            self.num_rows = len(features)
            self._lengths = measure_rows(features)
            self._rows = ShuffledRows(self.num_rows, seed)
            paired = "pair_tokens" in features.columns
            self.buckets = bucket_lengths(
                self._sample_maxima(self._lengths),
                int(self._lengths.max()),
                max_count=max(max_buckets // 2, 1) if paired else max_buckets,
                multiple=multiple,
                limit=max_length,
            )
            if paired:
                queries = ragged(features, "tokens").lengths
                longest = int(queries.max())
                maxima = self._sample_maxima(queries)
                self.query_buckets = bucket_lengths(
                    maxima, longest, max_count=min(2, max_buckets), multiple=multiple
                )
        self.steps_per_epoch = -(-self.num_rows // batch_size)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that a batch can have: rows and lengths; each is compiled once."""
        if self.query_buckets:
            return tuple((self._batch_size, q, p) for q in self.query_buckets for p in self.buckets)
        return tuple((self._batch_size, length) for length in self.buckets)

    def describe(self) -> str:
        """One line for the log."""
        shapes = " ".join("x".join(map(str, shape)) for shape in self.shapes)
        return (
            f"{self.task}: {self.num_rows} rows, {self.steps_per_epoch} steps an epoch, "
            f"{len(self.shapes)} shapes ({shapes})"
        )

    def rows_at(self, step: int) -> np.ndarray:
        """int64 [batch_size]: the rows of the global batch."""
        return self._order_window(step // self._window)[step % self._window]

    def batch_at(self, step: int) -> Batch:
        """Returns the batch of ``step``."""
        rows = self.rows_at(step)
        if self._features.kind == "mlm":
            assert self._masking is not None
            arrays = self._packed.mask(rows, self._masking, self._seed, step)
        else:
            arrays = COLLATORS[self._features.kind](self._features, rows, self._find_length(rows))
            if self.query_buckets:
                queries = ragged(self._features, "tokens")
                length = find_bucket(self.query_buckets, int(queries.lengths[rows].max()))
                pairs = pad(ragged(self._features, "pair_tokens"), rows, self._find_length(rows), PAD_ID)
                arrays = {"tokens": pad(queries, rows, length, PAD_ID), "pair_tokens": pairs}
        arrays["weight"] = np.ones(len(rows), np.float32)
        return Batch(self.task, arrays, rows)

    def _find_length(self, rows: np.ndarray) -> int:
        return find_bucket(self.buckets, int(self._lengths[rows].max()))

    def _order_window(self, window: int) -> np.ndarray:
        """int64 [W, batch_size]"""
        size = self._window * self._batch_size
        rows = self._rows.take(np.arange(window * size, (window + 1) * size))
        if self._window == 1:
            return rows[None]
        batches = rows[np.argsort(self._lengths[rows], kind="stable")].reshape(self._window, self._batch_size)
        return batches[draw_permutation(self._seed, "batches", window, self._window)]

    def _sample_maxima(self, lengths: np.ndarray) -> np.ndarray:
        """The longest of each batch, over some windows from the beginning."""
        count = min(_SAMPLE, -(-self.num_rows // (self._batch_size * self._window)))
        return np.concatenate([lengths[self._order_window(window)].max(axis=1) for window in range(count)])


class PredictionStream:
    """Batches in which every row occurs exactly once, the longest first (so that memory runs out at once, or
    never).

    A batch takes the next longest rows, padded to the bucket of the longest; the number of rows is static for
    a bucket. So only the last batch is filled up: it repeats a row with weight 0.

    Attributes:
        buckets: lengths that ``tokens`` may have.
        shapes: (rows, length) of the global batches that occur.
    """

    def __init__(
        self,
        task: str,
        features: Features,
        *,
        rows_per_batch: int | None = None,
        tokens_per_batch: int = 16384,
        max_buckets: int = 8,
        multiple: int = 8,
        row_multiple: int = 8,
        masking: Masking | None = None,
    ) -> None:
        """Plans the batches.

        Args:
            rows_per_batch: rows of every batch; None sizes a batch by ``tokens_per_batch``.
            tokens_per_batch: tokens, padding included, that a batch has at most (if its rows can be so few).
            max_buckets: lengths at most.
            multiple: what lengths are multiples of.
            row_multiple: what numbers of rows are multiples of (devices of all hosts).
            masking: for mlm; the same tokens are masked whenever the stream is read.
        """
        self.task, self._features = task, features
        lengths = measure_rows(features)
        self._masking = masking
        if features.kind == "mlm" and len(features):
            if masking is None:
                raise ConfigError("masked language modelling needs a Masking")
            self._packed = PackedText(features, round_up(int(lengths.max()), multiple))
            lengths = np.full(len(self._packed), self._packed.length)
        self._order = np.argsort(-lengths, kind="stable")
        sorted_lengths = lengths[self._order]
        longest = int(sorted_lengths[0]) if len(lengths) else 1
        width = int(flat(features, "num_choices").max()) if features.kind == "choice" and len(lengths) else 1
        batches = (
            len(lengths) / rows_per_batch if rows_per_batch else width * int(lengths.sum()) / tokens_per_batch
        )
        # A length that a single batch would have takes longer to compile than it saves.
        worthwhile = min(max_buckets, max(1, int(batches / 2)))
        self.buckets = bucket_lengths(lengths, longest, max_count=worthwhile, multiple=multiple)
        self._plan: list[tuple[int, int, int]] = []  # first place in the order, rows, length
        first = 0
        while first < len(lengths):
            length = find_bucket(self.buckets, int(sorted_lengths[first]))
            wanted = rows_per_batch or tokens_per_batch // (length * width)
            rows = max(wanted // row_multiple, 1) * row_multiple
            if first + rows > len(lengths) and all(shape[1:] != (rows, length) for shape in self._plan):
                rows = round_up(len(lengths) - first, row_multiple)  # alone of its shape: no need to be full
            self._plan.append((first, rows, length))
            first += rows
        self.shapes = tuple(dict.fromkeys((rows, length) for _, rows, length in self._plan))

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        return (self.batch_at(index) for index in range(len(self)))

    def batch_at(self, index: int) -> Batch:
        """Returns a batch; ``rows`` is -1 where a repeated row fills it up."""
        first, count, length = self._plan[index]
        place = first + np.arange(count)
        real = place < len(self._order)
        rows = self._order[np.where(real, place, first)]
        weight = real.astype(np.float32)
        if self._features.kind == "mlm":
            assert self._masking is not None
            arrays = self._packed.mask(rows, self._masking, _MASKING_SEED, index)
            arrays["masked_weights"] = arrays["masked_weights"] * weight[:, None]
        else:
            arrays = COLLATORS[self._features.kind](self._features, rows, length)
        arrays["weight"] = weight
        return Batch(self.task, arrays, np.where(real, rows, -1))
