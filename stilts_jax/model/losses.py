"""Cross-entropy over a vocabulary of 250,002 without the logits of all of it at once."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stilts_jax.model.dense import wide_dtype
from stilts_jax.sharding import constrain, constrain_batch

Array = jax.Array


def chunked_cross_entropy(
    features: Array, table: Array, bias: Array, targets: Array, chunk: int = 16384
) -> Array:
    """Returns the cross-entropy of ``softmax(features @ table.T + bias)`` at ``targets``.

    The vocabulary is walked in chunks, forwards for the normaliser and backwards for the gradients, so that
    only ``[..., chunk]`` of the logits exist at a time. Products are in the dtype of ``features``, sums in
    float32 or better.

    Args:
        features: [..., D]
        table: [V, D], the word embeddings
        bias: [V]
        targets: int32 [...], rows of ``table``
        chunk: rows of the vocabulary at a time

    Returns:
        [...]
    """
    table, bias = jnp.asarray(table), jnp.asarray(bias)
    return _cross_entropy(features, table, bias, targets, min(chunk, table.shape[0]))


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _cross_entropy(features: Array, table: Array, bias: Array, targets: Array, chunk: int) -> Array:
    return _forward(features, table, bias, targets, chunk)[0]


def _forward(features: Array, table: Array, bias: Array, targets: Array, chunk: int) -> tuple[Array, Any]:
    exact = wide_dtype(features)

    def step(carry: tuple[Array, Array, Array], number: Array) -> tuple[tuple[Array, Array, Array], None]:
        highest, total, chosen = carry
        logits, _, _, ids = _chunk_logits(features, table, bias, chunk, number)
        top = jnp.maximum(highest, logits.max(-1))
        total = total * jnp.exp(highest - top) + jnp.exp(logits - top[..., None]).sum(-1)
        # A target is in exactly one chunk: where the last one overlaps, `ids` are -1.
        hit = ids == targets[..., None]
        chosen = chosen + jnp.where(hit, logits, 0).sum(-1)
        return (top, total, chosen), None

    shape = features.shape[:-1]
    start = (jnp.full(shape, jnp.finfo(exact).min, exact), jnp.zeros(shape, exact), jnp.zeros(shape, exact))
    (highest, total, chosen), _ = jax.lax.scan(step, start, _numbers(table, chunk))
    normaliser = highest + jnp.log(total)
    return normaliser - chosen, (features, table, bias, targets, normaliser)


def _backward(chunk: int, saved: Any, gradient: Array) -> tuple[Array, Array, Array, Any]:
    features, table, bias, targets, normaliser = saved
    exact = wide_dtype(features)

    def step(carry: tuple[Array, Array, Array], number: Array) -> tuple[tuple[Array, Array, Array], None]:
        of_features, of_table, of_bias = carry
        logits, rows, start, ids = _chunk_logits(features, table, bias, chunk, number)
        inner = jnp.exp(logits - normaliser[..., None]) - (ids == targets[..., None])
        inner = inner * gradient[..., None].astype(exact)
        product = inner.astype(features.dtype)
        of_features = of_features + jnp.einsum("...v,vd->...d", product, rows, preferred_element_type=exact)
        part = jnp.einsum("nv,nd->vd", _flat(product), _flat(features), preferred_element_type=exact)
        # Rows that an earlier chunk has had are logits of the least number here: their gradient is zero.
        of_table = _add_rows(of_table, part, start)
        of_bias = _add_rows(of_bias, _flat(inner).sum(0), start)
        return (of_features, of_table, of_bias), None

    start = (
        constrain_batch(jnp.zeros(features.shape, exact)),
        constrain(jnp.zeros(table.shape, exact), None, ("fsdp", "tensor")),
        jnp.zeros(bias.shape, exact),
    )
    (of_features, of_table, of_bias), _ = jax.lax.scan(step, start, _numbers(table, chunk))
    nothing = np.zeros(targets.shape, jax.dtypes.float0)  # the tangent of an integer
    return (
        of_features.astype(features.dtype),
        of_table.astype(table.dtype),
        of_bias.astype(bias.dtype),
        nothing,
    )


_cross_entropy.defvjp(_forward, _backward)


def _numbers(table: Array, chunk: int) -> Array:
    return jnp.arange(-(-table.shape[0] // chunk))


def _chunk_logits(
    features: Array, table: Array, bias: Array, chunk: int, number: Array
) -> tuple[Array, Array, Array, Array]:
    """Logits of one chunk, its rows, where it starts, and the row numbers (-1: another chunk's)."""
    # The last chunk starts early enough to be whole; padding the table would copy it.
    start = jnp.minimum(number * chunk, table.shape[0] - chunk)
    rows = jax.lax.dynamic_slice_in_dim(table, start, chunk).astype(features.dtype)
    rows = constrain(rows, None, None)
    offset = jax.lax.dynamic_slice_in_dim(bias, start, chunk).astype(wide_dtype(features))
    logits = jnp.einsum("...d,vd->...v", features, rows, preferred_element_type=wide_dtype(features)) + offset
    ids = start + jnp.arange(chunk)
    own = ids >= number * chunk
    return jnp.where(own, logits, jnp.finfo(logits.dtype).min), rows, start, jnp.where(own, ids, -1)


def _flat(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _add_rows(total: Array, part: Array, start: Array) -> Array:
    old = jax.lax.dynamic_slice_in_dim(total, start, part.shape[0])
    return jax.lax.dynamic_update_slice_in_dim(total, old + part, start, 0)
