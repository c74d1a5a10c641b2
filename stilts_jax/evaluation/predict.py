"""Predicts every row of a task in one jitted pass over all languages.

The device computes the argmax labels, the best spans or the pooled vectors, and only these are copied to the host:
one number per row, one per token, or one vector per row. ``PredictionStream`` sorts the rows by length; a check makes
sure that each is predicted exactly once. Compiled functions are cached by model and head for later calls.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stilts_jax import automatic
from stilts_jax.batches.collate import measure_rows
from stilts_jax.batches.masking import Masking
from stilts_jax.batches.plan import PredictionStream
from stilts_jax.batches.prefetch import prefetch
from stilts_jax.errors import StiltsError
from stilts_jax.features.records import PAD_ID, Batch, Features, Ragged
from stilts_jax.model import (
    Model,
    apply_model,
    encode,
    pool_mean,
    writes_layers_out,
)
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import Compute, MeshConfig
from stilts_jax.sharding import (
    auto_mesh,
    batch_multiple,
    host_rows,
    lies_on,
    make_mesh,
    shard_batch,
    shardings,
)
from stilts_jax.tokenization import SEP_ID
from stilts_jax.train.losses import check_tokens, chunked_cross_entropy

Arrays = Mapping[str, jax.Array]
Rows = dict[str, np.ndarray]
Layer = int | Literal["all"]

NUM_BEST = 20  # spans that a window offers
MAX_ANSWER_TOKENS = 30
_ROW_MULTIPLE = 8


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
    masking: Masking | None = None,
    mesh: Mesh | None = None,
    progress: Progress = SILENT,
) -> Rows:
    """Predicts every row of ``features`` once.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> from stilts_jax.features.records import Features, Ragged
        >>> tokens = Ragged.from_list([[0, 7, 8, 2], [0, 9, 2]])
        >>> columns = {"tokens": tokens, "example": np.arange(2), "language": np.zeros(2, int)}
        >>> features = Features("embed", columns, ("en",), 2, "")
        >>> model = sj.Model(sj.SHAPES["tiny"])
        >>> params = {"encoder": sj.init_params(model, jax.random.key(0))["encoder"]}
        >>> sj.predict(model, params, features, head=None)["vectors"].shape
        (2, 32)

    A head is named as in ``model.heads``; without one (None) the states of ``layer`` are averaged over all tokens
    (0: the embeddings; None: 14 of 24), or "all" of them in one pass. ``tokens_per_batch`` counts padded tokens on all
    devices together (0: by the device and the rows); more in ``length_multiple`` means fewer shapes to compile. The
    axes ``data`` and ``fsdp`` of a mesh share the rows; parameters that lie on the mesh stay as they lie, others are
    cut by ``RULES``.

    Returns arrays [N, ...] in the order of the rows, by kind: classify, choice: ``label``; tag: ``tags``, flat and
    aligned with the tokens' values; span: ``starts``, ``ends``, ``scores`` [N, 20] (-inf: no such span) and ``null``
    [N]; embed: ``vectors`` [N, D], or [N, L + 1, D] for "all" layers; mlm: ``loss`` and ``weight``, sums over the
    masked tokens of the rows that texts were packed into.
    """
    name, mesh, packed = head or "embed", auto_mesh(mesh or one_device()), features.kind == "mlm"
    model = replace(model, compute=_how_computed(model, mesh))
    stream = plan_prediction(model, features, mesh, tokens_per_batch, length_multiple, masking)
    run, placed = _compile(model, head, layer, features.kind, mesh), _place(params, model, mesh)
    sequences: Any = features.columns["tokens"]
    check_tokens(sequences.values, model.encoder.vocab_size, name)
    kept, seen = Rows(), np.zeros(len(features), np.int64)
    label = f"{name}: {len(features)} rows in {len(stream)} batches of {len(stream.shapes)} shapes"
    # The longest rows come first: counted in tokens, the time that is left can be believed from the start.
    costs = np.ones_like(seen) if packed else measure_rows(features)

    def compute(batch: Batch) -> Arrays:
        mine = host_rows(mesh, len(batch.rows))
        return run(placed, shard_batch({key: array[mine] for key, array in batch.arrays.items()}, mesh))

    with progress.track(label, total=int(costs.sum()), unit="tokens") as bar:
        for batch, outputs in _compute_ahead(compute, stream, mesh):
            bar.advance(int(costs[_take_in(batch, outputs, kept, seen, sequences)].sum()))
    if packed:  # of texts that were packed into fewer rows, only these
        seen = seen[: np.count_nonzero(seen)]
        kept = {key: values[: len(seen)] for key, values in kept.items()}
    _check_whole(seen, name)
    return kept


def _how_computed(model: Model, mesh: Mesh) -> Compute:
    layers = model.compute.layers
    if (
        jax.default_backend() != "cpu"
    ):  # there a loop costs prediction nothing, and compiles four times as fast
        layers = "loop"
    elif layers == "auto":
        layers = automatic.layers_of(automatic.this_device(mesh.size), model.encoder, tokens=0)
    # No gradient needs anything that is kept.
    return replace(model.compute, remat="none", layers=layers)


def _check_whole(seen: np.ndarray, name: str) -> None:
    wrong = np.flatnonzero(seen != 1)
    if len(wrong):
        what = f"{len(wrong)} of {len(seen)} rows were not predicted exactly once."
        fix = "report this: the batches of the stream do not cover the rows"
        raise StiltsError(what, where=f"{name}, first row {wrong[0]}: {seen[wrong[0]]} times", fix=fix)


def plan_prediction(
    model: Model,
    features: Features,
    mesh: Mesh,
    tokens_per_batch: int = 0,
    length_multiple: int = 8,
    masking: Masking | None = None,
) -> PredictionStream:
    """Returns the batches in which ``predict`` reads ``features``."""
    device = automatic.this_device(mesh.size)
    by_device = automatic.prediction_tokens(device, int(measure_rows(features).sum()))
    return PredictionStream(
        features.kind,
        features,
        tokens_per_batch=tokens_per_batch or by_device,
        max_buckets=automatic.MAX_LENGTHS,
        price=automatic.compile_tokens(device, model.encoder.training_flops(), training=False),
        multiple=length_multiple,
        row_multiple=int(np.lcm(batch_multiple(mesh), _ROW_MULTIPLE)),
        masking=masking,
    )


def _compute_ahead(
    compute: Callable[[Batch], Arrays], stream: PredictionStream, mesh: Mesh
) -> Iterator[tuple[Batch, Arrays]]:
    """Yields every batch with what was computed of it; others are computed meanwhile."""
    if jax.default_backend() == "cpu":
        # A CPU's cores wait for each other at the end of every operation: of two batches at a time the one fills
        # the gaps of the other. (jax compiles once what both want.) But on several devices of a CPU two programs can
        # wait for each other for ever.
        def make(index: int) -> tuple[Batch, Arrays]:
            batch = stream.batch_at(index)
            return batch, jax.block_until_ready(compute(batch))

        yield from prefetch(make, range(len(stream)), threads=2 if mesh.size == 1 else 1, ahead=3)
        return
    waiting: deque[tuple[Batch, Arrays]] = deque()
    for batch in prefetch(stream.batch_at, range(len(stream))):
        waiting.append((batch, compute(batch)))
        if len(waiting) > 1:  # the device computes this batch while the host takes in the one before it
            yield waiting.popleft()
    yield from waiting


def _place(params: Mapping[str, Any], model: Model, mesh: Mesh) -> Any:
    """Puts parameters on the devices, in the form in which they are read: once, not with every batch."""
    tree = dict(params)
    places = jax.tree.map(lambda leaf, cut: lies_on(mesh, leaf) or cut, tree, shardings(tree, mesh))
    tree = jax.device_put(tree, places)
    if not writes_layers_out(model.encoder, model.compute):
        return tree
    leaves, structure = jax.tree.flatten(tree["encoder"]["layers"])
    if any(leaf.sharding.shard_shape(leaf.shape)[0] < len(leaf) for leaf in leaves):
        return tree  # rules of the user's own give each device some layers only
    layers = [jax.tree.unflatten(structure, one) for one in zip(*map(_view_layers, leaves), strict=True)]
    return tree | {"encoder": {**tree["encoder"], "layers": layers}}


def _view_layers(stack: jax.Array) -> list[jax.Array]:
    """Returns the layers of a stack on CPUs, where jax takes over an array of numpy's without a copy.

    A program that gets the stack copies each layer out of it first: up to a twentieth of a prediction's time, and more
    than half of what there is to compile. Layers that are no views would hold the encoder's memory a second time.
    """
    whole: Any = stack.sharding
    place = NamedSharding(whole.mesh, P(*whole.spec[1:]))
    shards = [(shard.device, np.asarray(shard.data)) for shard in stack.addressable_shards]

    def view(number: int) -> jax.Array:
        parts = [jax.device_put(data[number], device) for device, data in shards]
        return jax.make_array_from_single_device_arrays(stack.shape[1:], place, parts)

    return [view(number) for number in range(len(stack))]


def _take_in(batch: Batch, outputs: Arrays, kept: Rows, seen: np.ndarray, sequences: Ragged) -> np.ndarray:
    """Puts what came back of one batch where its rows are; returns the rows."""
    real = batch.rows >= 0
    rows = batch.rows[real]
    np.add.at(seen, rows, 1)
    for name, array in outputs.items():
        values = np.asarray(array)[real]
        if name == "tags":  # [B, T]: kept flat, without the padding
            flat = kept.setdefault(name, np.full(len(sequences.values), -1, np.int32))
            inside = np.arange(values.shape[1]) < sequences.lengths[rows][:, None]
            places = sequences.offsets[rows][:, None] + np.arange(values.shape[1])
            flat[places[inside]] = values[inside]
        else:
            if name not in kept:
                kept[name] = np.empty((len(seen), *values.shape[1:]), values.dtype)
            kept[name][rows] = values
    return rows


@cache
def _compile(
    model: Model, head: str | None, layer: Layer | None, kind: str, mesh: Mesh
) -> Callable[[Any, Any], Arrays]:
    """The function for a batch; jax compiles it once a bucket, and every host gets all results: they are small."""

    def run(params: Any, batch: Arrays) -> Arrays:
        if head is None:
            return {"vectors": pool(model, params["encoder"], batch["tokens"], layer)}
        return PREDICTORS[kind](apply_model(model, params, batch, head=head), batch)

    whole, options = NamedSharding(mesh, P()), automatic.compiler_options()
    compiled = jax.jit(run, out_shardings=whole, compiler_options=options)

    def run_on_mesh(params: Any, batch: Arrays) -> Arrays:
        with jax.set_mesh(mesh):
            return compiled(params, batch)

    return run_on_mesh


def default_layer(num_layers: int) -> int:
    """The layer whose states are averaged for retrieval: 14 of 24, the same share of other depths."""
    return (14 * num_layers + 12) // 24


def pool(model: Model, encoder: Any, tokens: jax.Array, layer: Layer | None = None) -> jax.Array:
    """Averages hidden states over all tokens, special ones too: [B, T] -> [B, D] ([B, L + 1, D] for "all").

    The encoder stops at the layer asked for.
    """
    wanted = default_layer(model.encoder.num_layers) if layer is None else layer
    options: dict[str, Any] = {"all_hidden": True} if wanted == "all" else {"num_layers": wanted}
    hidden = encode(encoder, tokens, config=model.encoder, compute=model.compute, **options)
    mean = pool_mean(hidden, tokens, model.encoder.pad_id).astype(jnp.float32)
    return jnp.moveaxis(mean, 0, 1) if wanted == "all" else mean


def best_spans(outputs: Arrays, batch: Arrays) -> Arrays:
    """The n best spans of each window by BERT's rule.

    The twenty best starts and the twenty best ends of all tokens of the window, special tokens and question included,
    are combined. Kept are spans of at most thirty tokens that lie in the context and start at a token that this window
    shows with the most context; they are ranked by the sum of their logits.
    """
    start, end = (outputs[name].astype(jnp.float32) for name in ("start_logits", "end_logits"))
    tokens = batch["tokens"]
    context = (jnp.cumsum(tokens == SEP_ID, axis=1) == 2) & (tokens != SEP_ID) & (tokens != PAD_ID)
    count = min(NUM_BEST, tokens.shape[1])
    real = tokens != PAD_ID
    start_scores, starts = jax.lax.top_k(jnp.where(real, start, -jnp.inf), count)
    end_scores, ends = jax.lax.top_k(jnp.where(real, end, -jnp.inf), count)
    may_start = jnp.take_along_axis(batch["context_mask"], starts, axis=1)
    may_end = jnp.take_along_axis(context, ends, axis=1)
    length = ends[:, None, :] - starts[:, :, None] + 1
    fits = (length > 0) & (length <= MAX_ANSWER_TOKENS) & may_start[:, :, None] & may_end[:, None, :]
    scores = jnp.where(fits, start_scores[:, :, None] + end_scores[:, None, :], -jnp.inf)
    scores, place = jax.lax.top_k(scores.reshape(len(scores), -1), count)
    return {
        "starts": jnp.take_along_axis(starts, place // count, axis=1),
        "ends": jnp.take_along_axis(ends, place % count, axis=1),
        "scores": scores,
        "null": start[:, 0] + end[:, 0],
    }


def _masked_losses(outputs: Arrays, batch: Arrays) -> Arrays:
    weight = batch["masked_weights"].astype(jnp.float32)
    table = outputs["features"], outputs["table"], outputs["bias"]
    losses = chunked_cross_entropy(*table, batch["masked_targets"])
    return {"loss": jnp.where(weight > 0, losses * weight, 0.0).sum(axis=1), "weight": weight.sum(axis=1)}


def _best_label(outputs: Arrays, batch: Arrays) -> Arrays:
    return {"label": outputs["logits"].argmax(axis=-1).astype(jnp.int32)}


PREDICTORS: Mapping[str, Callable[[Arrays, Arrays], Arrays]] = {
    "classify": _best_label,
    "choice": _best_label,
    "tag": lambda outputs, batch: {"tags": _best_label(outputs, batch)["label"]},
    "span": best_spans,
    "embed": lambda outputs, batch: {"vectors": outputs["vectors"].astype(jnp.float32)},
    "mlm": _masked_losses,
}
