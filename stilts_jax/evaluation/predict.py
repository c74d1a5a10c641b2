"""Predicts all rows of a task in one jitted pass; only labels, best spans or pooled vectors come to the host."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stilts_jax import automatic
from stilts_jax.batches.collate import measure_rows
from stilts_jax.batches.plan import PredictionStream, made_ahead
from stilts_jax.chips import compiler_options
from stilts_jax.errors import ConfigError
from stilts_jax.features.records import Batch, Features
from stilts_jax.model import Model, apply_model, encode, pool_mean, writes_layers_out
from stilts_jax.progress import SILENT, Progress, counted
from stilts_jax.settings import LAYER, POSITIVE, TOKENS_PER_BATCH, MeshConfig
from stilts_jax.sharding import auto_mesh, batch_multiple, lies_on, make_mesh, shard_batch, shardings
from stilts_jax.tokenization import PAD_ID, SEP_ID
from stilts_jax.train.losses import check_tokens

Arrays = Mapping[str, jax.Array]
Rows = dict[str, np.ndarray]
Layer = int | tuple[int, ...]

NUM_BEST = 20  # spans that a window offers
MAX_ANSWER_TOKENS = 30


@cache
def one_device() -> Mesh:
    """Returns the mesh of one device, for callers that have none."""
    return make_mesh(MeshConfig(data=1), jax.local_devices()[:1])


def predict(
    model: Model,
    params: Mapping[str, Any],
    features: Features,
    *,
    head: str | None,
    layer: Layer | None = None,
    tokens_per_batch: int = 0,
    length_multiple: int = 8,
    mesh: Mesh | None = None,
    progress: Progress = SILENT,
) -> Rows:
    """Predicts every row of ``features``, of any kind but masked language modelling.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> from stilts_jax.features.records import Features, Ragged
        >>> tokens = Ragged.from_list([[0, 7, 8, 2], [0, 9, 2]])
        >>> columns = {"tokens": tokens, "example": np.arange(2), "language": np.zeros(2, int)}
        >>> features = Features("embed", columns, ("en",), 2)
        >>> model = sj.Model(sj.SHAPES["tiny"])
        >>> params = {"encoder": sj.init_params(model, jax.random.key(0))["encoder"]}
        >>> sj.predict(model, params, features, head=None)["vectors"].shape
        (2, 32)

    Without a head (None) the states of ``layer`` are averaged over all tokens (0: the embeddings; None: 14 of 24); a
    tuple of layers takes one pass. ``tokens_per_batch`` counts padded tokens on all devices together (0: by the device
    and the rows); more in ``length_multiple`` means fewer shapes to compile. The axes ``data`` and ``fsdp`` of a mesh
    share the rows; parameters that lie on the mesh stay as they lie, others are cut by ``RULES``.

    Returns arrays [N, ...] in the order of the rows, by kind: classify, choice: ``label``; tag: ``tags``, flat and
    aligned with the tokens' values; span: ``starts``, ``ends``, ``scores`` [N, 20] (-inf: no such span) and ``null``
    [N]; embed: ``vectors`` [N, D], or [N, L, D] for a tuple of L layers.
    """
    kept, lengths = Rows(), _measure_parts(model, features, head, layer)
    name, mesh = head or "embed", auto_mesh(mesh or one_device())
    model, on_cpu = _without_training(model, mesh), jax.default_backend() == "cpu"
    stream = plan_prediction(model, features, mesh, tokens_per_batch, length_multiple)
    run = _bind(model, params, head, layer, features.kind, mesh)
    batches, shapes = counted(len(stream), "batch", "es"), counted(len(stream.shapes), "shape")
    label = f"{name}: {counted(len(features), 'row')} in {batches} of {shapes}"

    def make(index: int) -> tuple[Batch, Arrays]:
        batch = stream.batch_at(index)
        outputs = run(shard_batch(batch.arrays, mesh))
        # An accelerator works through a queue, which this thread keeps filled.
        return batch, jax.block_until_ready(outputs) if on_cpu else outputs

    # A CPU's cores wait for each other at the end of every operation: of two batches at a time the one fills the gaps
    # of the other. But on several devices of a CPU two programs can wait for each other for ever.
    threads = 2 if on_cpu and mesh.size == 1 else 1
    # The longest rows come first: counted in tokens, the time that is left can be believed from the start.
    with (
        progress.track(label, total=int(lengths.sum()), unit="tokens") as bar,
        made_ahead(make, len(stream), threads=threads, ahead=2) as made_at,
    ):
        for batch, outputs in map(made_at, range(len(stream))):
            _take_in(batch, outputs, kept, features)
            bar.advance(int(lengths[batch.rows[batch.rows >= 0]].sum()))
    return kept


def _measure_parts(model: Model, features: Features, head: str | None, layer: Any) -> np.ndarray:
    """Returns the tokens of each row; raises where parts do not fit together that would all the same give numbers."""
    kind, encoder, fix = features.kind, model.encoder, "take the features and the head of one task"
    if head is not None and not model.head(head).kind == kind in PREDICTORS:
        what = f"The head is of the kind {model.head(head).kind!r}, and the features are of {kind!r}."
        raise ConfigError(what, where=f"predict, head {head!r}", fix=fix)
    if len(lengths := measure_rows(features)) != len(features):
        what = f"There are {len(lengths)} rows of tokens, and {len(features)} of `example`."
        raise ConfigError(what, where="predict, features", fix="give each row both")
    what = f"Batches are padded with token {PAD_ID}, and this encoder's pad_id is {encoder.pad_id}."
    encoder.refuse(encoder.pad_id != PAD_ID, what, "pad_id", "call apply_model on batches of your own")
    if isinstance(layer, list | str) or layer == ():
        what, fix = f"layer={layer!r} is no layer.", "take a number, or a tuple of one or more: (7, 14)"
        raise ConfigError(what, where="predict", fix=fix)
    for one in () if layer is None else layer if isinstance(layer, tuple) else (layer,):
        LAYER.check(one, "layer", "predict")
    if not len(features):  # no batch would say what the arrays are
        fix = "give those of one example or more"
        raise ConfigError("There are no rows.", where="predict, features", fix=fix)
    check_tokens(features.columns["tokens"].values, encoder.vocab_size, head or "embed")
    return lengths


def _bind(
    model: Model, params: Mapping[str, Any], head: str | None, layer: Layer | None, kind: str, mesh: Mesh
) -> Callable[[Arrays], Arrays]:
    """Returns the compiled function of a batch; other threads may call it, which do not know the caller's ``with``."""
    run, placed = _compile(model, head, layer, kind, mesh), _place(params, model, mesh)
    config: Any = jax.config
    precision = config.jax_default_matmul_precision

    def compute(arrays: Arrays) -> Arrays:
        with jax.set_mesh(mesh), jax.default_matmul_precision(precision):
            return run(placed, arrays)

    return compute


