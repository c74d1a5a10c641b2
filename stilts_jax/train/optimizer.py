"""The recipe's optimizer as an optax transformation: AdamW by parts, with warm-up, clipping, layer rates, freezing."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stilts_jax.errors import ConfigError
from stilts_jax.settings import SHARE, WARMUP, OptimizerSettings
from stilts_jax.train.trees import Params, map_with_path, merge, prune

EMBEDDINGS = "encoder/embeddings/"
LAYERS = "encoder/layers/"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(OptimizerSettings):
    """The options of AdamW and of its learning rate schedule.

    Attributes:
        total_steps: where the schedule ends.
        warmup: a share of all steps if below 1, else a number of steps.
    """

    learning_rate: Annotated[float, SHARE]
    total_steps: int
    warmup: Annotated[float, WARMUP] = 0.1
    weight_decay: Annotated[float, SHARE] = 0.01
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.total_steps < 2**31:
            raise ConfigError(
                f"total_steps must be at least 1 and below 2**31, got {self.total_steps}.",
                where="OptimizerConfig.total_steps",
                fix="change train.epochs, or set train.max_steps",
            )

    @property
    def warmup_steps(self) -> int:
        """Steps until the full learning rate is reached."""
        return math.ceil(self.total_steps * self.warmup) if self.warmup < 1 else int(self.warmup)

    def rates(self) -> optax.Schedule:
        """Returns the learning rate by step: the first step of a warm-up has rate 0, as in PyTorch."""
        rise, fall = self.warmup_steps, max(1, self.total_steps - self.warmup_steps)
        after = {
            "linear": optax.linear_schedule(self.learning_rate, 0.0, fall),
            "cosine": optax.cosine_decay_schedule(self.learning_rate, fall),
            "constant": optax.constant_schedule(self.learning_rate),
        }[self.schedule]
        if rise:
            after = optax.join_schedules(
                [optax.linear_schedule(0.0, self.learning_rate, rise), after], [rise]
            )
        return lambda step: after(
            jnp.asarray(step, float)
        )  # an int32 would be divided in float32, whatever x64 says

    def frozen_whole(self, path: str) -> bool:
        """Says whether the parameter at ``path`` (such as ``encoder/embeddings/word``) stays as it is."""
        return self.freeze_embeddings and path.startswith(EMBEDDINGS)

    def frozen_layers(self, num_layers: int) -> np.ndarray:
        """Returns which of the encoder's layers stay as they are, bool [L]."""
        if self.freeze_layers > num_layers:
            raise ConfigError(
                f"{self.freeze_layers} layers can't be frozen.",
                where="OptimizerConfig.freeze_layers",
                fix=f"the encoder has {num_layers}",
            )
        return np.arange(num_layers) < self.freeze_layers

    def freeze(self, params: Params) -> Params:
        """Returns the same parameters, of which those that are frozen have no gradient."""
        num_layers = count_layers(params)

        def stop(path: str, value: jax.Array) -> jax.Array:
            if self.frozen_whole(path):
                return jax.lax.stop_gradient(value)
            if self.freeze_layers and path.startswith(LAYERS):
                frozen = _spread(self.frozen_layers(num_layers), value)
                return jnp.where(frozen, jax.lax.stop_gradient(value), value)
            return value

        return map_with_path(stop, params)

    def rate_scale(self, path: str, num_layers: int) -> float | np.ndarray:
        """Returns what the learning rate is multiplied by at ``path``; [L] for stacked layers."""
        if path.startswith(EMBEDDINGS):
            return 0.0 if self.freeze_embeddings else self.layer_decay ** (num_layers + 1)
        if not path.startswith(LAYERS) or (self.layer_decay == 1.0 and not self.freeze_layers):
            return 1.0
        rates = self.layer_decay ** np.arange(num_layers, 0, -1).astype(float)
        return rates * ~self.frozen_layers(num_layers)

    def untouched_factor(
        self, path: str, num_layers: int, steps: int, skipped: Collection[int] = ()
    ) -> float:
        """Returns what ``steps`` steps make of a value at ``path`` (of the embeddings) that never has a gradient.

        Adam's direction is zero there, so weight decay alone is left: a product of ``1 - rate * decay``.

        Args:
            path: such as ``encoder/embeddings/word``.
            num_layers: of the encoder.
            steps: that were taken.
            skipped: steps that were left out because their loss was not finite.
        """
        taken = np.setdiff1d(np.arange(steps), list(skipped))
        if not is_decayed(path) or not len(taken):
            return 1.0
        rates = np.asarray(jax.vmap(self.rates())(jnp.asarray(taken)), np.float64)
        return float(np.prod(1.0 - rates * self.rate_scale(path, num_layers) * self.weight_decay))


