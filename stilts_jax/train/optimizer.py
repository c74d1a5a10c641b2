"""The recipe's optimizer as an optax transformation: AdamW by parts, with warm-up, clipping, layer rates, freezing."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stilts_jax.checked import Range
from stilts_jax.errors import ConfigError
from stilts_jax.model.layers import wide_dtype
from stilts_jax.settings import HEAD_RATE, POSITIVE, SHARE, WARMUP, OptimizerSettings
from stilts_jax.sharding import map_with_path

Params = Any  # nested dicts of arrays
BETA = Range(0.0, 0.9999999)  # at 1 Adam would divide by zero
_EMBEDDINGS, _LAYERS, _HEADS = "encoder/embeddings/", "encoder/layers/", "heads/"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(OptimizerSettings):
    """The options of AdamW and of its learning rate schedule.

    >>> import stilts_jax as sj
    >>> sj.OptimizerConfig(learning_rate=2e-5, total_steps=1000, warmup=0.1).warmup_steps
    100
    """

    learning_rate: Annotated[float, SHARE]
    total_steps: int  # where the schedule ends
    warmup: Annotated[float, WARMUP] = 0.1  # a share of all steps if below 1, else a number of steps
    weight_decay: Annotated[float, SHARE] = 0.01
    # Learning rate of the heads, whose parameters are new, over that of the encoder.
    head_rate: Annotated[float, HEAD_RATE] = 1.0
    beta1: Annotated[float, BETA] = 0.9
    beta2: Annotated[float, BETA] = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not POSITIVE.has(self.total_steps):
            what = f"total_steps must be a whole number from 1, below 2**31, got {self.total_steps}."
            fix = "change train.epochs, or set train.max_steps"
            raise ConfigError(what, where="OptimizerConfig.total_steps", fix=fix)

    @property
    def warmup_steps(self) -> int:
        """Steps until the full learning rate is reached."""
        return math.ceil(self.total_steps * self.warmup) if self.warmup < 1 else int(self.warmup)

    @property
    def schedule_numbers(self) -> np.ndarray:
        """What a schedule of this kind depends on, float [3]: the full rate, the steps of its rise and of its fall."""
        rise = self.warmup_steps
        return np.array([self.learning_rate, rise, max(1, self.total_steps - rise)], float)

    def rates(self, numbers: Any = None) -> optax.Schedule:
        """Returns the learning rate by step: the first step of a warm-up has rate 0, as in PyTorch.

        ``numbers`` stand in for this config's own. Where a program gets them as an argument, runs of other rates and
        lengths share it.
        """
        rate, rise, fall = self.schedule_numbers.tolist() if numbers is None else numbers
        share = {
            "linear": optax.linear_schedule(1.0, 0.0, 1),
            "cosine": optax.cosine_decay_schedule(1.0, 1),
            "constant": optax.constant_schedule(1.0),
        }[self.schedule]

        def at(step: Any) -> jax.Array:
            step = jnp.asarray(step, float)  # an int32 would be divided in float32, whatever x64 says
            return rate * jnp.where(step < rise, step / jnp.maximum(rise, 1), share((step - rise) / fall))

        return at

    def freeze(self, tree: Params, change: Callable[[Any], Any] = jax.lax.stop_gradient) -> Params:
        """Returns a tree of parameters, or of their form, with ``change`` done to what is frozen."""
        if not (self.freeze_embeddings or self.freeze_layers):
            return tree
        layers = count_layers(tree)
        what, fix = f"{self.freeze_layers} layers can't be frozen.", f"the encoder has {layers}"
        self.refuse(self.freeze_layers > layers, what, "freeze_layers", fix)

        def stop(path: str, value: jax.Array) -> jax.Array:
            still = np.equal(self.rate_scale(path, layers), 0)
            if not still.any():
                return value
            return jnp.where(_spread(still, value), change(value), value) if still.ndim else change(value)

        return map_with_path(stop, tree)

    def rate_scale(self, path: str, num_layers: int) -> float | np.ndarray:
        """Returns what the learning rate is multiplied by at ``path``; [L] for stacked layers."""
        if path.startswith(_EMBEDDINGS):
            return 0.0 if self.freeze_embeddings else self.layer_decay ** (num_layers + 1)
        if path.startswith(_HEADS):
            return self.head_rate
        if not path.startswith(_LAYERS) or (self.layer_decay == 1.0 and not self.freeze_layers):
            return 1.0
        rates = self.layer_decay ** np.arange(num_layers, 0, -1).astype(float)
        return rates * (np.arange(num_layers) >= self.freeze_layers)

    def trained(self, part: Params) -> Params:
        """Returns what has moments in the parameters of the encoder or of a head."""
        frozen = "embeddings" if self.freeze_embeddings else ""
        return {name: tree for name, tree in part.items() if name != frozen}


def is_decayed(path: str) -> bool:
    """Says whether weight decay applies: to no bias, no norm, and not to a dual encoder's scale."""
    *folders, name = path.split("/")
    return name not in ("bias", "logit_scale") and not any(one.endswith("norm") for one in folders)


class Recipe(optax.GradientTransformationExtraArgs):
    """A transformation that keeps its moments itself where a step is not finite."""


