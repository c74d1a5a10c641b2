"""Batches made ahead of their use, by threads (numpy and the copying of memory let others run meanwhile)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Made = TypeVar("Made")


def prefetch(
    make: Callable[[int], Made], steps: Iterable[int], *, threads: int = 1, ahead: int = 4
) -> Iterator[Made]:
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
