"""Exact nearest neighbours by cosine, in tiles: both directions from one product, memory bounded by the tile.

Rows and columns of each tile of similarities are reduced to their best k on the device and merged into running
results. Among equal similarities the smaller index comes first. Precision ``bfloat16`` makes a first pass with rounded
inputs that keeps more candidates, and scores these again in float32; a neighbour is lost only if rounding pushes more
than the spare candidates before it.
"""

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
    """Scales vectors [N, ..., D] to length one, in float32; a zero vector stays zero."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.sqrt(np.einsum("...d,...d->...", vectors, vectors, dtype=np.float64))
    bad = np.argwhere(~np.isfinite(lengths))
    if len(bad):
        what = f"{len(bad)} of {lengths.size} embeddings are not finite."
        fix = "compute in float32, or look at the encoder: its weights may be damaged"
        raise DataError(what, where=f"the first is number {bad[0][0]}", fix=fix)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)[..., None].astype(np.float32)


def find_neighbours(
    source: np.ndarray,
    target: np.ndarray,
    k: int,
    *,
    both: bool = True,
    precision: Precision = "float32",
    tile: tuple[int, int] | None = None,
    mesh: Mesh | None = None,
    progress: Progress = SILENT,
) -> tuple[Neighbours, ...]:
    """Finds the k nearest targets of each source, all if there are fewer, and if ``both`` those of each target too.

    The vectors are float32 [N, D] of length one (see ``normalise``) and may be memory-mapped. ``tile`` is rows and
    columns, where not those that suit the device; the devices of ``mesh`` share the rows of each tile.
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
        # Zeros behind the last row.
        part = np.asarray(vectors[start : start + count], np.float32)
        return place(np.pad(part, ((0, count - len(part)), (0, 0))), sharding)

    def empty(count: int, sharding: NamedSharding) -> Any:
        parts = np.full((count, wanted), -np.inf, np.float32), np.zeros((count, wanted), np.int32)
        return tuple(place(part, sharding) for part in parts)

    # A set that is empty has a tile too, with nothing in it.
    row_starts, column_starts = range(0, max(len(source), 1), rows), range(0, max(len(target), 1), columns)
    row_states, column_states = [], [empty(columns, whole) for _ in column_starts]
    with progress.track("comparing", total=len(row_starts) * len(column_starts), unit="tiles") as bar:
        for start in row_starts:
            x, state = load(source, start, rows, divided), empty(rows, divided)
            for number, column in enumerate(column_starts):
                y = load(target, column, columns, whole)
                full = start + rows <= len(source) and column + columns <= len(target)
                step = _compile_step(flat, wanted, precision, full, both)
                bounds = np.array([start, len(source), column, len(target)], np.int32)
                state, column_states[number] = step(x, y, state, column_states[number], bounds)
                bar.advance()
            row_states.append(jax.tree.map(np.asarray, replicate(state)))
    found = []
    for own, other, states in ((source, target, row_states), (target, source, column_states))[: 1 + both]:
        values, index = (np.concatenate([np.asarray(one) for one in part]) for part in zip(*states))
        kept = np.s_[: len(own), : min(wanted, len(other))]
        here = Neighbours(values[kept], index[kept].astype(np.int64))
        found.append(_rescore(own, other, here.index, k) if precision == "bfloat16" else here)
    return tuple(found)