def make_optimizer(config: OptimizerConfig, rates: optax.Schedule | None = None) -> Recipe:
    """Returns the recipe's optimizer for ``{"encoder": E, "heads": {name: H}}``.

    The encoder and each head have moments of their own, ``{"count", "mu", "nu"}``, so that a head without a batch stays
    exactly as it is; frozen embeddings have none. Its ``update`` takes ``step``, the number of the run's step, which
    the schedule follows (None: how often the encoder was updated), ``head``, the name of the only head that has
    gradients (None: all have), ``grad_norm`` where that is known, and ``finite``: where that is false, moments stay.
    ``rates`` is the schedule, if not the config's own.

        >>> import stilts_jax as sj
        >>> tx = sj.make_optimizer(sj.OptimizerConfig(learning_rate=2e-5, total_steps=1000, warmup=0.1))
        >>> sorted(tx._fields)
        ['init', 'update']
    """
    if not isinstance(config, OptimizerConfig):
        what = f"make_optimizer({config!r}) is not possible."
        fix = "write make_optimizer(OptimizerConfig(learning_rate=..., total_steps=...))"
        raise ConfigError(what, where="make_optimizer", fix=fix)
    low, schedule = jnp.bfloat16 if config.moment_dtype == "bfloat16" else None, rates or config.rates()

    def init_part(part: Params) -> Params:
        wide = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=wide_dtype(p)), config.trained(part))
        return optax.scale_by_adam(mu_dtype=low).init(wide)._asdict()

    def init(params: Params) -> Params:
        found = sorted(map(str, params)) if isinstance(params, Mapping) else type(params).__name__
        if found != ["encoder", "heads"]:
            what = f"The recipe's optimizer is for parameters {{'encoder', 'heads'}}, these are {found}."
            fix = "arrange them so, or give the recipe's rates to one of optax: optax.adamw(config.rates())"
            raise ConfigError(what, where="make_optimizer", fix=fix)
        if not all(isinstance(params[one], Mapping) for one in found):  # optax's masks put another node there
            fix = "give the mask a label for each array"
            raise ConfigError("The parameters are masked by parts.", where="make_optimizer", fix=fix)
        heads = {name: init_part(head) for name, head in params["heads"].items()}
        return {"encoder": init_part(params["encoder"]), "heads": heads}

    def update(
        gradients: Params,
        moments: Params,
        params: Params,
        *,
        step: Any = None,
        head: Any = None,
        finite: Any = True,
        grad_norm: Any = None,
        **_: Any,
    ) -> tuple[Params, Params]:
        gradients = config.freeze(gradients, jnp.zeros_like)
        if config.clip_norm:
            gradients = _clip(config, gradients, grad_norm)
        rate = schedule(moments["encoder"]["count"] if step is None else step)
        part = partial(_update_part, config, finite, rate, count_layers(params))
        trees, new = (gradients, moments, params), dict(moments["heads"])
        updates = jax.tree.map(jnp.zeros_like, gradients["heads"])
        encoder, encoder_moments = part("encoder/", *(tree["encoder"] for tree in trees))
        for name in new if head is None else [head]:
            updates[name], new[name] = part(_HEADS, *(tree["heads"][name] for tree in trees))
        return {"encoder": encoder, "heads": updates}, {"encoder": encoder_moments, "heads": new}

    return Recipe(init, update)


def _clip(config: OptimizerConfig, gradients: Params, grad_norm: Any) -> Params:
    """Scales gradients down to the norm that is allowed; what is frozen does not count."""
    known = grad_norm is not None and not (config.freeze_embeddings or config.freeze_layers)
    norm = grad_norm if known else optax.global_norm(gradients)
    # A factor is applied where a gradient is read; what optax's clip divides XLA writes to memory first.
    scale = jnp.where(norm < config.clip_norm, 1.0, config.clip_norm / norm)
    return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), gradients)


def _update_part(
    config: OptimizerConfig, finite: Any, rate: Any, layers: int, prefix: str, *trees: Any
) -> tuple[Params, Params]:
    """AdamW as in optax, but for where it keeps moments: directions follow from what is kept.

    So XLA computes new moments in the place of the old, which no later operation reads. Kept outside, each would be
    copied, and its new value computed twice: a step's optimizer would take three times as long.
    """
    gradients, moments, params = trees
    trained, count = config.trained(gradients), optax.safe_increment(moments["count"])
    new = {
        "mu": optax.tree.update_moment(trained, moments["mu"], config.beta1, 1),
        "nu": optax.tree.update_moment_per_elem_norm(trained, moments["nu"], config.beta2, 2),
        "count": count,
    }
    new = jax.tree.map(partial(jnp.where, finite), new, moments)
    centred = optax.tree.bias_correction(new["mu"], config.beta1, count)
    squared = optax.tree.bias_correction(new["nu"], config.beta2, count)

    def move(path: str, mean: jax.Array, square: jax.Array, value: jax.Array) -> jax.Array:
        direction = mean / (jnp.sqrt(square) + config.epsilon)
        if config.weight_decay and is_decayed(path):
            direction = direction + config.weight_decay * value.astype(direction.dtype)
        return -(rate * _spread(config.rate_scale(prefix + path, layers), direction) * direction)

    moved = map_with_path(move, centred, squared, config.trained(params))
    new["mu"] = jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), new["mu"], moments["mu"])
    return jax.tree.map(jnp.zeros_like, gradients) | moved, new


def count_layers(params: Params) -> int:
    """Returns the number of stacked layers in ``{"encoder": ...}``; 0 for an encoder of another build."""
    layers = jax.tree.leaves(params.get("encoder", {}).get("layers", {}))
    return layers[0].shape[0] if layers else 0


def _spread(scale: float | np.ndarray, leaf: jax.Array) -> Any:
    """Gives a vector over layers the rank of a stacked leaf [L, ...]; leaves a plain number alone."""
    if not isinstance(scale, np.ndarray):
        return scale
    return jnp.asarray(scale, leaf.dtype).reshape((-1,) + (1,) * (leaf.ndim - 1))