def _without_training(model: Model, mesh: Mesh) -> Model:
    """Returns the model as it predicts: no gradient needs anything that is kept."""
    layers = model.compute.layers
    if jax.default_backend() != "cpu":
        layers = "loop"  # there it costs prediction nothing, and compiles four times as fast
    elif layers == "auto":
        layers = automatic.layers_of(automatic.this_device(mesh.size), model.encoder, tokens=0)
    return replace(model, compute=replace(model.compute, remat="none", layers=layers))


def plan_prediction(
    model: Model, features: Features, mesh: Mesh, tokens_per_batch: int = 0, length_multiple: int = 8
) -> PredictionStream:
    """Returns the batches in which ``predict`` reads ``features``."""
    TOKENS_PER_BATCH.check(tokens_per_batch, "tokens_per_batch", "predict")
    POSITIVE.check(length_multiple, "length_multiple", "predict")
    device = automatic.this_device(mesh.size)
    by_device = automatic.prediction_tokens(device, int(measure_rows(features).sum()))
    return PredictionStream(
        features,
        tokens_per_batch=tokens_per_batch or by_device,
        max_buckets=automatic.MAX_LENGTHS,
        price=automatic.compile_tokens(device, model.encoder.training_flops(), training=False),
        multiple=length_multiple,
        limit=model.encoder.max_length,
        row_multiple=int(np.lcm(batch_multiple(mesh), 8)),
    )


def _place(params: Mapping[str, Any], model: Model, mesh: Mesh) -> Any:
    """Puts parameters on the devices, in the form in which they are read: once, not with every batch."""
    tree = {name: params[name] for name in ("encoder", "head", "heads") if name in params}
    places = jax.tree.map(lambda leaf, cut: lies_on(mesh, leaf) or cut, tree, shardings(tree, mesh))
    tree = jax.device_put(tree, places)
    if not writes_layers_out(model.encoder, model.compute):
        return tree
    stacks = tree["encoder"]["layers"]
    if any(leaf.sharding.shard_shape(leaf.shape)[0] < len(leaf) for leaf in jax.tree.leaves(stacks)):
        return tree  # rules of the user's own give each device some layers only
    numbers = range(len(jax.tree.leaves(stacks)[0]))
    layers = [jax.tree.map(partial(_view_layer, number), stacks) for number in numbers]
    return tree | {"encoder": {**tree["encoder"], "layers": layers}}


def _view_layer(number: int, stack: jax.Array) -> jax.Array:
    """Returns a layer of a stack on CPUs, where jax takes over an array of numpy's without a copy.

    A program that gets the stack copies each layer first (a twentieth of its time), and compiles twice as long.
    """
    whole: Any = stack.sharding
    place = NamedSharding(whole.mesh, P(*whole.spec[1:]))
    shards = [(shard.device, np.asarray(shard.data)) for shard in stack.addressable_shards]
    parts = [jax.device_put(data[number], device) for device, data in shards]
    return jax.make_array_from_single_device_arrays(stack.shape[1:], place, parts)


