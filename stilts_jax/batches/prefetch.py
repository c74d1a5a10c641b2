"""Batches made ahead of their use, by threads (numpy and the copying of memory let others run meanwhile)."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np

from stilts_jax.batches.collate import Arrays
from stilts_jax.features.records import Batch

Made = TypeVar("Made")


@contextmanager
def made_ahead(
    make: Callable[[int], Made], count: float = math.inf, *, threads: int = 1, ahead: int = 4
) -> Iterator[Callable[[int], Made]]:
    """Gives a function that returns ``make(step)`` (a pure function) and makes the ``ahead`` steps behind it meanwhile.

    There are ``count`` steps. An exception is raised where its step is asked for. Threads end with the context.
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


def remapped(
    batch_at: Callable[[int], Batch], remap: Callable[[Mapping[str, np.ndarray]], Arrays] | None
) -> Callable[[int], Batch]:
    """Returns ``batch_at`` with the arrays of every batch changed (the numbers of a phase vocabulary)."""

    def make(step: int) -> Batch:
        batch = batch_at(step)
        return replace(batch, arrays=remap(batch.arrays)) if remap else batch

    return make
