"""How fast this process's first device multiplies matrices: what expectations are measured against."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_SECONDS = 0.15  # that one timing lasts at least, so that launching it costs nothing


def measure_matmul(side: int, dtype: str, precision: Any = None) -> float:
    """Returns FLOP/s of the product of two square matrices."""
    one = jnp.full((side, side), 1.0 / side, dtype)
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    return 2.0 * side**3 / best_seconds(lambda: multiply(one, one))


def best_seconds(launch: Callable[[], Any]) -> float:
    """Returns the least seconds of a launch, launched so often in a row that they last."""
    jax.block_until_ready(launch())
    repeats, best = 1, float("inf")
    for _ in range(6):
        began = time.perf_counter()
        for _ in range(repeats):
            last = launch()
        jax.block_until_ready(last)
        seconds = (time.perf_counter() - began) / repeats
        best, repeats = min(best, seconds), max(1, round(_SECONDS / seconds))
    return best
