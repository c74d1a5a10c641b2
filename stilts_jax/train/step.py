"""One training step and one evaluation step: pure functions of state and batch; the caller jits them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from stilts_jax.errors import ConfigError
from stilts_jax.train.optimizer import Optimizer, wide_dtype
from stilts_jax.train.state import TrainState, replace_head, select_head
from stilts_jax.train.trees import Params, merge

Arrays = Mapping[str, jax.Array]
# loss_fn({"encoder", "head"}, batch, dropout key or None) -> (sum of losses, sum of weights, sums to report)
LossFn = Callable[[Params, Arrays, Any], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]


def train_step(
    state: TrainState,
    batch: Arrays,
    *,
    loss_fn: LossFn,
    optimizer: Optimizer,
    head: str,
    seed: Any,
    accumulation: int = 1,
    rng: str = "threefry2x32",
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimizer step.

    The gradient is that of the summed loss, divided once by the weight of the whole batch, so it does not
    depend on how rows fall on microbatches, devices or hosts. A step whose loss or gradient is not finite
    changes nothing but ``step``; its metrics say ``skipped``.

    Args:
        batch: arrays with a common leading axis [B, ...], ``B`` a multiple of ``accumulation``.
        loss_fn: see ``losses.make_loss``, or any function of that form.
        head: which head of ``state.params["heads"]`` the batch is for.
        seed: of dropout; a number, or a scalar array so that runs of other seeds share a compiled step.
        accumulation: microbatches that the batch is worked off in; on a CPU two at a time.
        rng: implementation of the random keys.

    Returns:
        The next state, and scalars: loss, grad_norm, weight, learning_rate, skipped, and what ``loss_fn``
        reports.
    """
    key = jax.random.fold_in(jax.random.key(seed, impl=rng), state.step)
    params, moments = (select_head(parts, head) for parts in (state.params, state.moments))
    trained, frozen = optimizer.split(params)

    def summed_loss(trained: Params, batch: Arrays, key: Any) -> tuple[jax.Array, tuple]:
        loss, weight, report = loss_fn(merge(trained, frozen), batch, key)
        return loss, (weight, report)

    gradients, loss, weight, report = _accumulate(summed_loss, loss_fn, trained, batch, key, accumulation)
    divisor = jnp.where(weight > 0, weight, 1)
    gradients = jax.tree.map(lambda g: g / divisor.astype(g.dtype), gradients)
    moved, new_moments, norm, rate = optimizer.update(gradients, moments, trained, state.step)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    moved, new_moments = jax.tree.map(partial(jnp.where, finite), (moved, new_moments), (trained, moments))
    next_state = TrainState(
        step=state.step + 1,
        params=replace_head(state.params, head, merge(moved, frozen)),
        moments=replace_head(state.moments, head, new_moments),
    )
    metrics = {
        **{name: total / divisor for name, total in report.items()},
        "loss": loss / divisor,
        "grad_norm": norm,
        "weight": weight,
        "learning_rate": rate,
        "skipped": ~finite,
    }
    return next_state, metrics


def eval_step(params: Params, batch: Arrays, *, loss_fn: LossFn) -> dict[str, jax.Array]:
    """Returns the sums of loss, weight and reports over a batch, without dropout.

    Args:
        params: ``{"encoder", "head"}``.
    """
    loss, weight, report = loss_fn(params, batch, None)
    return {**report, "loss": loss, "weight": weight}


def _accumulate(
    summed_loss: Callable, loss_fn: LossFn, trained: Params, batch: Arrays, key: Any, accumulation: int
) -> tuple[Params, jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns gradients, loss, weight and reports, summed over the batch."""
    gradient = jax.value_and_grad(summed_loss, has_aux=True)

    def one(batch: Arrays, key: Any) -> tuple:
        (loss, (weight, report)), gradients = gradient(trained, batch, key)
        gradients = jax.tree.map(lambda g: g.astype(wide_dtype(g)), gradients)
        return gradients, loss, weight, report

    if accumulation == 1:
        return one(batch, jax.random.fold_in(key, 0))
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
        lambda x: x.reshape(size // accumulation, accumulation, *x.shape[1:]).swapaxes(0, 1), batch
    )

    def body(sums: tuple, item: tuple) -> tuple[tuple, None]:
        number, microbatch = item
        return jax.tree.map(jnp.add, sums, one(microbatch, jax.random.fold_in(key, number))), None

    first = jax.tree.map(lambda x: x[0], microbatches)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(one, first, key))
    items = (jnp.arange(accumulation), microbatches)
    return jax.lax.platform_dependent(
        # A CPU's cores wait for each other at the end of every operation: two microbatches fill each other's gaps.
        cpu=lambda: jax.lax.scan(body, zeros, items, unroll=2)[0],
        default=lambda: jax.lax.scan(body, zeros, items)[0],
    )
