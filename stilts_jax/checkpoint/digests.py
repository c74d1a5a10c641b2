"""A short number for the content of every array, the same however the array lies on devices.

Orbax restores a flipped byte without a word. A digest that is computed before saving and again after
restoring finds it: bits as unsigned integers, each times an odd number that depends on its place, summed up
with wrap-around. An odd factor is invertible, so a change of one element always shows; a swap of two shows
as their factors differ; and a sum without rounding does not depend on the order in which devices take part.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from stilts_jax.errors import CheckpointError
from stilts_jax.sharding import parameter_paths


def digest_leaves(tree: Any) -> dict[str, int]:
    """Returns the digest of every leaf by its path, such as ``encoder/layers/ffn/up/kernel``."""
    leaves = parameter_paths(tree)
    if not leaves:
        return {}
    # Computed where the arrays are; each is waited for, as several programs that sum over devices of a CPU at one time
    # can wait for each other for ever.
    numbers = [jax.device_get(_digest(leaf)) for _, leaf in leaves]
    return {path: int(number) for (path, _), number in zip(leaves, numbers)}


# Compiled by shape, which parameters, moments and other models share, and not for a whole tree at a time.
@jax.jit
def _digest(array: jax.Array) -> jax.Array:
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    width = min(array.dtype.itemsize, 4)
    # 8-byte elements become two words along a new last axis.
    words = jax.lax.bitcast_convert_type(array, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width])
    words = words.astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, _ in enumerate(words.shape):
        stride = math.prod(words.shape[axis + 1 :]) % 2**32
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride)
    factor = place * jnp.uint32(0x9E3779B1)
    factor = (factor ^ (factor >> 15)) * jnp.uint32(0x85EBCA77)
    return jnp.sum(words * (factor | 1), dtype=jnp.uint32)


def describe_leaves(tree: Any) -> dict[str, list]:
    """Returns shape, dtype and digest of every leaf by its path."""
    digests = digest_leaves(tree)
    return {path: [list(leaf.shape), str(leaf.dtype), digests[path]] for path, leaf in parameter_paths(tree)}


def compare_leaves(where: str, wanted: Any, saved: Mapping[str, list], *, exact: bool) -> None:
    """Raises unless the checkpoint has what is wanted; with ``exact`` nothing else, and in that dtype."""
    leaves = dict(parameter_paths(wanted))
    problems = [f"{path}: not in the checkpoint" for path in leaves if path not in saved]
    for path, (shape, dtype, _) in saved.items():
        if path not in leaves:
            if exact:
                problems.append(f"{path}: only in the checkpoint")
        elif tuple(shape) != tuple(leaves[path].shape):
            problems.append(f"{path}: shape {tuple(shape)} saved, {tuple(leaves[path].shape)} wanted")
        elif exact and dtype != str(leaves[path].dtype):
            problems.append(f"{path}: {dtype} saved, {leaves[path].dtype} wanted")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"The checkpoint is of another model or optimizer: {'; '.join(problems[:5])}{more}.",
            where=where,
            fix="use the settings that it was saved with, or a new run directory",
        )
