"""Batches made ahead of their use, by threads (numpy and the copying of memory let others run meanwhile)."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, islice
from typing import TypeVar

import numpy as np

from stilts_jax.batches.collate import Arrays
from stilts_jax.features.records import Batch

Made = TypeVar("Made")


def prefetch(
    make: Callable[[int], Made], steps: Iterable[int], *, threads: int = 1, ahead: int = 4
) -> Generator[Made, None, None]:
    """Yields ``make(step)`` in the order of ``steps``, made up to ``ahead`` steps before they are asked for.

    An exception in ``make`` is raised where its batch would have come. Threads end with the iterator: when it
    is exhausted, closed or no longer used.

    Args:
        make: a pure function, such as ``batch_at``.
    """
    remaining = iter(steps)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        waiting: deque[Future[Made]] = deque(pool.submit(make, step) for step in islice(remaining, ahead))
        while waiting:
            made = waiting.popleft().result()
            for step in islice(remaining, 1):
                waiting.append(pool.submit(make, step))
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def made_ahead(
    batch_at: Callable[[int], Batch], remap: Callable[[Mapping[str, np.ndarray]], Arrays] | None = None
) -> Iterator[Callable[[int], Batch]]:
    """Gives a ``batch_at`` for a loop that asks for one step after the other, from whatever step it begins with.

    Args:
        batch_at: makes the batch of a step.
        remap: changes the arrays of every batch (the numbers of a phase vocabulary).
    """

    def make(step: int) -> Batch:
        batch = batch_at(step)
        return replace(batch, arrays=remap(batch.arrays)) if remap else batch

    coming: Generator[Batch, None, None] = prefetch(make, ())
    following = -1

    def next_batch(step: int) -> Batch:
        nonlocal coming, following
        if step != following:
            coming.close()
            coming = prefetch(make, count(step))
        following = step + 1
        return next(coming)

    try:
        yield next_batch
    finally:
        coming.close()
