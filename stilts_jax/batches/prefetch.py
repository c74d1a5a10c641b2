"""Batches made ahead of their use, by threads (numpy and the copying of memory let others run meanwhile)."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
    """Yields ``make(step)`` (a pure function) in the order of ``steps``, up to ``ahead`` of them made in advance.

    An exception is raised where its batch would have come. Threads end with the iterator, read to its end or not.
    """
    remaining = iter(steps)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        waiting = deque(pool.submit(make, step) for step in islice(remaining, ahead))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(pool.submit(make, step) for step in islice(remaining, 1))
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def made_ahead(
    batch_at: Callable[[int], Batch], remap: Callable[[Mapping[str, np.ndarray]], Arrays] | None = None
) -> Iterator[Callable[[int], Batch]]:
    """Gives a ``batch_at`` for a loop that asks for one step after the other, whatever step it begins with.

    ``remap`` changes the arrays of every batch (the numbers of a phase vocabulary).
    """

    def make(step: int) -> Batch:
        batch = batch_at(step)
        return replace(batch, arrays=remap(batch.arrays)) if remap else batch

    coming, following = prefetch(make, ()), -1

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
