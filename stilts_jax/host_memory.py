"""How this process keeps memory: what the C library does on a CPU, and how often Python looks for garbage."""

import atexit
import ctypes
import gc
import importlib.util
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

# Where the limits of control groups (of containers, of jobs) stand, by what /proc/self/cgroup calls their hierarchy.
_LIMITS = {"": ("sys/fs/cgroup", "memory.max"), "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes")}
GPU_SHARE = 0.93  # of a GPU's memory that JAX may take (three quarters by itself): nothing else runs there
# Of the machine's memory: what stays spare, and below which nothing is looked at.
_SPARE, _LEAST = 0.1, 0.25


def prepare_process() -> None:
    """Is for a process of our own, before anything large is imported.

    Imports alone leave half a million objects. To look through them as often as Python does by itself takes three
    seconds of three minutes, and once more as it ends two; cycles that hold much memory are rare.
    """
    keep_freed_memory()
    if not os.environ.keys() & {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"}:
        os.environ["XLA_CLIENT_MEM_FRACTION"] = str(GPU_SHARE)
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)


def keep_freed_memory() -> None:
    """Makes glibc keep what is freed, where JAX will find no accelerator.

    XLA on a CPU asks for a program's working memory whenever it runs. Blocks of that size glibc takes from the system
    and gives back each time, and a gigabyte of fresh, zeroed pages is a fifth of a small step. It keeps them only in
    the heap of the main thread, so programs must run there (``initialize`` says it to JAX). One heap for all threads
    would do too, but those that compile would wait for each other at its lock for a third of their time.

    The price: steps of several lengths leave holes, so that the heap gets twice as large as the largest step needs; see
    ``FreedMemory``.
    """
    platforms = os.environ.get("JAX_PLATFORMS")
    # Asking JAX would start its threads.
    plugins = any(importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins"))
    if sys.platform.startswith("linux") and (platforms == "cpu" if platforms else not plugins):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)  # another C library has none
        for name, value in ((-4, 0), (-1, -1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
            mallopt(name, value)


def return_freed_memory() -> None:
    """Gives back what is freed by now; a process of a long grid would grow from phase to phase (to 10 GB)."""
    if sys.platform.startswith("linux"):
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


class FreedMemory:
    """Freed memory that the process keeps, as long as there is room for it.

    To give it back after each step would cost more than it helps: fresh pages of a step of 6 GB take seconds.
    """

    def __init__(self) -> None:
        self._last = held_memory()  # bytes that the process held when it was last looked at
        self._most = 0  # that it grew by from one look to the next

    def return_if_short(self) -> None:
        """Gives it back if the process could not grow once more as it has grown before."""
        held, total = held_memory(), total_memory()
        self._most = max(self._most, held - self._last)
        if held > _LEAST * total:
            room = total - held
            with suppress(OSError, IndexError):  # other processes take some of it; not every kernel says so
                text = Path("/proc/meminfo").read_text("ascii").partition("MemAvailable:")[2]
                room = min(int(text.split()[0]) * 1024, room)
            if room - self._most < _SPARE * total:
                return_freed_memory()
                held = held_memory()
        self._last = held


def held_memory() -> int:
    """Returns the bytes of memory that this process holds, pages of files aside; 0 where Linux does not say."""
    with suppress(OSError):
        _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text("ascii").split())
        return (resident - of_files) * os.sysconf("SC_PAGE_SIZE")
    return 0


@cache
def total_memory(root: Path = Path("/")) -> int:
    """Returns the bytes of the machine's memory, or those that this process may take of it; 0 if nobody says."""
    known = []
    with suppress(ValueError, OSError, AttributeError):  # names that a system does not have
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    groups = dict.fromkeys(_LIMITS, "/")  # a container sees its own group as the root of all
    with suppress(OSError):  # only Linux has it
        for line in (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines():
            _, hierarchy, group = line.split(":", 2)
            groups[hierarchy] = group
    for hierarchy, (folder, name) in _LIMITS.items():
        own = Path(groups[hierarchy])
        for place in (own, *own.parents):  # the limits of groups around it hold too
            with suppress(ValueError, OSError):  # no such file, or "max" in it
                known.append(int((root / folder / place.relative_to("/") / name).read_text("ascii")))
    return min(known, default=0)
