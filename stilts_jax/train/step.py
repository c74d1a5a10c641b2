"""A training state, one training step and one evaluation step: pure functions of state and batch; the caller jits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from stilts_jax.chips import compiler_options
from stilts_jax.errors import ConfigError, TrainingError
from stilts_jax.model import Model, init_params
from stilts_jax.model.encoder import check_encoder
from stilts_jax.model.heads import select_head
from stilts_jax.model.layers import row_keys, typed_key, widen
from stilts_jax.sharding import RULES, Rule, cut_by_compiler, place, shardings, state_shardings
from stilts_jax.train.optimizer import Params, Recipe

Arrays = Mapping[str, jax.Array]
Sums = tuple[jax.Array, jax.Array, dict[str, jax.Array]]
# loss_fn({"encoder", "head"}, batch, dropout keys [B] or None) -> (sum of losses, sum of weights, sums to report)
LossFn = Callable[[Params, Arrays, Any], Sums]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters and what the optimizer remembers of them.

    There is no random key in it: the key of a step is a function of the seed and of the step's number.

        >>> import jax, optax, stilts_jax as sj
        >>> state = sj.TrainState.create({"weights": jax.numpy.zeros(3)}, optax.adam(1e-3))
        >>> int(state.step)
        0
    """

    step: jax.Array  # int32 [], steps taken
    params: Params  # {"encoder": E, "heads": {name: H}}, or any tree where the loss has no head
    moments: Any  # the state of the optax transformation

    @classmethod
    def create(cls, params: Params, tx: optax.GradientTransformation) -> "TrainState":
        """Returns the state before the first step of any parameters."""
        if not callable(getattr(tx, "init", None)):
            fix = "give optax.adamw(1e-5), or make_optimizer(OptimizerConfig(...))"
            raise ConfigError(f"{tx!r} is no optax transformation.", where="tx", fix=fix)
        return cls(step=jnp.zeros([], jnp.int32), params=params, moments=tx.init(params))


