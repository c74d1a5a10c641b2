"""How the C library of this process keeps memory, for computing on a CPU."""

import ctypes
import importlib.util
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of a container, by its kind
_SHARE = 0.5  # of the machine's memory that a process may take before it gives back what is free


def keep_freed_memory() -> None:
    """Makes glibc keep what is freed, where JAX will find no accelerator.

    XLA on a CPU asks for a program's working memory whenever it runs. Blocks of that size glibc takes from the system
    and gives back each time, and a gigabyte of fresh, zeroed pages is a fifth of a small step. It keeps them only where
    all threads share one heap, which must be said before anything starts threads.

    The price: steps of several lengths leave holes, so that the heap gets two to four times as large as the largest
    step needs (20 GB for 6.2 GB: six tasks in ten shapes, a small encoder); see ``return_surplus_memory``.
    """
    platforms = os.environ.get("JAX_PLATFORMS")
    # Asking JAX would start its threads.
    plugins = any(importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins"))
    if sys.platform.startswith("linux") and (platforms == "cpu" if platforms else not plugins):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)  # another C library has none
        # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
        for name, value in ((-8, 1), (-4, 0), (-1, -1)):
            mallopt(name, value)


def return_freed_memory() -> None:
    """Gives back what is freed by now; a process of a long grid would grow from phase to phase (to 10 GB)."""
    if sys.platform.startswith("linux"):
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


def return_surplus_memory() -> None:
    """Gives back what is freed by now if this process holds over half of the machine's memory, files aside."""
    if sys.platform.startswith("linux"):
        _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text("ascii").split())
        if (resident - of_files) * os.sysconf("SC_PAGE_SIZE") > _SHARE * total_memory():
            return_freed_memory()


@cache
def total_memory() -> int:
    """Returns the bytes of the machine's memory, or of the container's where that has less; 0 if nobody says."""
    known = []
    with suppress(ValueError, OSError, AttributeError):  # names that a system does not have
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in _LIMITS:
        with suppress(ValueError, OSError):  # no such file, or "max" in it
            known.append(int((Path("/sys/fs/cgroup") / name).read_text("ascii")))
    return min(known, default=0)
