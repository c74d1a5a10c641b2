"""The smallest parts of encoder and heads: dense layers, norms, dropout, and how modules get their parameters.

Bits of dropout depend on the step, the row of the global batch, the site and the place. Every row has a key of its own,
so neither microbatches nor the mesh, the device or the padded length change what is dropped. A key is hashed with the
place by integer operations: this fuses with what stands beside it, needs no communication, and costs a fraction of the
bits of ``jax.random``.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from stilts_jax.model.config import Compute, EncoderConfig

Params = dict[str, Any]
PRODUCT = "dense"  # what rematerialisation knows the products by
_NORMAL = nnx.initializers.normal(0.02)


def platform_of(compute: Compute) -> str:
    """Returns what the program will run on: "cpu", "gpu" or "tpu"."""
    return compute.platform or jax.default_backend()


def product_precision(compute: Compute) -> AbstractContextManager:
    """Sets how exact matrix products are, where the settings say so; else the caller's own choice holds."""
    chosen = compute.matmul_precision
    return jax.default_matmul_precision(chosen) if chosen else nullcontext()


def wide_dtype(leaf: Any) -> jnp.dtype:
    """Returns the dtype in which sums, gradients and moments of ``leaf`` are kept: at least float32."""
    return jnp.promote_types(leaf.dtype, jnp.float32)


def widen(values: jax.Array) -> jax.Array:
    """Returns values in float32, or in what is wider."""
    return values.astype(wide_dtype(values))


def draw(module: Any, *settings: Any, key: jax.Array) -> Params:
    """Returns fresh parameters of ``module(*settings, rngs)``."""
    return nnx.to_pure_dict(nnx.state(module(*settings, nnx.Rngs(key))))


@lru_cache(maxsize=512)
def _define(module: Any, *settings: Any) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: module(*settings, nnx.Rngs(0))))[0]


def bind(params: Any, module: Any, *settings: Any) -> Any:
    """Returns ``module(*settings, rngs)`` with these parameters."""
    return nnx.merge(_define(module, *settings), params)


def table(rows: int, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> nnx.Param:
    """Returns an embedding table, normal(0, 0.02)."""
    return nnx.Param(_NORMAL(rngs.params(), (rows, config.hidden_size), jnp.dtype(compute.param_dtype)))


def linear(inputs: int, outputs: int, *, compute: Compute, rngs: nnx.Rngs, **initializers: Any) -> nnx.Linear:
    """Returns a dense layer that keeps parameters and computes as ``compute`` says."""

    def product(values: jax.Array, kernel: jax.Array, _: Any, *, precision: Any = None, **__: Any) -> Any:
        multiply = _multiply_on_cpu if platform_of(compute) == "cpu" else _multiply
        return checkpoint_name(multiply(precision, values, kernel), PRODUCT)

    options: Any = {"dtype": jnp.dtype(compute.dtype), "param_dtype": jnp.dtype(compute.param_dtype)}
    options |= {"precision": compute.matmul_precision or None, "kernel_init": _NORMAL, **initializers}
    return nnx.Linear(inputs, outputs, dot_general=product, rngs=rngs, **options)


def _multiply(precision: Any, values: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(values, kernel, precision=precision)


# JAX makes the kernel's gradient transposed, and XLA on a CPU then copies both operands into another order before it
# multiplies them, which is 5 % of a training step: there the gradient is written out.
_multiply_on_cpu = jax.custom_vjp(_multiply, nondiff_argnums=(0,))


def _multiply_backward(precision: Any, saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, kernel = saved
    rows, gradient_rows = (array.reshape(-1, array.shape[-1]) for array in (values, gradient))
    of_values = jnp.matmul(gradient, kernel.T, precision=precision)
    return of_values, jnp.einsum("mk,mn->kn", rows, gradient_rows, precision=precision)


_multiply_on_cpu.defvjp(lambda precision, *given: (_multiply(precision, *given), given), _multiply_backward)


class Norm(nnx.LayerNorm):
    """Layer normalisation in float32 or better; gives back the dtype that it got."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        dtype, param_dtype = jnp.promote_types(compute.dtype, jnp.float32), jnp.dtype(compute.param_dtype)
        # E[x^2] - E[x]^2 loses everything where the mean is large, as in XL's residual stream.
        options: Any = {"epsilon": config.layer_norm_eps, "use_fast_variance": False}
        super().__init__(config.hidden_size, dtype=dtype, param_dtype=param_dtype, rngs=rngs, **options)

    def __call__(self, inputs: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        return super().__call__(inputs, mask=mask).astype(inputs.dtype)


def typed_key(key: jax.Array) -> jax.Array:
    """Returns a key of ``jax.random.key``; one of the older ``jax.random.PRNGKey`` becomes such a key."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """Returns keys [rows], one for each row of a batch; keys of rows stay what they are."""
    key = typed_key(key)
    if key.ndim:
        return key
    # The generator that a key names makes no bits here, and some of them depend on the mesh.
    key = jax.random.wrap_key_data(jax.random.key_data(key)[:2], impl="threefry2x32")
    return fold_in(key, jnp.arange(rows))


def fold_in(keys: jax.Array, numbers: jax.Array) -> jax.Array:
    """Returns keys [..., N]: each of ``keys`` [...] folded with each of the ``numbers`` [N]."""
    each = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
    return each(keys.reshape(-1), numbers).reshape(*keys.shape, len(numbers))


def split(keys: jax.Array | None, count: int) -> list[Any]:
    """Returns independent keys for ``count`` sites of each row; None for no dropout gives Nones."""
    folded = None if keys is None else fold_in(keys, jnp.arange(count))
    return [None if folded is None else folded[..., number] for number in range(count)]


def drop(values: jax.Array, rate: float, keys: Any, rows: Any = None, columns: Any = None) -> jax.Array:
    """Zeroes a share ``rate`` of ``values`` [*K, W] or [*K, T, W] and scales up the rest; without keys, nothing.

    Keys are [*K], or one that makes those of the rows. ``rows`` uint32 [T] and ``columns`` uint32 [W] number the
    places, below 2**16; they are counted from 0 where there are none.
    """
    if keys is None or not rate:
        return values
    keys = row_keys(keys, len(values))
    inner = values.shape[keys.ndim :]
    # T and W are below 2**16, so no two places of a row have the same number, however long the rows are.
    place = jax.lax.broadcasted_iota(jnp.uint32, inner, len(inner) - 1) if columns is None else columns
    if len(inner) == 2:
        first = jax.lax.broadcasted_iota(jnp.uint32, inner, 0) if rows is None else rows[: inner[0], None]
        place = place + (first << 16)
    words = jax.random.key_data(keys).reshape(*keys.shape, *(1 for _ in inner), 2)
    # A hash of 32 bits without visible bias (constants of Wellons' search), keyed in its middle.
    bits, middle = place * jnp.uint32(0x9E3779B1) ^ words[..., 0], words[..., 1]
    bits = (bits ^ bits >> 16) * jnp.uint32(0x7FEB352D)
    bits = ((bits ^ bits >> 15) + middle) * jnp.uint32(0x846CA68B)
    bits = bits ^ bits >> 16
    dropped = min(round(rate * 2**32), 2**32 - 1)
    return jnp.where(bits >= jnp.uint32(dropped), values / (1 - dropped / 2**32), jnp.zeros([], values.dtype))
