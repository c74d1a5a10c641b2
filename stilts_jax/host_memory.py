"""How the C library of this process keeps memory, for computing on a CPU."""

import ctypes
import importlib.util
import os
import sys

# Names of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Makes glibc keep what is freed, where JAX will find no accelerator.

    XLA on a CPU asks for the working memory of a program whenever it runs. Blocks of that size glibc takes from the
    system and gives back each time, and a gigabyte of fresh, zeroed pages is a fifth of a small step. It keeps blocks
    that large only if all threads share one heap, and has decided about that once the first thread has its own: this
    comes before anything that starts threads.

    The price: steps of several lengths leave holes, so that the heap gets about twice as large as the largest step
    needs by ``stilts plan`` (10 GB for 4.7 GiB: 16 rows of up to 192 in five lengths, a small encoder).
    """
    if not (sys.platform.startswith("linux") and _only_cpu()):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)


def _only_cpu() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms == "cpu"
    # Asking JAX would start its threads.
    return not any(importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins"))
