"""Exact nearest neighbours by cosine, in tiles: both directions from one product, memory bounded by the tile.

Rows and columns of each tile of similarities are reduced to their best k on the device and merged into running
results: nothing of the size of the product is ever kept. Among equal similarities the smaller index comes first.

Precision: ``float32`` multiplies in full float32 on every device. ``bfloat16`` makes a first pass with rounded inputs
that keeps more candidates, and scores these again in float32; a neighbour is lost only if rounding pushes more than the
spare candidates before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stilts_jax.errors import DataError
from stilts_jax.evaluation.predict import one_device
from stilts_jax.progress import SILENT, Progress

Precision = Literal["float32", "bfloat16"]

_BLOCK = 32  # entries that are compared by their maximum before any of them is looked at
_SPARE = 16  # candidates that the bfloat16 pass keeps beyond twice k
_CPU_TILE = (2048, 4096)  # 32 MiB of similarities
_DEVICE_TILE = (16384, 8192)  # 512 MiB; many rows, so that loading columns costs less than multiplying them
_SMALLEST_TILE = 128
_AXIS = "rows"


@dataclass(frozen=True)
class Neighbours:
    """The k nearest vectors of each, nearest first (all where there are fewer)."""

    values: np.ndarray  # their cosines, float32 [N, k]
    index: np.ndarray  # int64 [N, k]


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Scales vectors [N, D] to length one, in float32; a zero vector stays zero."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(lengths))
    if len(bad):
        what = f"{len(bad)} of {len(vectors)} embeddings are not finite."
        fix = "compute in float32, or look at the encoder: its weights may be damaged"
        raise DataError(what, where=f"the first is number {bad[0]}", fix=fix)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None].astype(np.float32)


def find_neighbours(
    source: np.ndarray,
    target: np.ndarray,
    k: int,
    *,
    precision: Precision = "float32",
    tile: tuple[int, int] | None = None,
    mesh: Mesh | None = None,
    progress: Progress = SILENT,
) -> tuple[Neighbours, Neighbours]:
    """Finds the k nearest targets of each source, and the k nearest sources of each target; all if there are fewer.

    Both are float32 [N, D] of length one (see ``normalise``) and may be memory-mapped. ``tile`` is rows and columns,
    where not those that suit the device; the devices of ``mesh`` share the rows of each tile.
    """
    wanted = 2 * k + _SPARE if precision == "bfloat16" else k
    devices = (mesh or one_device()).devices.reshape(-1)
    rows, columns = tile or (_CPU_TILE if devices[0].platform == "cpu" else _DEVICE_TILE)
    rows, columns = _fit(rows, len(source), len(devices)), _fit(columns, len(target), 1)
    flat = Mesh(devices, (_AXIS,), axis_types=(AxisType.Auto,))
    whole, divided = NamedSharding(flat, P()), NamedSharding(flat, P(_AXIS))
    replicate = jax.jit(lambda state: state, out_shardings=whole)

    def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda where: array[where])

    def load(vectors: np.ndarray, start: int, count: int, sharding: NamedSharding) -> jax.Array:
        """Some rows, zeros behind the last, on the devices."""
        part = np.asarray(vectors[start : start + count], np.float32)
        return place(np.pad(part, ((0, count - len(part)), (0, 0))), sharding)

    def empty(count: int, sharding: NamedSharding) -> Any:
        values, index = np.full((count, wanted), -np.inf, np.float32), np.zeros((count, wanted), np.int32)
        return place(values, sharding), place(index, sharding)

    # A set that is empty has a tile too, with nothing in it.
    row_starts, column_starts = range(0, max(len(source), 1), rows), range(0, max(len(target), 1), columns)
    row_states, column_states = [], [empty(columns, whole) for _ in column_starts]
    with progress.track("comparing", total=len(row_starts) * len(column_starts), unit="tiles") as bar:
        for start in row_starts:
            x, state = load(source, start, rows, divided), empty(rows, divided)
            for number, column in enumerate(column_starts):
                y = load(target, column, columns, whole)
                full = start + rows <= len(source) and column + columns <= len(target)
                step = _compile_step(flat, wanted, precision, full)
                bounds = np.array([start, len(source), column, len(target)], np.int32)
                state, column_states[number] = step(x, y, state, column_states[number], bounds)
                bar.advance()
            row_states.append(jax.tree.map(np.asarray, replicate(state)))
    forward = _collect(row_states, len(source), min(wanted, len(target)))
    backward = _collect(column_states, len(target), min(wanted, len(source)))
    if precision == "bfloat16":
        return _rescore(source, target, forward, k), _rescore(target, source, backward, k)
    return forward, backward


def _fit(size: int, count: int, devices: int) -> int:
    """A tile side no longer than needed; powers of two, so that few shapes are compiled."""
    needed = _SMALLEST_TILE
    while needed < min(size, count):
        needed *= 2
    needed = min(needed, -(-size // _BLOCK) * _BLOCK)
    return -(-needed // (_BLOCK * devices)) * _BLOCK * devices


def _collect(states: Sequence[tuple[Any, Any]], count: int, k: int) -> Neighbours:
    values, index = (np.concatenate([np.asarray(one) for one in part])[:count, :k] for part in zip(*states))
    return Neighbours(values, index.astype(np.int64))


@cache
def _compile_step(mesh: Mesh, k: int, precision: Precision, full: bool) -> Any:
    """The function that takes one tile: rows over the devices, columns on each of them."""
    specs: Any = {"in_specs": (P(_AXIS), P(), P(_AXIS), P(), P()), "out_specs": (P(_AXIS), P())}
    # Every device merges the same gathered columns.
    take = jax.shard_map(partial(_take_tile, k, precision, full), mesh=mesh, check_vma=False, **specs)
    return jax.jit(take)


def _take_tile(
    k: int,
    precision: Precision,
    full: bool,
    x: jax.Array,
    y: jax.Array,
    row_state: Any,
    column_state: Any,
    bounds: jax.Array,
) -> tuple[Any, Any]:
    """Merges one tile, ``x`` [R, D] (this device's rows) by ``y`` [C, D], into the best of its rows and columns.

    States are the best values and indices so far, [R, k] and [C, k]. ``bounds`` are the first row, the number of
    sources, the first column, the number of targets; a ``full`` tile has nothing behind them, which spares a pass.
    """
    row_start = bounds[0] + jax.lax.axis_index(_AXIS) * x.shape[0]
    if precision == "bfloat16":
        x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    exact: Any = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
    similar = jax.lax.dot_general(x, y, (((1,), (1,)), ((), ())), **exact)
    if not full:
        in_rows = row_start + jnp.arange(x.shape[0]) < bounds[1]
        in_columns = bounds[2] + jnp.arange(y.shape[0]) < bounds[3]
        similar = jnp.where(in_rows[:, None] & in_columns[None, :], similar, -jnp.inf)
    values, index = _best_of_rows(similar, k)
    row_state = _merge(row_state, values, index + bounds[2], k)
    values, index = _best_of_columns(similar, k)
    # [C, devices * k'], in the order of the rows
    values, index = (
        jax.lax.all_gather(part, _AXIS, axis=1, tiled=True) for part in (values, index + row_start)
    )
    return row_state, _merge(column_state, values, index, k)


def _merge(state: Any, values: jax.Array, index: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The best k of what was found and what comes; the former has smaller indices, and top_k keeps order."""
    values, index = (jnp.concatenate(pair, axis=1) for pair in zip(state, (values, index)))
    values, place = jax.lax.top_k(values, k)
    return values, jnp.take_along_axis(index, place, axis=1)


def _top(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """top_k, for which alone -0.0 would be less than 0.0."""
    return jax.lax.top_k(jnp.where(values == 0, 0.0, values), k)


def _best_of_rows(similar: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The best k of each row of [R, C] and their columns.

    Only the k blocks with the largest maxima are looked at: an entry outside them has k entries before it,
    one in each, also by the rule for ties. That leaves little more work than reading the tile once.
    """
    rows, columns = similar.shape
    blocks = columns // _BLOCK
    if blocks <= 2 * k:
        return _top(similar, min(k, columns))
    blocked = similar.reshape(rows, blocks, _BLOCK)
    chosen = jnp.sort(_top(blocked.max(axis=2), k)[1], axis=1)
    entries = jnp.take_along_axis(blocked, chosen[:, :, None], axis=1).reshape(rows, -1)
    return _best_of_chosen(entries, chosen, k)


def _best_of_columns(similar: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The best k of each column of [R, C] and their rows: [C, k] each."""
    rows, columns = similar.shape
    blocks = rows // _BLOCK
    if blocks <= 2 * k:
        return _top(similar.T, min(k, rows))
    blocked = similar.reshape(blocks, _BLOCK, columns)
    chosen = jnp.sort(_top(blocked.max(axis=1).T, k)[1], axis=1)
    entries = jnp.take_along_axis(blocked, chosen.T[:, None, :], axis=0)  # [k, block, C]
    return _best_of_chosen(jnp.moveaxis(entries, 2, 0).reshape(columns, -1), chosen, k)


def _best_of_chosen(entries: jax.Array, chosen: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    values, place = _top(entries, k)
    return values, jnp.take_along_axis(chosen, place // _BLOCK, axis=1) * _BLOCK + place % _BLOCK


def _rescore(source: np.ndarray, target: np.ndarray, found: Neighbours, k: int) -> Neighbours:
    """Scores candidates again in float32 and keeps the best k."""
    values = np.empty(found.index.shape, np.float32)
    width = max(found.index.shape[1], 1)
    step = max(1, (1 << 24) // (width * max(source.shape[1], 1)))  # 64 MiB of gathered vectors
    for start in range(0, len(source), step):
        index = found.index[start : start + step]
        part = np.asarray(source[start : start + step], np.float32)
        theirs = target[index.reshape(-1)].reshape(*index.shape, -1)
        values[start : start + step] = np.einsum("nd,nkd->nk", part, theirs)
    order = np.lexsort((found.index, -values), axis=1)[:, :k]
    return Neighbours(*(np.take_along_axis(array, order, axis=1) for array in (values, found.index)))
