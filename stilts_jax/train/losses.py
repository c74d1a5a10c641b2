"""One loss a kind of task: outputs and batch -> (sum of losses, sum of weights, sums to report).

In float32 at least. Nothing is averaged here: the step divides once by the weight of the whole batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stilts_jax.model import Model, apply_model, chunked_cross_entropy
from stilts_jax.model.dense import wide_dtype
from stilts_jax.train.checks import complete_batch
from stilts_jax.train.optimizer import Params

Arrays = Mapping[str, jax.Array]
Sums = tuple[jax.Array, jax.Array, dict[str, jax.Array]]


def class_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """Softmax cross-entropy over classes or choices: ``logits`` [B, C], ``label`` [B] (-1: not scored).

    With ``votes`` [B, N], labels that people gave (-1: none), binary cross-entropies of all classes, whose targets are
    VQA's accuracies, ``min(votes / 3, 1)``.
    """
    if "votes" in batch:
        logits = outputs["logits"].astype(wide_dtype(outputs["logits"]))
        counts = jax.nn.one_hot(batch["votes"], logits.shape[-1], dtype=logits.dtype).sum(1)
        targets = jnp.minimum(counts / 3, 1)
        losses = optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)
        best = jnp.take_along_axis(targets, logits.argmax(-1, keepdims=True), axis=-1)[:, 0]
        weight = batch["weight"].astype(jnp.float32)
        return _weigh(losses, weight), weight.sum(), {"accuracy": _weigh(best, weight)}
    return _scored(outputs["logits"], batch["label"], batch["weight"])


def tag_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """The same for every tagged position: ``logits`` [B, T, C], ``tags`` [B, T]; words count alike."""
    return _scored(outputs["logits"], batch["tags"], batch["weight"][:, None])


def span_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """The mean of two cross-entropies over positions, for start and end; out of range is not scored."""
    start_logits, end_logits = outputs["start_logits"], outputs["end_logits"]
    start, end = batch["start"], batch["end"]
    length = start_logits.shape[-1]
    inside = (start >= 0) & (start < length) & (end >= 0) & (end < length)
    weight = jnp.where(inside, batch["weight"].astype(jnp.float32), 0.0)
    start, end = jnp.where(inside, start, 0), jnp.where(inside, end, 0)
    losses = 0.5 * (_cross_entropy(start_logits, start) + _cross_entropy(end_logits, end))
    exact = (start_logits.argmax(-1) == start) & (end_logits.argmax(-1) == end)
    return _weigh(losses, weight), weight.sum(), {"exact": _weigh(exact, weight)}


def pair_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """In-batch softmax in one direction: row i's partner is right, the partners of all other rows are wrong.

    ``vectors`` and ``pair_vectors`` [B, D]. The negatives are the whole global batch, so the loss of a part
    of a batch is another loss: it is not to be accumulated. Partners of filler rows are no negatives.
    """
    weight = batch["weight"].astype(jnp.float32)
    vectors, pairs = (outputs[name].astype(wide_dtype(outputs[name])) for name in ("vectors", "pair_vectors"))
    logits = outputs["logit_scale"].astype(vectors.dtype) * (vectors @ pairs.T)
    logits = jnp.where(weight[None, :] > 0, logits, jnp.finfo(logits.dtype).min)
    return _scored(logits, jnp.arange(len(weight)), weight)


def masked_loss(outputs: Arrays, batch: Arrays) -> Sums:
    """Cross-entropy over the vocabulary at masked positions, without the logits of all of them at once."""
    weight = batch["masked_weights"].astype(jnp.float32)
    losses = chunked_cross_entropy(
        outputs["features"], outputs["table"], outputs["bias"], batch["masked_targets"]
    )
    return _weigh(losses, weight), weight.sum(), {}


LOSSES: dict[str, Callable[[Arrays, Arrays], Sums]] = {
    "classify": class_loss,
    "choice": class_loss,
    "tag": tag_loss,
    "span": span_loss,
    "embed": pair_loss,
    "mlm": masked_loss,
}


@dataclass(frozen=True)
class Loss:
    """The loss of one head of a model: called as ``loss_fn(params, batch, key)``; see ``make_loss``."""

    model: Model
    head: str
    freeze: Callable[[Params], Params] | None = None

    @property
    def kind(self) -> str:
        """Which kind of task the head is for."""
        return self.model.head(self.head).kind

    @property
    def needs_whole_batch(self) -> bool:
        """Says that the loss of a batch is not the sum of the losses of its parts."""
        return self.kind == "embed"

    def __call__(self, params: Params, batch: Arrays, key: Any) -> Sums:
        """Returns the sums over a batch.

        Args:
            params: ``{"encoder", "head"}``.
            key: of dropout, one for each row, or one for all; None for none.
        """
        batch = complete_batch(batch, self.kind, f"batch, head {self.head!r}")
        params = self.freeze(params) if self.freeze else params
        outputs = apply_model(self.model, params, batch, head=self.head, dropout_key=key)
        if self.kind == "span":
            # A pad can't be the answer, and the loss must not depend on the length that a batch is padded to.
            real = batch["tokens"] != self.model.encoder.pad_id
            outputs = {name: jnp.where(real, x, jnp.finfo(x.dtype).min) for name, x in outputs.items()}
        return LOSSES[self.kind](outputs, batch)


def make_loss(model: Model, head: str, freeze: Callable[[Params], Params] | None = None) -> Loss:
    """Returns the ``loss_fn`` that ``train_step`` and ``eval_step`` take.

        >>> import stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="tag", num_labels=5)),))
        >>> sj.make_loss(model, "mine").head
        'mine'

    Args:
        model: what computes the outputs.
        head: its name in the model; the kind of the head decides about the loss and about what a batch holds.
        freeze: stops the gradients of some parameters; see ``OptimizerConfig.freeze``.
    """
    model.head(head)
    return Loss(model, head, freeze)


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(wide_dtype(logits)), labels)


def _weigh(values: jax.Array, weight: jax.Array) -> jax.Array:
    # `where`, as a filler row may hold an infinity, and 0 * inf is not 0.
    return jnp.where(weight > 0, values * weight, 0.0).sum()


def _scored(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> Sums:
    weight = jnp.where(labels >= 0, weight.astype(jnp.float32), 0.0)
    losses = _cross_entropy(logits, jnp.maximum(labels, 0))
    right = logits.argmax(-1) == labels
    return _weigh(losses, weight), weight.sum(), {"accuracy": _weigh(right, weight)}
