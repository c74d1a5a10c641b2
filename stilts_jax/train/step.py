"""One training step and one evaluation step: pure functions of state and batch; the caller jits them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stilts_jax.errors import ConfigError
from stilts_jax.model.dropout import row_keys
from stilts_jax.train.optimizer import wide_dtype
from stilts_jax.train.state import TrainState, replace_head, select_head
from stilts_jax.train.trees import Params

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
    freeze: Callable[[Params], Params] | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimizer step.

    The gradient is that of the summed loss, divided once by the weight of the whole batch, so it does not depend on how
    rows fall on microbatches, devices or hosts. A step whose loss or gradient is not finite changes nothing but
    ``step``; its metrics say ``skipped``.

    A loss with a ``head`` is given ``{"encoder", "head"}`` and reaches no other head. The transformation of
    ``make_optimizer`` then leaves the other heads and their moments as they are; with any other one, optax's own
    behaviour holds: their gradients are zero, and momentum or weight decay may move them.

    Args:
        state: what the last step returned, or ``init_state``.
        batch: arrays with a common leading axis [B, ...], ``B`` a multiple of ``accumulation``.
        loss_fn: see ``losses.make_loss``, or any function of that form; one without ``head`` gets all parameters.
        tx: any optax transformation; ``make_optimizer`` makes the recipe's.
        key: of the run; every row gets a key of its own, folded from it, the number of the step and of the row, so
            that what is dropped depends neither on microbatches nor on the mesh.
        accumulation: microbatches that the batch is worked off in; on a CPU two at a time.
        freeze: stops the gradients of some parameters; see ``OptimizerConfig.freeze``.

    Returns:
        The next state, and scalars: loss, grad_norm, weight, skipped, and what ``loss_fn`` reports.
    """
    keys = row_keys(jax.random.fold_in(key, state.step), len(jax.tree.leaves(batch)[0]))
    head = getattr(loss_fn, "head", None)
    params = state.params if head is None else select_head(state.params, head)

    def summed_loss(params: Params, batch: Arrays, keys: Any) -> tuple[jax.Array, tuple]:
        loss, weight, report = loss_fn(freeze(params) if freeze else params, batch, keys)
        return loss, (weight, report)

    gradients, loss, weight, report = _accumulate(summed_loss, loss_fn, params, batch, keys, accumulation)
    divisor = jnp.where(weight > 0, weight, 1)
    gradients = jax.tree.map(lambda g: g / divisor.astype(g.dtype), gradients)
    norm = optax.global_norm(gradients)
    if head is not None:  # the other heads have no gradient
        gradients = replace_head(jax.tree.map(jnp.zeros_like, state.params), head, gradients)
    updates, moments = optax.with_extra_args_support(tx).update(
        gradients, state.moments, state.params, step=state.step, head=head
    )
    moved = optax.apply_updates(state.params, updates)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    moved, moments = jax.tree.map(partial(jnp.where, finite), (moved, moments), (state.params, state.moments))
    metrics = {
        **{name: total / divisor for name, total in report.items()},
        "loss": loss / divisor,
        "grad_norm": norm,
        "weight": weight,
        "skipped": ~finite,
    }
    return TrainState(step=state.step + 1, params=moved, moments=moments), metrics


def eval_step(params: Params, batch: Arrays, *, loss_fn: LossFn) -> dict[str, jax.Array]:
    """Returns the sums of loss, weight and reports over a batch, without dropout.

    Args:
        params: ``{"encoder", "head"}``.
    """
    loss, weight, report = loss_fn(params, batch, None)
    return {**report, "loss": loss, "weight": weight}


def _accumulate(
    summed_loss: Callable, loss_fn: LossFn, trained: Params, batch: Arrays, keys: Any, accumulation: int
) -> tuple[Params, jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns gradients, loss, weight and reports, summed over the batch."""
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
    size = len(jax.tree.leaves(batch)[0])
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