def _take_in(batch: Batch, outputs: Arrays, kept: Rows, features: Features) -> None:
    """Puts what came back of one batch where its rows are."""
    real, sequences = batch.rows >= 0, features.columns["tokens"]
    rows = batch.rows[real]
    for name, array in outputs.items():
        values, places, size = np.asarray(array)[real], rows, len(features)
        if name == "tags":  # [B, T]: kept flat, without the padding
            inside = np.arange(values.shape[1]) < sequences.lengths[rows][:, None]
            places = (sequences.offsets[rows][:, None] + np.arange(values.shape[1]))[inside]
            values, size = values[inside], len(sequences.values)
        if name not in kept:
            kept[name] = np.empty((size, *values.shape[1:]), values.dtype)
        kept[name][places] = values


@cache
def _compile(
    model: Model, head: str | None, layer: Layer | None, kind: str, mesh: Mesh
) -> Callable[[Any, Any], Arrays]:
    """The function for a batch, kept by model and head; every host gets all results: they are small."""
    wanted = default_layer(model.encoder.num_layers) if layer is None else layer
    options: Any = {"num_layers": wanted}
    if isinstance(wanted, tuple):
        options = {"num_layers": max(wanted), "all_hidden": True}

    def run(params: Any, batch: Arrays) -> Arrays:
        if head is not None:
            return PREDICTORS[kind](apply_model(model, params, batch, head=head), batch)
        tokens = batch["tokens"]
        hidden = encode(params["encoder"], tokens, config=model.encoder, compute=model.compute, **options)
        mean = pool_mean(hidden, tokens, model.encoder.pad_id).astype(jnp.float32)
        return {"vectors": jnp.moveaxis(mean[jnp.array(wanted)], 0, 1) if isinstance(wanted, tuple) else mean}

    whole, settings = NamedSharding(mesh, P()), compiler_options()
    return jax.jit(run, out_shardings=whole, compiler_options=settings)


def default_layer(num_layers: int) -> int:
    """The layer whose states are averaged for retrieval: 14 of 24, the same share of other depths."""
    return (14 * num_layers + 12) // 24


def best_spans(outputs: Arrays, batch: Arrays) -> Arrays:
    """The twenty best spans of each window by BERT's rule.

    The twenty best starts and ends among all of its tokens, special ones and the question's included, are combined.
    Kept are spans of at most thirty tokens in the context that start where this window shows the most context.
    """
    start, end = (outputs[name].astype(jnp.float32) for name in ("start_logits", "end_logits"))
    tokens, real = batch["tokens"], batch["tokens"] != PAD_ID
    context = (jnp.cumsum(tokens == SEP_ID, axis=1) == 2) & (tokens != SEP_ID) & real
    count = min(NUM_BEST, tokens.shape[1])
    start_scores, starts = jax.lax.top_k(jnp.where(real, start, -jnp.inf), count)
    end_scores, ends = jax.lax.top_k(jnp.where(real, end, -jnp.inf), count)
    may_start = jnp.take_along_axis(batch["context_mask"], starts, axis=1)
    may_end = jnp.take_along_axis(context, ends, axis=1)
    length = ends[:, None, :] - starts[:, :, None] + 1
    fits = (length > 0) & (length <= MAX_ANSWER_TOKENS) & may_start[:, :, None] & may_end[:, None, :]
    scores = jnp.where(fits, start_scores[:, :, None] + end_scores[:, None, :], -jnp.inf)
    # As many of a short window too: batches of several lengths go into one array.
    flat = scores.reshape(len(scores), -1)
    flat = jnp.pad(flat, ((0, 0), (0, max(NUM_BEST - flat.shape[1], 0))), constant_values=-jnp.inf)
    scores, place = jax.lax.top_k(flat, NUM_BEST)
    return {
        "starts": jnp.take_along_axis(starts, place // count, axis=1),
        "ends": jnp.take_along_axis(ends, place % count, axis=1),
        "scores": scores,
        "null": start[:, 0] + end[:, 0],
    }


def _find_best(name: str, outputs: Arrays, batch: Arrays) -> Arrays:
    return {name: outputs["logits"].argmax(axis=-1).astype(jnp.int32)}


PREDICTORS: Mapping[str, Callable[[Arrays, Arrays], Arrays]] = {
    "classify": partial(_find_best, "label"),
    "choice": partial(_find_best, "label"),
    "tag": partial(_find_best, "tags"),
    "span": best_spans,
    "embed": lambda outputs, batch: {"vectors": outputs["vectors"].astype(jnp.float32)},
}
