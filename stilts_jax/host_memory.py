"""How the C library of this process keeps memory, for computing on a CPU."""

import ctypes
import importlib.util
import os
import sys


def keep_freed_memory() -> None:
    """Makes glibc keep what is freed, where JAX will find no accelerator.

    XLA on a CPU asks for a program's working memory whenever it runs. Blocks of that size glibc takes from the system
    and gives back each time, and a gigabyte of fresh, zeroed pages is a fifth of a small step. It keeps them only where
    all threads share one heap, which must be said before anything starts threads.

    The price: steps of several lengths leave holes, so that the heap gets about twice as large as the largest step
    needs (10 GB for 4.7 GiB by ``stilts plan``: 16 rows of up to 192 in five lengths, a small encoder).
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