def init_state(
    model: Model,
    tx: optax.GradientTransformation,
    key: jax.Array,
    *,
    encoder: Params | None = None,
    heads: Mapping[str, Params] | None = None,
    mesh: Mesh | None = None,
    rules: Sequence[Rule] = RULES,
    zero1: bool = False,
) -> TrainState:
    """Returns the state before the first step; with a mesh every array is born in its shards.

        >>> import jax, optax, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> state = sj.init_state(model, optax.adamw(1e-3), jax.random.key(0))
        >>> state.params["heads"]["mine"]["out"]["kernel"].shape
        (32, 2)

    Args:
        key: see ``init_params``.
        encoder: parameters of a loaded encoder, or of an earlier phase. Arrays that are where they belong are taken
            over without a copy, so a step that donates the state takes them.
        heads: parameters of heads that are not to be drawn, by name.
        rules: how parameters are cut; see ``shardings``.
        zero1: whether the optimizer's state is cut over the mesh's ``data`` axis too.
    """
    key = typed_key(key)  # refuses what is none
    if encoder:  # with any rows: the word table may be cut to those of a phase
        check_encoder(encoder, model.encoder, any_rows=True)
    given: Params = {"encoder": encoder or {}, "heads": dict(heads or {})}
    given = jax.tree.map(jnp.asarray, place(given, shardings(given, mesh, rules)) if mesh else given)

    def complete(key: jax.Array, given: Params) -> TrainState:
        return TrainState.create(init_params(model, key, given["encoder"] or None, given["heads"]), tx)

    def leave_out(given: Params, params: Params) -> Params:
        return {name: value for name, value in params.items() if name not in given}

    def drawn(state: TrainState) -> TrainState:
        encoder, own = leave_out(given["encoder"], state.params["encoder"]), state.params["heads"].items()
        heads = {name: leave_out(given["heads"].get(name, {}), head) for name, head in own}
        return TrainState(state.step, {"encoder": encoder, "heads": heads}, state.moments)

    shapes = jax.eval_shape(complete, key, given)
    places = drawn(state_shardings(shapes, mesh, rules, zero1=zero1)) if mesh else None
    options: Any = {"out_shardings": places, "compiler_options": compiler_options()}
    made = jax.jit(lambda *arguments: drawn(complete(*arguments)), **options)(key, given)
    encoder = {**made.params["encoder"], **given["encoder"]}
    # Without what the model does not read, such as a pooler.
    encoder = {name: encoder[name] for name in shapes.params["encoder"]}
    heads = {name: {**head, **given["heads"].get(name, {})} for name, head in made.params["heads"].items()}
    return TrainState(made.step, {"encoder": encoder, "heads": heads}, made.moments)


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
    """Takes one optimizer step; returns the next state and scalars: loss, grad_norm, weight, the loss's reports.

    The gradient is that of the summed loss, divided once by the weight of the whole batch, so it does not depend on how
    rows fall on microbatches, devices or hosts. A loss with a ``head`` is given ``{"encoder", "head"}``. Other heads
    stay as they are with ``make_optimizer``; other transformations may move them by momentum or weight decay.

        >>> import jax, numpy as np, optax, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> tx, key = optax.adamw(1e-3), jax.random.key(0)
        >>> batch = {"tokens": np.full((4, 8), 5), "label": np.array([0, 1, 0, 1])}
        >>> state = sj.init_state(model, tx, key)
        >>> state, metrics = sj.train_step(state, batch, loss_fn=sj.make_loss(model, "mine"), tx=tx, key=key)
        >>> int(state.step), float(metrics["weight"])
        (1, 4.0)

    Args:
        batch: arrays with a common leading axis [B, ...], ``B`` a multiple of ``accumulation``.
        loss_fn: see ``make_loss``, or any function of that form; one without ``head`` gets all parameters.
        tx: any optax transformation, but none that evaluates the loss itself, as ``optax.lbfgs`` does.
        key: of the run; every row gets a key of its own, folded from it, the number of the step and of the row.
        accumulation: microbatches that the batch is worked off in; on a CPU two at a time.
        skip_non_finite: whether a step whose loss or gradient is not finite says ``skipped`` and changes only ``step``.
    """
    rows, head = {jnp.shape(array)[:1] for array in batch.values()}, getattr(loss_fn, "head", None)
    if len(rows) != 1 or () in rows:
        found = ", ".join(f"{name} {jnp.shape(array)}" for name, array in batch.items()) or "nothing"
        what = f"The entries of the batch do not have the same number of rows: {found}."
        raise TrainingError(what, where="batch", fix="every array of a batch has the rows as its first axis")
    (size,) = rows.pop()

    def step(state: TrainState, batch: Arrays, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        if head is not None and "heads" not in state.params:
            fix = "arrange them as init_params does: {'encoder': E, 'heads': {name: H}}"
            raise ConfigError("The state has no heads.", where=f"state.params, head {head!r}", fix=fix)
        keys = row_keys(jax.random.fold_in(typed_key(key), state.step), size)
        params = state.params if head is None else select_head(state.params, head)
        sums = _sum_gradients(loss_fn, params, batch, keys, accumulation)
        return _move(state, tx, head, skip_non_finite, sums)

    return cut_by_compiler(step, state, batch, key, keep=True)


def eval_step(params: Params, batch: Arrays, *, loss_fn: LossFn) -> dict[str, jax.Array]:
    """Returns the sums of loss, weight and reports over a batch, without dropout.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> batch = {"tokens": np.full((4, 8), 5), "label": np.zeros(4, int), "weight": np.array([1, 1, 1, 0])}
        >>> sums = sj.eval_step(params, batch, loss_fn=sj.make_loss(model, "mine"))
        >>> float(sums["weight"])
        3.0

    Args:
        params: all of them, or what a loss with a head is given: ``{"encoder", "head"}``.
    """
    head = getattr(loss_fn, "head", None)
    params = params if head is None else select_head(params, head)
    loss, weight, report = cut_by_compiler(partial(_call, loss_fn, keys=None), params, batch, keep=False)
    return {**report, "loss": loss, "weight": weight}


def _call(loss_fn: LossFn, params: Params, batch: Arrays, keys: Any) -> Sums:
    found = loss_fn(params, batch, keys)
    if not isinstance(found, tuple) or len(found) != 3:
        what = f"A loss returns three things; this one returned {found!r}."
        fix = "return losses.sum(), weights.sum(), {} with sums to report in the dict; the step divides them"
        raise TrainingError(what, where="loss_fn", fix=fix)
    return jnp.asarray(found[0]), jnp.asarray(found[1]), found[2]


def _sum_gradients(loss_fn: LossFn, params: Params, batch: Arrays, keys: Any, accumulation: int) -> tuple:
    """Returns gradients, loss, weight and reports, summed over the batch."""

    def summed_loss(params: Params, batch: Arrays, keys: Any) -> tuple[jax.Array, tuple]:
        loss, *rest = _call(loss_fn, params, batch, keys)
        return loss, tuple(rest)

    def compute(batch: Arrays, keys: Any) -> tuple:
        (loss, rest), gradients = jax.value_and_grad(summed_loss, has_aux=True)(params, batch, keys)
        return jax.tree.map(widen, gradients), loss, *rest

    if accumulation == 1:
        return compute(batch, keys)
    size, where = len(keys), f"accumulation={accumulation}"
    if getattr(loss_fn, "needs_whole_batch", False):
        what = "A loss with in-batch negatives can't be accumulated: its negatives are the whole batch."
        raise ConfigError(what, where=where, fix="set accumulation to 1; rematerialisation saves memory too")
    if accumulation < 1 or size % accumulation:
        what = f"A batch of {size} rows does not fall into {accumulation} equal microbatches."
        fix = "take a divisor of the batch size, or fill up with rows of weight 0"
        raise ConfigError(what, where=where, fix=fix)
    # Microbatch i takes rows i, i + n, i + 2n, ...: rows that lie on all devices, so nothing has to move.
    form = size // accumulation, accumulation
    microbatches = jax.tree.map(lambda x: x.reshape(*form, *x.shape[1:]).swapaxes(0, 1), (batch, keys))

    def add(sums: tuple, part: tuple) -> tuple[tuple, None]:
        return jax.tree.map(jnp.add, sums, compute(*part)), None

    compute = jax.jit(compute)  # traced once, for the shapes and for the loop
    shapes = jax.eval_shape(compute, *jax.tree.map(lambda x: x[0], microbatches))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.platform_dependent(
        # A CPU's cores wait for each other at the end of every operation: two microbatches fill each other's gaps.
        cpu=lambda: jax.lax.scan(add, zeros, microbatches, unroll=2)[0],
        default=lambda: jax.lax.scan(add, zeros, microbatches)[0],
    )


def _move(
    state: TrainState, tx: Any, head: str | None, skip_non_finite: bool, sums: tuple
) -> tuple[TrainState, dict[str, jax.Array]]:
    gradients, loss, weight, report = sums
    divisor = jnp.where(weight > 0, weight, 1)
    # Neither gradients divided, nor a norm of what is scaled: XLA would write all of it to memory once more.
    norm = optax.global_norm(gradients) / divisor
    gradients = jax.tree.map(lambda g: g * (1 / divisor.astype(g.dtype)), gradients)
    if head is not None:  # the other heads have no gradient
        heads = jax.tree.map(jnp.zeros_like, state.params["heads"]) | {head: gradients["head"]}
        gradients = {"encoder": gradients["encoder"], "heads": heads}
    metrics = {name: total / divisor for name, total in (report | {"loss": loss}).items()}
    metrics |= {"grad_norm": norm, "weight": weight}
    finite = jnp.isfinite(loss) & jnp.isfinite(norm) if skip_non_finite else True
    # What a transformation may look at: ``value`` is optax's name of the loss, the others are for the recipe's own.
    seen = {"value": metrics["loss"], "head": head, "finite": finite}
    if isinstance(tx, Recipe):  # within another one it has other gradients, and perhaps fewer updates
        seen |= {"step": state.step, "grad_norm": norm}
    update = optax.with_extra_args_support(tx).update
    try:
        updates, moments = update(gradients, state.moments, state.params, **seen)
    except TypeError as error:
        fix = "take that of init_state; optax.GradientTransformation(tx.init, tx.update) is given gradients alone; "
        fix += "one that branches may need parameters in float32"
        what = f"The optimizer does not take what a step has: {error}."
        raise ConfigError(what, where="tx", fix=fix) from error
    # Gradients are float32 or wider; moments that were made of narrower parameters stay as narrow, or the next step
    # would be another program, without room to reuse.
    moments = jax.tree.map(_keep_type, moments, state.moments)
    params = optax.apply_updates(state.params, updates)
    if skip_non_finite:
        params = jax.tree.map(partial(jnp.where, finite), params, state.params)
        if not isinstance(tx, Recipe):
            moments = jax.tree.map(partial(jnp.where, finite), moments, state.moments)
        metrics["skipped"] = ~finite
    return TrainState(step=state.step + 1, params=params, moments=moments), metrics


def _keep_type(new: jax.Array, old: jax.Array) -> jax.Array:
    """Returns an array in the type that it had; random keys, as optax's noise has one, can't be given another."""
    return new if new.dtype == old.dtype else new.astype(old.dtype)