def is_decayed(path: str) -> bool:
    """Says whether weight decay applies: to no bias, no norm, and not to a dual encoder's scale."""
    *folders, name = path.split("/")
    in_norm = any(folder.endswith("norm") for folder in folders)
    return not (in_norm or name in ("bias", "logit_scale"))


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Returns the recipe's optimizer for ``{"encoder": E, "heads": {name: H}}``.

    The encoder and each head have moments of their own, ``{"count", "mu", "nu"}``, so that a head without a batch stays
    exactly as it is; all of them follow the schedule by the step of the whole run. What is frozen has no moments where
    it is frozen whole.

    Its ``update`` takes ``step``, the number of the run's step, and ``head``, the name of the only head that has
    gradients (None: all have).
    """
    if not isinstance(config, OptimizerConfig):
        raise ConfigError(
            f"make_optimizer({config!r}) is not possible.",
            where="make_optimizer",
            fix="write make_optimizer(OptimizerConfig(learning_rate=..., total_steps=...))",
        )
    low = config.moment_dtype == "bfloat16"
    adam = optax.scale_by_adam(
        config.beta1, config.beta2, config.epsilon, mu_dtype=jnp.bfloat16 if low else None
    )
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    schedule = config.rates()

    def trained(part: Params, prefix: str) -> Params:
        return prune(part, lambda path: not config.frozen_whole(path), prefix)

    def init_part(part: Params, prefix: str) -> Params:
        part = trained(part, prefix)
        return {
            "count": jnp.zeros([], jnp.int32),
            "mu": jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.bfloat16 if low else wide_dtype(p)), part),
            "nu": jax.tree.map(lambda p: jnp.zeros(p.shape, wide_dtype(p)), part),
        }

    def init(params: Params) -> Params:
        heads = {name: init_part(head, "heads/") for name, head in params["heads"].items()}
        return {"encoder": init_part(params["encoder"], "encoder/"), "heads": heads}

    def update_part(
        gradients: Params, moments: Params, params: Params, prefix: str, num_layers: int, rate: Any
    ) -> tuple[Params, Params]:
        directions, new = adam.update(trained(gradients, prefix), optax.ScaleByAdamState(**moments))

        def move(path: str, direction: jax.Array, value: jax.Array) -> jax.Array:
            if config.weight_decay and is_decayed(path):
                direction = direction + config.weight_decay * value.astype(direction.dtype)
            scale = _spread(config.rate_scale(prefix + path, num_layers), direction)
            return -(rate * scale * direction)

        moved = map_with_path(move, directions, trained(params, prefix))
        frozen = prune(gradients, config.frozen_whole, prefix)
        return merge(moved, jax.tree.map(jnp.zeros_like, frozen)), new._asdict()

    def update(
        gradients: Params, moments: Params, params: Params, *, step: Any, head: str | None = None, **_: Any
    ) -> tuple[Params, Params]:
        gradients, _state = clip.update(gradients, optax.EmptyState())
        num_layers, rate = count_layers(params), schedule(step)
        updates: Params = {"heads": jax.tree.map(jnp.zeros_like, gradients["heads"])}
        new: Params = {"heads": dict(moments["heads"])}
        updates["encoder"], new["encoder"] = update_part(
            gradients["encoder"], moments["encoder"], params["encoder"], "encoder/", num_layers, rate
        )
        for name in gradients["heads"] if head is None else [head]:
            updates["heads"][name], new["heads"][name] = update_part(
                gradients["heads"][name],
                moments["heads"][name],
                params["heads"][name],
                "heads/",
                num_layers,
                rate,
            )
        return updates, new

    return optax.GradientTransformationExtraArgs(init, update)


def wide_dtype(leaf: Any) -> jnp.dtype:
    """Returns the dtype in which gradients and moments of ``leaf`` are summed: at least float32."""
    return jnp.promote_types(leaf.dtype, jnp.float32)


def count_layers(params: Params) -> int:
    """Returns the number of stacked layers in ``{"encoder": ...}``; 0 for an encoder of another build."""
    layers = jax.tree.leaves(params.get("encoder", {}).get("layers", {}))
    return layers[0].shape[0] if layers else 0


def _spread(scale: float | np.ndarray, leaf: jax.Array) -> Any:
    """Gives a vector over layers the rank of a stacked leaf [L, ...]; leaves a plain number alone."""
    if not isinstance(scale, np.ndarray):
        return scale
    return jnp.asarray(scale, leaf.dtype).reshape((-1,) + (1,) * (leaf.ndim - 1))
