"""How arrays lie on devices: the mesh, the rules for parameters and what follows from them.

Of the three axes of our meshes ``data`` repeats the parameters, ``fsdp`` cuts parameters and batch alike, ``tensor``
cuts the layers' inner dimension (heads, feed-forward) and leaves the batch whole. Nothing here needs these axes: on a
mesh of other names the rules are the user's own. Constraints look at the mesh of ``with jax.set_mesh(mesh)``; without
one, or where it lacks our axes, they ask for nothing.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stilts_jax.errors import ConfigError, StiltsError
from stilts_jax.settings import MeshConfig

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
Rule = tuple[str, P]
_path_of = partial(jax.tree_util.keystr, simple=True, separator="/")

# (what a path ends with, how the array is cut), for both families and all heads; the first match counts.
# Arrays of layers have the layer axis in front. Matrices are cut over both axes, so that state shrinks with
# fsdp x tensor; of the biases only those of dimensions that `tensor` cuts.
RULES: tuple[Rule, ...] = (
    # Over columns: every device can look up its own columns of all rows (gather_rows), whatever V is. `tensor` first:
    # so the parts of `fsdp` are neighbours, which can be exchanged for rows.
    (r"embeddings/word", P(None, ("tensor", "fsdp"))),
    (r"(embeddings|visual)/(position|type)", P()),
    (r"layers/(attention/(query|key|value)|ffn/up)/kernel", P(None, "fsdp", "tensor")),
    (r"layers/(attention/(query|key|value)|ffn/up)/bias", P(None, "tensor")),
    (r"layers/(attention/output|ffn/down)/kernel", P(None, "tensor", "fsdp")),
    (r"layers/(attention/output|ffn/down)/bias", P()),
    (r"(norm|final_norm)/(scale|bias)", P()),
    (r"(pooler|dense|visual/project)/kernel", P("fsdp", "tensor")),
    (r"(pooler|dense|visual/project)/bias", P()),
    (r"out/(kernel|bias)", P()),  # a few labels wide
    (r"(heads/[^/]+|head)/bias", P()),  # one number a vocabulary row
    (r"logit_scale", P()),
)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Arranges devices (all, if not given) as ``data`` x ``fsdp`` x ``tensor``.

        >>> import stilts_jax as sj
        >>> mesh = sj.make_mesh(sj.MeshConfig(data=-1, fsdp=1, tensor=1))
        >>> mesh.axis_names
        ('data', 'fsdp', 'tensor')

    Several slices (TPU pods joined by a data-centre network) lie along ``data``: its traffic is the smallest.
    """

    def slice_of(device: Any) -> int:  # a host of GPUs counts as one too, and may be cut across
        return (getattr(device, "slice_index", 0) or 0) if device.platform == "tpu" else 0

    found = sorted(jax.devices() if devices is None else devices, key=slice_of)
    shape, slices = mesh_shape(config, len(found)), len(set(map(slice_of, found)))
    if shape[0] % slices:
        what = f"The {slices} slices do not divide the data axis of {shape[0]}."
        fix = f"make mesh.data a multiple of {slices}: fsdp and tensor stay inside a slice"
        raise ConfigError(what, where="mesh.data", fix=fix)
    inner, make = (shape[0] // slices, *shape[1:]), mesh_utils.create_device_mesh
    if slices > 1:
        make = partial(mesh_utils.create_hybrid_device_mesh, dcn_mesh_shape=(slices, 1, 1))
    try:
        # Neighbours on the mesh become neighbours on the chips' network, where the shape allows it.
        grid = make(inner, devices=found, allow_split_physical_axes=True)
    except (ValueError, NotImplementedError, AssertionError):
        grid = np.array(found, dtype=object).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_shape(config: MeshConfig, count: int) -> tuple[int, int, int]:
    """Returns the sizes of the axes over ``count`` devices."""
    sizes = [config.data, config.fsdp, config.tensor]
    if -1 in sizes:
        sizes[sizes.index(-1)] = count // -math.prod(sizes)
    if math.prod(sizes) != count:
        what = f"data={config.data} fsdp={config.fsdp} tensor={config.tensor} does not fit {count} device(s)."
        fix = "the product of the three must be the number of devices; one of them may be -1"
        raise ConfigError(what, where="mesh", fix=fix)
    return sizes[0], sizes[1], sizes[2]


def map_with_path(change: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Applies ``change(path, leaf, *leaves of rest)``, with paths such as ``encoder/layers/ffn/up/kernel``."""
    return jax.tree.map_with_path(lambda keys, *leaves: change(_path_of(keys), *leaves), tree, *rest)


def parameter_paths(tree: Any) -> list[tuple[str, Any]]:
    """Returns every leaf with its path."""
    return [(_path_of(keys), leaf) for keys, leaf in jax.tree.leaves_with_path(tree)]


def find_rule(path: str, shape: Sequence[int], rules: Sequence[Rule] = RULES) -> Rule:
    """Returns the first rule that decides about ``path``; an error names a path that has none."""
    for pattern, spec in rules:
        if re.search(rf"(^|/)({pattern})$", path):
            if len(spec) <= len(shape):
                return pattern, spec
            what = f"Rule {pattern!r} cuts {len(spec)} dimensions, the parameter has shape {tuple(shape)}."
            raise StiltsError(what, where=path, fix="put a rule for this path before it")
    fix = "add one: rules=[*stilts_jax.RULES, (pattern of the path's end, PartitionSpec)]"
    raise StiltsError("No sharding rule says where this parameter goes.", where=path, fix=fix)


def shardings(tree: Any, mesh: Mesh, rules: Sequence[Rule] = RULES) -> Any:
    """Returns the sharding of every leaf of a tree of parameters (or of shapes), or of a part of one.

    The first of the rules ``(pattern, PartitionSpec)`` whose pattern matches the end of a leaf's path counts. Axes that
    the mesh lacks, and those that do not divide a dimension, are left out.

        >>> import jax, stilts_jax as sj
        >>> from jax.sharding import PartitionSpec
        >>> mesh = jax.make_mesh((1,), ("mine",))
        >>> rules = [("adapter/kernel", PartitionSpec("mine")), *sj.RULES]
        >>> sj.shardings({"adapter": {"kernel": jax.numpy.zeros((4, 4))}}, mesh, rules)["adapter"]["kernel"].spec
        P('mine',)
    """

    def choose(path: str, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, fit(find_rule(path, leaf.shape, rules)[1], leaf.shape, mesh.shape))

    return map_with_path(choose, tree)


def sharding_notes(tree: Any, mesh: Mesh) -> list[str]:
    """Says which parameters stay whole along an axis because their size does not divide by it."""
    notes = []
    for path, leaf in parameter_paths(tree):
        wanted = find_rule(path, leaf.shape)[1]
        if (spec := fit(wanted, leaf.shape, mesh.shape)) != wanted:
            notes.append(f"{path} {tuple(leaf.shape)}: {spec} instead of {wanted}, which does not divide it")
    return notes


def state_shardings(state: Any, mesh: Mesh, rules: Sequence[Rule] = RULES, *, zero1: bool = False) -> Any:
    """Returns the sharding of every leaf of a ``TrainState``, or of its shapes.

    Optimizer state lies where its parameter lies: optax puts keys of its own before a parameter's path and so leaves
    its end. What has no rule or another rank there (counts, factored moments) is whole everywhere. With ``zero1`` it is
    cut over ``data`` as well: each replica updates a part and the parts are gathered.
    """

    def choose(path: str, leaf: Any) -> NamedSharding:
        try:
            # Our own transformation keeps moments by part: heads/NAME/mu/..., encoder/nu/...
            rule = find_rule(re.sub(r"(^|/)(mu|nu)/", r"\1", path), leaf.shape, rules)[1]
        except StiltsError:
            return NamedSharding(mesh, P())
        spec = fit(rule, leaf.shape, mesh.shape)
        entries = [_names(entry) for entry in spec] + [()] * (len(leaf.shape) - len(spec))
        can_cut = zero1 and "data" in mesh.shape and not any("data" in names for names in entries)
        # The longest dimension: the layer axis is short, and often does not divide.
        for dimension in sorted(range(len(entries)), key=lambda index: -leaf.shape[index]):
            wanted = (*entries[dimension], "data")
            if can_cut and leaf.shape[dimension] % math.prod(mesh.shape[name] for name in wanted) == 0:
                entries[dimension] = wanted
                return NamedSharding(mesh, P(*entries))
        return NamedSharding(mesh, spec)

    params, moments = shardings(state.params, mesh, rules), map_with_path(choose, state.moments)
    return type(state)(step=NamedSharding(mesh, P()), params=params, moments=moments)


def fit(spec: P, shape: Sequence[int], sizes: Mapping[str, int]) -> P:
    """Leaves out of a spec the axes that a mesh of such ``sizes`` lacks or that do not divide their dimension."""
    entries = []
    for size, entry in zip(shape, spec):
        names = [name for name in _names(entry) if name in sizes]
        while size % math.prod(sizes[name] for name in names):
            names.pop()
        entries.append(tuple(names))
    return P(*entries)


def _names(entry: Any) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def with_shardings(tree: Any, places: Any) -> Any:
    """Returns the shapes and dtypes of a tree, lying as ``places`` say."""
    form = jax.ShapeDtypeStruct
    return jax.tree.map(lambda leaf, where: form(leaf.shape, leaf.dtype, sharding=where), tree, places)


def place(tree: Any, places: Any) -> Any:
    """Puts every array where it belongs: of numpy's each device's part by itself, never the whole first."""

    def put(leaf: Any, where: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array):
            return jax.device_put(leaf, where)
        return jax.make_array_from_callback(leaf.shape, where, lambda index: np.asarray(leaf)[index])

    return jax.tree.map(put, tree, places)


def bytes_per_device(tree: Any) -> int:
    """Returns how many bytes of a tree lie on one device; shapes with a ``sharding`` are enough."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns how every array of a batch lies: rows over ``data`` and ``fsdp``, as far as the mesh has them."""
    return NamedSharding(mesh, P(tuple(name for name in BATCH_AXES if name in mesh.shape)))


def batch_multiple(mesh: Mesh) -> int:
    """Returns what the number of a batch's rows must divide by."""
    return math.prod(mesh.shape.get(name, 1) for name in BATCH_AXES)


def shard_batch(arrays: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of a batch that every host has whole; each places the rows of its own devices."""
    sharding = batch_sharding(mesh)
    # Copies, as on a CPU a device may go on using the memory that it is given.
    return {name: place(array.copy(), sharding) for name, array in arrays.items()}


def pad_batch_to(arrays: Mapping[str, np.ndarray], multiple: int) -> dict[str, np.ndarray]:
    """Adds filler rows until ``multiple`` divides their number: the last row again, with a weight of zero."""
    missing = -len(next(iter(arrays.values()))) % multiple

    def pad(name: str, array: np.ndarray) -> np.ndarray:
        is_weight = name == "weight" or name.endswith("_weights")
        widths = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
        return np.pad(array, widths, mode="constant" if is_weight else "edge")

    return {name: pad(name, array) for name, array in arrays.items()} if missing else dict(arrays)


def auto_mesh(mesh: Mesh) -> Mesh:
    """Returns the same mesh with Auto axes: the compiler cuts arrays over them."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def lies_on(mesh: Mesh, array: Any) -> NamedSharding | None:
    """Returns how an array lies on ``mesh``, whose axes are Auto; None where it lies elsewhere."""
    found = getattr(array, "sharding", None)
    if isinstance(found, NamedSharding) and isinstance(found.mesh, Mesh) and auto_mesh(found.mesh) == mesh:
        return NamedSharding(mesh, found.spec)
    return None


def explicit_mesh(tree: Any) -> Any:
    """Returns the mesh with Explicit axes that arrays of a tree lie on; None where there is none."""
    meshes = (jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree))
    return next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)


def cut_by_compiler(function: Callable[..., Any], first: Any, *rest: Any, keep: bool) -> Any:
    """Calls ``function(first, *rest)`` so that the compiler cuts arrays, also where the mesh of ``first`` is Explicit.

    Explicit axes make JAX ask how every look-up and product is to be cut. What is returned is whole on each device,
    with ``keep`` after a tree that lies as ``first`` does.
    """
    mesh = explicit_mesh(first)
    if mesh is None:
        return function(first, *rest)
    places = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, first)
    # What lies elsewhere, as the number of a step that was made anew, is whole on each device.
    places = jax.tree.map(lambda place: NamedSharding(mesh, P()) if place.mesh.empty else place, places)
    out = (places, P()) if keep else P()
    call = jax.sharding.auto_axes(function, axes=mesh.axis_names, out_sharding=out)
    # Outside of jit an abstract mesh would have no devices.
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.jit(call)(first, *rest)


