"""Sets JAX up for an experiment: hosts, precision, checks, and the cache of compiled programs."""

from pathlib import Path

import jax

from stilts_jax.distributed import initialize
from stilts_jax.files import cache_root
from stilts_jax.settings import Compute


def start_runtime(compute: Compute) -> None:
    """Joins the other hosts, if there are any, and applies the settings that JAX keeps globally."""
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
