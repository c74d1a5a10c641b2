"""One training step and one evaluation step: pure functions of state and batch; the caller jits them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stilts_jax.errors import ConfigError, TrainingError
from stilts_jax.model.dense import wide_dtype
from stilts_jax.model.dropout import row_keys
from stilts_jax.sharding import cut_by_compiler
from stilts_jax.train.optimizer import Params
from stilts_jax.train.state import TrainState, replace_head, select_head

Arrays = Mapping[str, jax.Array]
# loss_fn({"encoder", "head"}, batch, dropout keys [B] or None) -> (sum of losses, sum of weights, sums to report)
LossFn = Callable[[Params, Arrays, Any], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]


def train_step(
    state: TrainState,
    batch: Arrays,
    *,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    key: jax.Array,
    accumulation: int = 1,
    skip_non_finite: bool = False,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimizer step.

    The gradient is that of the summed loss, divided once by the weight of the whole batch, so it does not depend on how
    rows fall on microbatches, devices or hosts.

    A loss with a ``head`` is given ``{"encoder", "head"}`` and reaches no other head. The transformation of
    ``make_optimizer`` then leaves the other heads and their moments as they are; with any other one, optax's own
    behaviour holds: their gradients are zero, and momentum or weight decay may move them.

        >>> import jax, numpy as np, optax, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> tx, key = optax.adamw(1e-3), jax.random.key(0)
        >>> batch = {"tokens": np.full((4, 8), 5), "label": np.array([0, 1, 0, 1])}
        >>> state = sj.init_state(model, tx, key)
        >>> state, metrics = sj.train_step(state, batch, loss_fn=sj.make_loss(model, "mine"), tx=tx, key=key)
        >>> int(state.step), float(metrics["weight"])
        (1, 4.0)

    Args:
        state: what the last step returned, or ``init_state``.
        batch: arrays with a common leading axis [B, ...], ``B`` a multiple of ``accumulation``.
        loss_fn: see ``losses.make_loss``, or any function of that form; one without ``head`` gets all parameters.
        tx: any optax transformation; ``make_optimizer`` makes the recipe's.
        key: of the run; every row gets a key of its own, folded from it, the number of the step and of the row, so
            that what is dropped depends neither on microbatches nor on the mesh.
        accumulation: microbatches that the batch is worked off in; on a CPU two at a time.
        skip_non_finite: whether a step whose loss or gradient is not finite changes nothing but ``step``; the metrics
            then say ``skipped``.

    Returns:
        The next state, and scalars: loss, grad_norm, weight, and what ``loss_fn`` reports.
    """
    take = partial(_take_step, loss_fn, tx, accumulation, skip_non_finite)
    return cut_by_compiler(take, state, batch, key, keep=True)


def _take_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    accumulation: int,
    skip_non_finite: bool,
    state: TrainState,
    batch: Arrays,
    key: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
    keys = row_keys(jax.random.fold_in(key, state.step), _count_rows(batch))
    head = getattr(loss_fn, "head", None)
    params = state.params if head is None else select_head(state.params, head)
    gradients, loss, weight, report = _accumulate(loss_fn, params, batch, keys, accumulation)
    divisor = jnp.where(weight > 0, weight, 1)
    gradients = jax.tree.map(lambda g: g / divisor.astype(g.dtype), gradients)
    norm = optax.global_norm(gradients)
    if head is not None:  # the other heads have no gradient
        gradients = replace_head(jax.tree.map(jnp.zeros_like, state.params), head, gradients)
    updates, moments = optax.with_extra_args_support(tx).update(
        gradients, state.moments, state.params, step=state.step, head=head
    )
    moved = optax.apply_updates(state.params, updates)
    metrics = {
        **{name: total / divisor for name, total in report.items()},
        "loss": loss / divisor,
        "grad_norm": norm,
        "weight": weight,
    }
    if skip_non_finite:
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        kept = partial(jnp.where, finite)
        moved, moments = jax.tree.map(kept, (moved, moments), (state.params, state.moments))
        metrics["skipped"] = ~finite
    return TrainState(step=state.step + 1, params=moved, moments=moments), metrics