def constrained_mesh() -> Any:
    """Returns the mesh of ``jax.set_mesh`` where it is the compiler that cuts arrays over it, else None."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if not mesh.empty and set(mesh.axis_types) == {AxisType.Auto} else None


def constrain(array: jax.Array, *entries: Any) -> jax.Array:
    """Asks for an array to be cut as ``P(*entries)`` says, as far as the mesh has such axes and they divide it."""
    mesh = constrained_mesh()
    if mesh is None:
        return array
    return jax.lax.with_sharding_constraint(array, fit(P(*entries), array.shape, mesh.shape))


def constrain_batch(array: jax.Array) -> jax.Array:
    """Keeps activations ``[B, ...]`` cut by rows, so that weights are gathered to them, not the reverse."""
    return constrain(array, BATCH_AXES)


def gather_rows(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Looks up rows of an embedding table cut over columns: ``[V, D]``, ``[B, ...]`` -> ``[B, ..., D]``.

    Every device looks up its own columns for all rows of its replica (of ``data``), then columns are exchanged for
    rows. So what travels is the size of the result: the table, or its gradient, is far more.
    """
    rest = [None] * (rows.ndim - 1)
    found = jnp.take(table, constrain(rows, "data", *rest), axis=0)
    found = constrain(found, "data", *rest, ("tensor", "fsdp"))
    # Said one axis at a time, as XLA would send all columns to everybody to change both at once.
    return constrain_batch(constrain(found, BATCH_AXES, *rest, "tensor"))
