"""Prediction: all rows of all languages once, sorted by length."""

from collections.abc import Iterator

import numpy as np

from stilts_jax.data.buckets import bucket_lengths, find_bucket, round_up
from stilts_jax.data.collate import COLLATORS, flat, measure_rows
from stilts_jax.data.records import Batch, Features
from stilts_jax.errors import ConfigError


class PredictionStream:
    """Batches in which every row occurs exactly once, the longest first (so that memory runs out at once, or
    never).

    A batch takes the next longest rows, padded to the bucket of the longest; the number of rows is static for
    a bucket. So only the very last batch has rows that fill up; they repeat a row, at weight 0.

    Attributes:
        buckets: lengths that ``tokens`` may have.
        shapes: (rows, length) of the global batches that occur.
    """

    def __init__(
        self,
        task: str,
        features: Features,
        *,
        max_length: int,
        rows_per_batch: int | None = None,
        tokens_per_batch: int = 16384,
        max_buckets: int = 8,
        multiple: int = 8,
        row_multiple: int = 8,
        host_index: int = 0,
        host_count: int = 1,
    ) -> None:
        """Plans the batches.

        Args:
            rows_per_batch: rows of every batch; None sizes a batch by ``tokens_per_batch``.
            tokens_per_batch: tokens, padding included, that a batch has at most (if its rows can be so few).
            max_buckets: lengths at most.
            multiple: what lengths are multiples of.
            row_multiple: what numbers of rows are multiples of (devices of all hosts).
            host_index: which part of each batch this host takes, of ``host_count``.
        """
        if features.kind not in COLLATORS:
            raise ConfigError(f"kind {features.kind} has no predictions", where=f"task {task}")
        if row_multiple % host_count:
            raise ConfigError(f"row_multiple={row_multiple} does not divide over {host_count} hosts")
        self.task, self._features = task, features
        self._host_index, self._host_count = host_index, host_count
        lengths = measure_rows(features)
        self._order = np.argsort(-lengths, kind="stable")
        sorted_lengths = lengths[self._order]
        longest = int(sorted_lengths[0]) if len(lengths) else 1
        self.buckets = bucket_lengths(
            lengths, longest, max_count=max_buckets, multiple=multiple, limit=max_length
        )
        width = int(flat(features, "num_choices").max()) if features.kind == "choice" and len(lengths) else 1
        self._plan: list[tuple[int, int, int]] = []  # first place in the order, rows, length
        first = 0
        while first < len(lengths):
            length = find_bucket(self.buckets, int(sorted_lengths[first]))
            wanted = rows_per_batch or tokens_per_batch // (length * width)
            rows = max(round_up(wanted - row_multiple + 1, row_multiple), row_multiple)  # rounded down
            self._plan.append((first, rows, length))
            first += rows
        self.shapes = tuple(dict.fromkeys((rows, length) for _, rows, length in self._plan))

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        return (self.batch_at(index) for index in range(len(self)))

    def batch_at(self, index: int) -> Batch:
        """Returns this host's part of a batch; ``rows`` is -1 where a row only fills up."""
        first, count, length = self._plan[index]
        share = count // self._host_count
        place = first + self._host_index * share + np.arange(share)
        real = place < len(self._order)
        rows = self._order[np.where(real, place, first)]
        arrays = COLLATORS[self._features.kind](self._features, rows, length)
        arrays["weight"] = real.astype(np.float32)
        return Batch(self.task, arrays, np.where(real, rows, -1))
