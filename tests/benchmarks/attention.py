"""Whether this device's attention backends compute what the reference does, and how fast each is."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stilts_jax.model import Compute, EncoderConfig
from stilts_jax.model.layers import attention

_REPEATS = 10
_FAST = {"gpu": ("cudnn",), "tpu": ("splash",)}


def check_attention(
    encoder: EncoderConfig, compute: Compute, lengths: np.ndarray, rows: int
) -> list[dict[str, Any]]:
    """Compares output and gradients of every backend with a float32 reference, on padded rows.

    Args:
        lengths: of rows, to draw the padding from.
        rows: of the batch.

    Returns:
        By backend: ``difference`` of output and gradients (the greatest norm of a difference, over the norm of the
        reference), and ``milliseconds`` of forward and backward pass.
    """
    sizes = np.sort(lengths)[-rows:]
    length = -(-int(sizes.max()) // 128) * 128  # what every kernel takes
    shape = (rows, length, encoder.num_heads, encoder.head_dim)
    keys = jax.random.split(jax.random.key(0), 4)
    mask = jnp.asarray(np.arange(length) < sizes[:, None])
    query, key, value, weight = (jax.random.normal(one, shape, jnp.float32) for one in keys)
    weight = jnp.where(mask[:, :, None, None], weight, 0)  # what lies behind a row's end means nothing

    def run(backend: str, dtype: str, precision: str) -> tuple[list[jax.Array], float]:
        @jax.jit
        def work(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, ...]:
            def weigh(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
                with jax.default_matmul_precision(precision or None):
                    found = attention(query, key, value, mask, backend=backend)
                found = jnp.where(mask[:, :, None, None], found, 0).astype(jnp.float32)
                return (found * weight).sum(), found

            gradients, found = jax.grad(weigh, (0, 1, 2), has_aux=True)(query, key, value)
            return found, *gradients

        inputs = [array.astype(dtype) for array in (query, key, value)]
        found = jax.block_until_ready(work(*inputs))
        times = []
        for _ in range(_REPEATS):
            began = time.perf_counter()
            jax.block_until_ready(work(*inputs))
            times.append(time.perf_counter() - began)
        return [array.astype(jnp.float32) for array in found], 1e3 * float(np.median(times))

    reference, _ = run("xla", "float32", "highest")
    results = []
    for backend in ("xla", *_FAST.get(jax.default_backend(), ())):
        found, milliseconds = run(backend, compute.dtype, compute.matmul_precision)
        differences = [
            float(jnp.linalg.norm(one - other) / jnp.linalg.norm(other))
            for one, other in zip(found, reference)
        ]
        results.append(
            {
                "backend": backend,
                "dtype": compute.dtype,
                "rows": rows,
                "length": length,
                "difference": dict(zip(("output", "query", "key", "value"), differences)),
                "milliseconds": milliseconds,
            }
        )
    return results
