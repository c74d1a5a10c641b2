"""Batches made ahead of their use, by threads (numpy and the copying of memory let others run meanwhile)."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, islice
from typing import TypeVar

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
def made_ahead(batch_at: Callable[[int], Made]) -> Iterator[Callable[[int], Made]]:
    """Gives a ``batch_at`` for a loop that asks for one step after the other, from whatever step it begins with."""
    coming: Generator[Made, None, None] | None = None
    following = -1

    def next_batch(step: int) -> Made:
        nonlocal coming, following
        if coming is None or step != following:
            if coming is not None:
                coming.close()
            coming = prefetch(batch_at, count(step))
        following = step + 1
        return next(coming)

    try:
        yield next_batch
    finally:
        if coming is not None:
            coming.close()
