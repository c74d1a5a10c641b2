"""What a training step carries from one step to the next."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.train.trees import Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters and what the optimizer remembers of them.

    There is no random key in it: the key of a step is a function of the seed and of the step's number.

    Attributes:
        step: int32 [], steps taken.
        params: ``{"encoder": E, "heads": {name: H}}``.
        moments: ``{"encoder": M, "heads": {name: M}}``, where ``M = {"count", "mu", "nu"}``, and ``mu`` and
            ``nu`` repeat the paths of the parameters that are trained. Kept by part, so that a head that is
            not in the batch does not move.
    """

    step: jax.Array
    params: Params
    moments: Params


def init_state(params: Params, init_moments: Callable[[Params], Params]) -> TrainState:
    """Returns the state before the first step.

    Args:
        params: ``{"encoder": E, "heads": {name: H}}``.
        init_moments: ``init`` of any optax transformation.
    """
    return TrainState(step=jnp.zeros([], jnp.int32), params=params, moments=init_moments(params))


def abstract_state(params: Params, init_moments: Callable[[Params], Params]) -> TrainState:
    """Returns the state's shapes and dtypes without any memory; ``params`` may be abstract."""
    return jax.eval_shape(lambda values: init_state(values, init_moments), params)


def select_head(parts: Params, head: str) -> Params:
    """Returns ``{"encoder": ..., "head": ...}``, the part of parameters or moments that a batch works on."""
    if head not in parts["heads"]:
        raise ConfigError(f"There is no head {head!r}.", where="heads", fix=nearest(head, parts["heads"]))
    return {"encoder": parts["encoder"], "head": parts["heads"][head]}


def replace_head(parts: Params, head: str, active: Params) -> Params:
    """Puts ``{"encoder": ..., "head": ...}`` back in its place."""
    return {"encoder": active["encoder"], "heads": {**parts["heads"], head: active["head"]}}
