"""Dense layers."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from stilts_jax.model.config import Compute

PRODUCT = "dense"  # what rematerialisation knows the products by

_normal = nnx.initializers.normal(0.02)


def linear(inputs: int, outputs: int, *, compute: Compute, rngs: nnx.Rngs, **initializers: Any) -> nnx.Linear:
    """Returns a dense layer that keeps parameters and computes as ``compute`` says."""
    return nnx.Linear(
        inputs,
        outputs,
        dtype=jnp.dtype(compute.dtype),
        param_dtype=jnp.dtype(compute.param_dtype),
        precision=compute.matmul_precision or None,
        dot_general=_dot_general,
        rngs=rngs,
        **{"kernel_init": _normal, **initializers},
    )


def _dot_general(
    inputs: jax.Array, kernel: jax.Array, dimensions: Any, *, precision: Any = None, **_: Any
) -> jax.Array:
    return checkpoint_name(_multiply(precision, inputs, kernel), PRODUCT)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _multiply(precision: Any, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """``[..., K]`` times ``[K, N]``.

    The gradient is written out because JAX makes the kernel's transposed, and XLA on a CPU then copies both
    operands into another order before it multiplies them: 5 % of a training step.
    """
    return jnp.matmul(inputs, kernel, precision=precision)


def _multiply_forward(precision: Any, inputs: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return _multiply(precision, inputs, kernel), (inputs, kernel)


def _multiply_backward(precision: Any, saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    inputs, kernel = saved
    rows, gradient_rows = (array.reshape(-1, array.shape[-1]) for array in (inputs, gradient))
    return (
        jnp.matmul(gradient, kernel.T, precision=precision),
        jnp.einsum("mk,mn->kn", rows, gradient_rows, precision=precision),
    )


_multiply.defvjp(_multiply_forward, _multiply_backward)


def wide_dtype(leaf: Any) -> jnp.dtype:
    """Returns the dtype in which sums, gradients and moments of ``leaf`` are kept: at least float32."""
    return jnp.promote_types(leaf.dtype, jnp.float32)
