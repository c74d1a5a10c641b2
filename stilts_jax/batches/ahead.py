"""Batches asked for by step, made ahead by a thread."""

from collections.abc import Callable, Iterator
from itertools import count

from stilts_jax.batches.prefetch import prefetch
from stilts_jax.features.records import Batch


class BatchesAhead:
    """``batch_at`` for a loop that asks for one step after the other, from whatever step it begins with."""

    def __init__(self, batch_at: Callable[[int], Batch]) -> None:
        self._batch_at = batch_at
        self._next = -1
        self._made: Iterator[Batch] | None = None

    def __enter__(self) -> "BatchesAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, step: int) -> Batch:
        """Returns the batch of ``step``."""
        if self._made is None or step != self._next:
            self._close()
            self._made = prefetch(self._batch_at, count(step))
        self._next = step + 1
        return next(self._made)

    def _close(self) -> None:
        if self._made is not None:
            self._made.close()  # type: ignore[attr-defined]  # prefetch is a generator
            self._made = None
