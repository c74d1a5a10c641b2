"""Sets JAX up for an experiment: hosts, precision, checks, and the cache of compiled programs."""

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

import jax

from stilts_jax.distributed import initialize
from stilts_jax.experiment.settings import ComputeSettings
from stilts_jax.files import cache_root


def start_runtime(compute: ComputeSettings) -> None:
    """Joins the other hosts, if there are any, and applies the settings that JAX keeps globally."""
    if _only_cpu():
        _keep_memory()
    initialize()
    if compute.matmul_precision:
        jax.config.update("jax_default_matmul_precision", compute.matmul_precision)
    jax.config.update("jax_debug_nans", compute.check_nans)
    if not jax.config.values["jax_compilation_cache_dir"]:  # JAX_COMPILATION_CACHE_DIR names another one
        jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    # Small programs are worth keeping too: a demo compiles dozens that take half a second each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def compilation_cache() -> Path:
    """Returns the folder of compiled programs."""
    return cache_root() / "compiled"


def _only_cpu() -> bool:
    """Says whether JAX will find no accelerator; asking JAX would start its threads."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms == "cpu"
    return not any(importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins"))


def _keep_memory() -> None:
    """Makes glibc keep what is freed.

    XLA on a CPU asks for the working memory of a program whenever it runs. Blocks of that size glibc takes from the
    system and gives back each time, and most of a gigabyte of fresh, zeroed pages is a tenth of a small step.
    Blocks that large come from the heap only if there is one heap for all threads.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # names of malloc.h
    mallopt(trim_threshold, -1)
    mallopt(mmap_max, 0)
    mallopt(arena_max, 1)