def _fit(size: int, count: int, devices: int) -> int:
    """A tile side no longer than needed; powers of two, so that few shapes are compiled."""
    power = 1 << (max(min(size, count), _SMALLEST_TILE) - 1).bit_length()
    needed = min(power, -(-size // _BLOCK) * _BLOCK)
    return -(-needed // (_BLOCK * devices)) * _BLOCK * devices


@cache
def _compile_step(mesh: Mesh, k: int, precision: Precision, full: bool, both: bool) -> Any:
    """The function that merges one tile into the best of its rows and columns so far.

    It takes ``x`` [R, D], whose rows the devices share, ``y`` [C, D], the best values and indices of rows and of
    columns, [R, k] and [C, k], and as ``bounds`` the first row, the number of sources, the first column, the number of
    targets; a ``full`` tile has nothing behind them, which spares a pass. The best of columns stay as they are unless
    ``both`` are wanted.
    """

    def take(x: jax.Array, y: jax.Array, row_state: Any, column_state: Any, bounds: jax.Array) -> Any:
        row_start = bounds[0] + jax.lax.axis_index(_AXIS) * x.shape[0]
        if precision == "bfloat16":
            x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
        exact: Any = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
        similar = jax.lax.dot_general(x, y, (((1,), (1,)), ((), ())), **exact)
        if not full:
            in_rows = row_start + jnp.arange(x.shape[0]) < bounds[1]
            in_columns = bounds[2] + jnp.arange(y.shape[0]) < bounds[3]
            similar = jnp.where(in_rows[:, None] & in_columns[None, :], similar, -jnp.inf)
        values, index = _find_best(similar, k, axis=1)
        row_state = _merge(row_state, values, index + bounds[2], k)
        if not both:
            return row_state, column_state
        values, index = _find_best(similar, k, axis=0)
        gather: Any = partial(jax.lax.all_gather, axis_name=_AXIS, axis=1, tiled=True)
        # [C, devices * k'], in the order of the rows
        values, index = map(gather, (values, index + row_start))
        return row_state, _merge(column_state, values, index, k)

    specs: Any = {"in_specs": (P(_AXIS), P(), P(_AXIS), P(), P()), "out_specs": (P(_AXIS), P())}
    # Every device merges the same gathered columns.
    return jax.jit(jax.shard_map(take, mesh=mesh, check_vma=False, **specs))


def _merge(state: Any, values: jax.Array, index: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The best k of what was found and what comes; the former has smaller indices, and top_k keeps order."""
    values, index = (jnp.concatenate(pair, axis=1) for pair in zip(state, (values, index)))
    values, place = jax.lax.top_k(values, k)
    return values, jnp.take_along_axis(index, place, axis=1)


def _top(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """top_k, for which alone -0.0 would be less than 0.0."""
    return jax.lax.top_k(jnp.where(values == 0, 0.0, values), k)


def _find_best(similar: jax.Array, k: int, axis: int) -> tuple[jax.Array, jax.Array]:
    """The best k of each row of [R, C] and their columns (axis 1), or of each column and their rows: [N, k] each.

    Only the k blocks with the largest maxima are looked at: an entry outside them has k entries before it,
    one in each, also by the rule for ties. That leaves little more work than reading the tile once.
    """
    count = similar.shape[axis]
    if count // _BLOCK <= 2 * k:
        return _top(jnp.moveaxis(similar, axis, 1), min(k, count))
    blocked = similar.reshape(*similar.shape[:axis], -1, _BLOCK, *similar.shape[axis + 1 :])
    chosen = jnp.sort(_top(jnp.moveaxis(blocked.max(axis + 1), axis, 1), k)[1], axis=1)
    blocks = jnp.expand_dims(jnp.moveaxis(chosen, 1, axis), axis + 1)
    entries = jnp.moveaxis(jnp.take_along_axis(blocked, blocks, axis), (axis, axis + 1), (1, 2))
    values, place = _top(entries.reshape(len(chosen), -1), k)
    return values, jnp.take_along_axis(chosen, place // _BLOCK, axis=1) * _BLOCK + place % _BLOCK


def _rescore(source: np.ndarray, target: np.ndarray, index: np.ndarray, k: int) -> Neighbours:
    """Scores candidates again in float32 and keeps the best k."""
    values = np.empty(index.shape, np.float32)
    # 64 MiB of gathered vectors
    step = max(1, (1 << 24) // (max(index.shape[1], 1) * max(source.shape[1], 1)))
    for start in range(0, len(source), step):
        rows = slice(start, start + step)
        theirs = target[index[rows].reshape(-1)].reshape(*index[rows].shape, -1)
        values[rows] = np.einsum("nd,nkd->nk", np.asarray(source[rows], np.float32), theirs)
    order = np.lexsort((index, -values), axis=1)[:, :k]
    return Neighbours(*(np.take_along_axis(array, order, axis=1) for array in (values, index)))
