"""Dropout whose bits depend on where they are used: on the step, the row of the global batch, the site and the place.

Every row has a key of its own, so that neither microbatches nor the mesh, the device or the length that rows are padded
to change what is dropped. A key is hashed with the place by integer operations: this fuses with what stands beside it,
needs no communication, and costs a fraction of the bits of ``jax.random``.
"""

import jax
import jax.numpy as jnp


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """Returns keys [rows], one for each row of a batch; keys of rows stay what they are."""
    if key.ndim:
        return key
    # The generator that a key names makes no bits here, and some of them depend on the mesh.
    key = jax.random.wrap_key_data(jax.random.key_data(key)[:2], impl="threefry2x32")
    return fold_in(key, jnp.arange(rows))


def fold_in(keys: jax.Array, numbers: jax.Array) -> jax.Array:
    """Returns keys [..., N]: each of ``keys`` [...] folded with each of the ``numbers`` [N]."""
    flat = jax.vmap(lambda key: jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers))(
        keys.reshape(-1)
    )
    return flat.reshape(*keys.shape, len(numbers))


def split(keys: jax.Array | None, count: int) -> list[jax.Array] | list[None]:
    """Returns independent keys for ``count`` sites of each row; None for no dropout gives Nones."""
    if keys is None:
        return [None] * count
    folded = fold_in(keys, jnp.arange(count))
    return [folded[..., number] for number in range(count)]


def drop(values: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Zeroes a share ``rate`` of ``values`` and scales up the rest; without keys, nothing.

    Args:
        values: [*K, W] or [*K, T, W]
        keys: [*K]; one key makes those of the rows.
    """
    if keys is None or not rate:
        return values
    keys = row_keys(keys, len(values))
    inner = values.shape[keys.ndim :]
    # T and W are below 2**16, so no two places of a row have the same number, however long the rows are.
    place = jax.lax.broadcasted_iota(jnp.uint32, inner, len(inner) - 1)
    for axis in range(len(inner) - 1):
        place += jax.lax.broadcasted_iota(jnp.uint32, inner, axis) << 16
    words = jax.random.key_data(keys).reshape(*keys.shape, *(1 for _ in inner), 2)
    bits = _mix(place * jnp.uint32(0x9E3779B1) ^ words[..., 0], words[..., 1])
    dropped = min(round(rate * 2**32), 2**32 - 1)
    return jnp.where(bits >= jnp.uint32(dropped), values / (1 - dropped / 2**32), jnp.zeros([], values.dtype))


def _mix(bits: jax.Array, key: jax.Array) -> jax.Array:
    """A hash of 32 bits without visible bias (constants of Wellons' search), keyed in its middle."""
    bits = (bits ^ bits >> 16) * jnp.uint32(0x7FEB352D)
    bits = ((bits ^ bits >> 15) + key) * jnp.uint32(0x846CA68B)
    return bits ^ bits >> 16
