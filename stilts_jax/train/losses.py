"""What a batch of each kind of task holds, and its loss: outputs and batch -> (sum of losses, of weights, reports).

In float32 at least. Nothing is averaged here: the step divides once by the weight of the whole batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stilts_jax.errors import TrainingError
from stilts_jax.model import Model, apply_model
from stilts_jax.model.heads import select_head
from stilts_jax.model.layers import wide_dtype, widen
from stilts_jax.sharding import constrain, constrain_batch, cut_by_compiler, explicit_mesh
from stilts_jax.train.optimizer import Params
from stilts_jax.train.step import Arrays, Sums

_cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def class_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """Softmax cross-entropy over classes or choices: ``logits`` [B, C], ``label`` [B] (-1: not scored).

    With ``votes`` [B, N], labels that people gave (-1: none), binary cross-entropies of all classes, whose targets are
    VQA's accuracies, ``min(votes / 3, 1)``.
    """
    if "votes" not in batch:
        return _score(outputs["logits"], batch["label"], batch["weight"])
    logits = widen(outputs["logits"])
    counts = jax.nn.one_hot(batch["votes"], logits.shape[-1], dtype=logits.dtype).sum(1)
    targets = jnp.minimum(counts / 3, 1)
    losses = optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)
    best = jnp.take_along_axis(targets, logits.argmax(-1, keepdims=True), axis=-1)[:, 0]
    return _weigh(batch["weight"], losses, accuracy=best)


def tag_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """The same for every tagged position: ``logits`` [B, T, C], ``tags`` [B, T]; words count alike."""
    return _score(outputs["logits"], batch["tags"], batch["weight"][:, None])


def span_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """The mean of two cross-entropies over positions, for start and end; out of range is not scored."""
    of_start, of_end = outputs["start_logits"], outputs["end_logits"]
    start, end = batch["start"], batch["end"]
    length = of_start.shape[-1]
    inside = (start >= 0) & (start < length) & (end >= 0) & (end < length)
    start, end, weight = (jnp.where(inside, one, 0) for one in (start, end, batch["weight"]))
    losses = 0.5 * (_cross_entropy(widen(of_start), start) + _cross_entropy(widen(of_end), end))
    return _weigh(weight, losses, exact=(of_start.argmax(-1) == start) & (of_end.argmax(-1) == end))


def pair_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """In-batch softmax in one direction: row i's partner is right, the partners of all other rows are wrong.

    ``vectors`` and ``pair_vectors`` [B, D]. The negatives are the whole global batch, so the loss of a part
    of a batch is another loss: it is not to be accumulated. Partners of filler rows are no negatives.
    """
    weight = batch["weight"].astype(jnp.float32)
    vectors, pairs = widen(outputs["vectors"]), widen(outputs["pair_vectors"])
    logits = outputs["logit_scale"].astype(vectors.dtype) * (vectors @ pairs.T)
    logits = jnp.where(weight[None, :] > 0, logits, jnp.finfo(logits.dtype).min)
    return _score(logits, jnp.arange(len(weight)), weight)


def masked_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """Cross-entropy over the vocabulary at masked positions, without the logits of all of them at once."""
    given = (outputs[name] for name in ("features", "table", "bias"))
    targets = batch["masked_targets"]
    weight = jnp.where(targets >= 0, batch["masked_weights"], 0) * batch["weight"][:, None]
    return _weigh(weight, chunked_cross_entropy(*given, targets))


def _weigh(weight: jax.Array, losses: jax.Array, **reports: jax.Array) -> Sums:
    weight = weight.astype(jnp.float32)
    # `where`, as a filler row may hold an infinity, and 0 * inf is not 0.
    total = lambda values: jnp.where(weight > 0, values * weight, 0.0).sum()  # noqa: E731
    return total(losses), weight.sum(), {name: total(values) for name, values in reports.items()}


def _score(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Sums:
    losses = _cross_entropy(widen(logits), jnp.maximum(labels, 0))
    return _weigh(jnp.where(labels >= 0, weight, 0), losses, accuracy=logits.argmax(-1) == labels)


_MASKED = dict.fromkeys(("masked_positions", "masked_targets", "masked_weights"), "BM")
# Loss and entries of a batch by kind, besides `weight` [B]. Shapes: B rows, C choices, T tokens, M masked places; a
# letter stands for the same size throughout.
LOSSES: dict[str, tuple[Callable[[Arrays, Arrays], Sums], dict[str, str]]] = {
    "classify": (class_loss, {"tokens": "BT", "label": "B"}),
    "choice": (class_loss, {"tokens": "BCT", "choice_mask": "BC", "label": "B"}),
    "tag": (tag_loss, {"tokens": "BT", "tags": "BT"}),
    "span": (span_loss, {"tokens": "BT", "start": "B", "end": "B"}),
    "embed": (pair_loss, {"tokens": "BT", "pair_tokens": "BU"}),
    "mlm": (masked_loss, dict.fromkeys(("tokens", "segments", "positions"), "BT") | _MASKED),
}
_COUNTED = {name for _, entries in LOSSES.values() for name in entries} | {"votes"}
# What a model reads, and weights: nothing to learn from.
_INPUTS = {"tokens", "segments", "positions", "choice_mask", "visual", "visual_mask", "weight"}
FRACTIONS = ("weight", "masked_weights", "choice_mask")  # everything else counts or names something


@dataclass(frozen=True)
class Loss:
    """The loss of one head of a model, called as ``loss_fn(params, batch, key)``."""

    model: Model
    head: str
    freeze: Callable[[Params], Params] | None = None

    @property
    def needs_whole_batch(self) -> bool:
        """Whether the loss of a batch is not the sum of the losses of its parts."""
        return self.model.head(self.head).kind == "embed"

    def __call__(self, params: Params, batch: Arrays, key: Any) -> Sums:
        """Returns the sums over a batch; ``key`` is of dropout: one for each row, one for all, or None."""
        if explicit_mesh(params):
            return cut_by_compiler(self, params, batch, key, keep=False)
        kind = self.model.head(self.head).kind
        batch = complete_batch(batch, kind, f"batch, head {self.head!r}")
        params = self.freeze(params) if self.freeze else params
        outputs = apply_model(self.model, params, batch, head=self.head, dropout_key=key)
        if kind == "span":
            # A pad can't be the answer, and the loss must not depend on the length that a batch is padded to.
            real = batch["tokens"] != self.model.encoder.pad_id
            outputs = {name: jnp.where(real, x, jnp.finfo(x.dtype).min) for name, x in outputs.items()}
        return LOSSES[kind][0](outputs, batch)


def make_loss(model: Model, head: str, freeze: Callable[[Params], Params] | None = None) -> Loss:
    """Returns the ``loss_fn`` of a head, which ``train_step`` and ``eval_step`` take.

        >>> import stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="tag", num_labels=5)),))
        >>> sj.make_loss(model, "mine").head
        'mine'

    ``freeze`` stops the gradients of some parameters; see ``OptimizerConfig.freeze``.
    """
    model.head(head)
    return Loss(model, head, freeze)


def complete_batch(batch: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """Returns a batch with a ``weight`` of ones where it has none; raises at entries that are missing or ill-shaped."""
    wanted = LOSSES[kind][1]
    has = ", ".join(f"{name} {jnp.shape(array)}" for name, array in sorted(batch.items())) or "nothing"
    missing = [name for name in wanted if name not in batch]
    if missing:
        needs = ", ".join(f"{name} [{', '.join(letters)}]" for name, letters in wanted.items())
        what, fix = f"The batch lacks {', '.join(missing)}; it has {has}.", f"a {kind} batch needs {needs}"
        raise TrainingError(what, where=where, fix=f"{fix}; weight [B] may be left out")
    sizes: dict[str, int] = {}
    complete = {"weight": jnp.ones(jnp.shape(batch["tokens"])[:1], jnp.float32), **batch}
    for name, letters in {**wanted, "weight": "B"}.items():
        shape = jnp.shape(complete[name])
        fits = len(shape) == len(letters)
        if not fits or any(sizes.setdefault(letter, size) != size for letter, size in zip(letters, shape)):
            what = f"{name} has the shape {shape}, it must be [{', '.join(letters)}]."
            raise TrainingError(what, where=where, fix=f"each letter is one size; the batch has {has}")
        _check_integers(name, complete[name], where)
        complete[name] = jnp.asarray(complete[name])
    return complete


def _check_integers(name: str, array: Any, where: str) -> None:
    dtype = array.dtype if hasattr(array, "dtype") else np.asarray(array).dtype  # of a list, too
    if name not in FRACTIONS and not jnp.issubdtype(dtype, jnp.integer):
        what = f"{name} holds {dtype}, it must hold integers."
        raise TrainingError(what, where=where, fix=f"give {name}.astype(numpy.int32), of names their numbers")


def check_tokens(tokens: np.ndarray, rows: int, where: str = "tokens") -> None:
    """Raises at ids that a word table of so many rows lacks."""
    fix = "tokenize with the tokenizer that came with this encoder"
    _check_range(tokens, 0, rows, where, "token ids", fix)


def check_batch(batch: Mapping[str, Any], params: Mapping[str, Any], head: str) -> None:
    """Raises at token ids that the encoder lacks and at labels that the head lacks.

    On a device a wrong number is no error, but a loss that is not finite, or one of another target. Numbers that are
    no integers or no weights are refused too, and a batch without rows or with nothing to learn from.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> sj.check_batch({"tokens": np.ones((1, 8), np.int32), "label": np.array([2])}, params, "mine")
        Traceback (most recent call last):
        stilts_jax.errors.TrainingError: There are labels from 2 to 2...
    """
    # What lies on several hosts is seen by none of them, and inside jit there are no numbers yet.
    known = {name: array for name, array in batch.items() if not isinstance(array, jax.core.Tracer)}
    seen = [name for name, array in known.items() if getattr(array, "is_fully_addressable", True)]
    arrays = {name: np.asarray(known[name]) for name in seen if name in _COUNTED or name in FRACTIONS}
    where = f"batch, head {head!r}"
    for name in _COUNTED.intersection(arrays):
        _check_integers(name, arrays[name], where)
    for name in arrays.keys() & FRACTIONS:
        if not arrays[name].min(initial=0) >= 0:
            what = f"{name} holds numbers that are no weights: below 0, or NaN."
            raise TrainingError(what, where=where, fix="give 1 for what counts, and 0 for what does not")
    targets, weights = (arrays.get(name, np.zeros(())) for name in ("masked_targets", "masked_weights"))
    if targets.ndim and targets.shape == weights.shape:  # other shapes are refused with the batch
        # Places that are not used may hold anything, and those below zero are not used.
        arrays["masked_targets"] = np.where((weights > 0) & (targets >= 0), targets, 0)
    places, length = arrays.get("masked_positions", np.zeros(())), arrays.get("tokens", np.zeros(0)).shape[-1]
    if places.ndim and length:  # the gradient of one that is not there is NaN, whatever its weight
        fix = "places are counted from 0; give 0 where none is masked, with a weight of 0"
        _check_range(places, 0, length, "masked_positions", "places", fix)
    for name in ("tokens", "pair_tokens", "masked_targets"):
        if name in arrays:
            check_tokens(arrays[name], params["encoder"]["embeddings"]["word"].shape[0], name)
    out = select_head(params, head)["head"].get("out", {}).get("kernel")
    if out is not None:
        _check_labels(arrays, out.shape[-1], head)
    has = ", ".join(f"{name} {np.shape(array)}" for name, array in sorted(batch.items())) or "nothing"
    if not batch or any(np.shape(array)[:1] == (0,) for array in batch.values()):
        fix = "give arrays whose first axis has at least one row"
        raise TrainingError(f"The batch has no rows; it has {has}.", where=where, fix=fix)
    # A loss of one's own may have targets of its own, and without a layer of outputs none at all.
    if out is not None and not batch.keys() - _INPUTS:
        what = f"There is nothing to learn from in the batch; it has {has}."
        fix = "give label, tags, start and end, or what a loss of your own reads"
        raise TrainingError(what, where=where, fix=fix)


def _check_labels(arrays: Mapping[str, np.ndarray], outputs: int, head: str) -> None:
    fix = "labels are numbered from 0; -1 is a place that is not scored"
    for name in ("label", "tags", "votes"):
        if name in arrays:
            labels, where = arrays[name], f"{name}, head {head!r}"
            # A choice is one of its row's; the head itself has a single output.
            mask = arrays.get("choice_mask") if name == "label" else None
            count = outputs if mask is None else mask.shape[1]
            _check_range(labels, -1, count, where, "labels", fix)
            if (
                mask is not None and labels.shape == mask.shape[:1]
            ):  # of a choice left out the loss is infinite
                there = np.take_along_axis(mask, np.maximum(labels, 0)[:, None], axis=1)[:, 0] > 0
                labels = np.where((labels < 0) | there, labels, count)
                _check_range(labels, -1, count, f"{where}, choices where choice_mask is 0", "labels", fix)


def _check_range(array: np.ndarray, low: int, high: int, where: str, what: str, fix: str) -> None:
    if array.size and not low <= array.min() <= array.max() < high:
        strange = ", ".join(map(str, np.argwhere((array < low) | (array >= high))[0]))
        what = f"There are {what} from {array.min()} to {array.max()}; they must be from {low} to {high - 1}."
        raise TrainingError(what, where=f"{where}, first at {strange}", fix=fix)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def chunked_cross_entropy(
    features: jax.Array, table: jax.Array, bias: jax.Array, targets: jax.Array, chunk: int = 16384
) -> jax.Array:
    """Returns the cross-entropy [...] of ``softmax(features @ table.T + bias)`` at ``targets``.

    The vocabulary is walked in chunks, forwards for the normaliser and backwards for the gradients, so that only
    ``[..., chunk]`` of the logits exist at a time. Products are in the dtype of ``features`` [..., D], sums in float32
    or better; ``table`` [V, D] are the word embeddings, ``bias`` is [V], ``targets`` (int32 [...]) are its rows.
    """
    return _forward(features, table, bias, targets, chunk)[0]


def _forward(features: Any, table: Any, bias: Any, targets: Any, chunk: int) -> tuple[jax.Array, Any]:
    exact, shape, chunk = wide_dtype(features), features.shape[:-1], min(chunk, table.shape[0])

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
        highest, total, chosen = carry
        logits, _, _, ids = _chunk_logits(features, table, bias, chunk, number)
        top = jnp.maximum(highest, logits.max(-1))
        total = total * jnp.exp(highest - top) + jnp.exp(logits - top[..., None]).sum(-1)
        # A target is in exactly one chunk: where the last one overlaps, `ids` are -1.
        chosen = chosen + jnp.where(ids == targets[..., None], logits, 0).sum(-1)
        return (top, total, chosen), None

    start = (jnp.full(shape, jnp.finfo(exact).min, exact), jnp.zeros(shape, exact), jnp.zeros(shape, exact))
    (highest, total, chosen), _ = jax.lax.scan(step, start, jnp.arange(-(-table.shape[0] // chunk)))
    normaliser = highest + jnp.log(total)
    return normaliser - chosen, (features, table, bias, targets, normaliser)


def _backward(chunk: int, saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    features, table, bias, targets, normaliser = saved
    exact, chunk = wide_dtype(features), min(chunk, table.shape[0])
    flat = lambda array: array.reshape(-1, array.shape[-1])  # noqa: E731

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
        of_features, of_table, of_bias = carry
        logits, rows, start, ids = _chunk_logits(features, table, bias, chunk, number)
        inner = jnp.exp(logits - normaliser[..., None]) - (ids == targets[..., None])
        inner = inner * gradient[..., None].astype(exact)
        product = inner.astype(features.dtype)
        of_features = of_features + jnp.einsum("...v,vd->...d", product, rows, preferred_element_type=exact)
        part = jnp.einsum("nv,nd->vd", flat(product), flat(features), preferred_element_type=exact)
        # Rows that an earlier chunk has had are logits of the least number here: their gradient is zero.
        of_table = _add_rows(of_table, part, start)
        return (of_features, of_table, _add_rows(of_bias, flat(inner).sum(0), start)), None

    sums = (
        constrain_batch(jnp.zeros(features.shape, exact)),
        constrain(jnp.zeros(table.shape, exact), None, ("tensor", "fsdp")),
        jnp.zeros(bias.shape, exact),
    )
    found, _ = jax.lax.scan(step, sums, jnp.arange(-(-table.shape[0] // chunk)))
    of_features, of_table, of_bias = (x.astype(y.dtype) for x, y in zip(found, (features, table, bias)))
    nothing = np.zeros(targets.shape, jax.dtypes.float0)  # the tangent of an integer
    return of_features, of_table, of_bias, nothing


chunked_cross_entropy.defvjp(_forward, _backward)


def _chunk_logits(features: Any, table: Any, bias: Any, chunk: int, number: Any) -> tuple[Any, Any, Any, Any]:
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


def _add_rows(total: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    old = jax.lax.dynamic_slice_in_dim(total, start, part.shape[0])
    return jax.lax.dynamic_update_slice_in_dim(total, old + part, start, 0)