def eval_step(params: Params, batch: Arrays, *, loss_fn: LossFn) -> dict[str, jax.Array]:
    """Returns the sums of loss, weight and reports over a batch, without dropout.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> part = {"encoder": params["encoder"], "head": params["heads"]["mine"]}
        >>> batch = {"tokens": np.full((4, 8), 5), "label": np.zeros(4, int), "weight": np.array([1, 1, 1, 0])}
        >>> sums = sj.eval_step(part, batch, loss_fn=sj.make_loss(model, "mine"))
        >>> float(sums["weight"])
        3.0

    Args:
        params: ``{"encoder", "head"}`` of a loss with a head, else all.
    """

    def evaluate(params: Params, batch: Arrays) -> dict[str, jax.Array]:
        loss, weight, report = loss_fn(params, batch, None)
        return {**report, "loss": loss, "weight": weight}

    return cut_by_compiler(evaluate, params, batch, keep=False)


def _count_rows(batch: Arrays) -> int:
    rows = {name: jnp.shape(array)[:1] for name, array in batch.items()}
    if len(set(rows.values())) != 1 or () in rows.values():
        shapes = ", ".join(f"{name} {jnp.shape(array)}" for name, array in batch.items()) or "nothing"
        raise TrainingError(
            f"The entries of the batch do not have the same number of rows: {shapes}.",
            where="batch",
            fix="every array of a batch has the rows as its first axis",
        )
    return next(iter(rows.values()))[0]


def _accumulate(
    loss_fn: LossFn, trained: Params, batch: Arrays, keys: Any, accumulation: int
) -> tuple[Params, jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns gradients, loss, weight and reports, summed over the batch."""

    def summed_loss(params: Params, batch: Arrays, keys: Any) -> tuple[jax.Array, tuple]:
        loss, weight, report = loss_fn(params, batch, keys)
        return loss, (weight, report)

    gradient = jax.value_and_grad(summed_loss, has_aux=True)

    def widen(found: tuple) -> tuple:
        (loss, (weight, report)), gradients = found
        return jax.tree.map(lambda g: g.astype(wide_dtype(g)), gradients), loss, weight, report

    if accumulation == 1:
        return widen(gradient(trained, batch, keys))
    if getattr(loss_fn, "needs_whole_batch", False):
        raise ConfigError(
            "A loss with in-batch negatives can't be accumulated: every row's negatives are the whole batch.",
            where=f"accumulation={accumulation}",
            fix="set accumulation to 1; rematerialisation saves memory too",
        )
    size = len(keys)
    if size % accumulation:
        raise ConfigError(
            f"A batch of {size} rows does not fall into {accumulation} equal microbatches.",
            where=f"accumulation={accumulation}",
            fix="take a divisor of the batch size, or fill up with rows of weight 0",
        )
    # Microbatch i takes rows i, i + n, i + 2n, ...: rows that lie on all devices, so nothing has to move.
    microbatches = jax.tree.map(
        lambda x: x.reshape(size // accumulation, accumulation, *x.shape[1:]).swapaxes(0, 1), (batch, keys)
    )

    def body(sums: tuple, item: tuple) -> tuple[tuple, None]:
        return jax.tree.map(jnp.add, sums, widen(gradient(trained, *item))), None

    first = jax.tree.map(lambda x: x[0], microbatches)
    shapes = jax.eval_shape(lambda *item: widen(gradient(trained, *item)), *first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.platform_dependent(
        # A CPU's cores wait for each other at the end of every operation: two microbatches fill each other's gaps.
        cpu=lambda: jax.lax.scan(body, zeros, microbatches, unroll=2)[0],
        default=lambda: jax.lax.scan(body, zeros, microbatches)[0],
    )
