"""What a training step carries from one step to the next, made where it will live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.model import Model, init_params
from stilts_jax.sharding import RULES, Rule, place, shardings, state_shardings
from stilts_jax.train.optimizer import Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters and what the optimizer remembers of them.

    There is no random key in it: the key of a step is a function of the seed and of the step's number.

        >>> import jax, optax, stilts_jax as sj
        >>> state = sj.TrainState.create({"weights": jax.numpy.zeros(3)}, optax.adam(1e-3))
        >>> int(state.step)
        0

    Attributes:
        step: int32 [], steps taken.
        params: ``{"encoder": E, "heads": {name: H}}``, or any tree where the loss has no head.
        moments: the state of the optax transformation.
    """

    step: jax.Array
    params: Params
    moments: Any

    @classmethod
    def create(cls, params: Params, tx: optax.GradientTransformation) -> "TrainState":
        """Returns the state before the first step of any parameters."""
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
        model: what to make parameters of.
        tx: any optax transformation; ``make_optimizer`` makes the recipe's.
        key: see ``init_params``.
        encoder: parameters of a loaded encoder, or of an earlier phase. Arrays that are where they belong are taken
            over without a copy, so a step that donates the state takes them.
        heads: parameters of heads that are not to be drawn, by name.
        mesh: where the state will live.
        rules: how parameters are cut; see ``shardings``.
        zero1: whether the optimizer's state is cut over the mesh's ``data`` axis too.
    """
    given = {"encoder": encoder or {}, "heads": dict(heads or {})}
    if mesh:
        given = place(given, shardings(given, mesh, rules))
    given = jax.tree.map(jnp.asarray, given)

    def complete(key: jax.Array, given: Params) -> TrainState:
        return TrainState.create(init_params(model, key, given["encoder"] or None, given["heads"]), tx)

    def drawn(state: TrainState) -> TrainState:
        params = {
            part: {name: value for name, value in state.params[part].items() if name not in given[part]}
            for part in state.params
        }
        return TrainState(state.step, params, state.moments)

    shapes = jax.eval_shape(complete, key, given)
    places = drawn(state_shardings(shapes, mesh, rules, zero1=zero1)) if mesh else None
    made = jax.jit(lambda *arguments: drawn(complete(*arguments)), out_shardings=places)(key, given)
    params = {
        part: {name: made.params[part].get(name, given[part].get(name)) for name in shapes.params[part]}
        for part in shapes.params
    }
    return TrainState(made.step, params, made.moments)


def select_head(parts: Params, head: str) -> Params:
    """Returns ``{"encoder": ..., "head": ...}``, the part of parameters that a batch works on."""
    if head not in parts["heads"]:
        raise ConfigError(f"There is no head {head!r}.", where="heads", fix=nearest(head, parts["heads"]))
    return {"encoder": parts["encoder"], "head": parts["heads"][head]}


def replace_head(parts: Params, head: str, active: Params) -> Params:
    """Puts ``{"encoder": ..., "head": ...}`` back in its place."""
    return {"encoder": active["encoder"], "heads": {**parts["heads"], head: active["head"]}}
