"""AdamW over the parts of the parameters that a batch works on."""

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stilts_jax.errors import ConfigError
from stilts_jax.train.trees import Params, map_with_path, prune

EMBEDDINGS = "encoder/embeddings/"
LAYERS = "encoder/layers/"


@dataclass(frozen=True)
class OptimizerConfig:
    """The options of AdamW and of its learning rate schedule.

    Attributes:
        total_steps: where the schedule ends.
        warmup: a share of all steps if below 1, else a number of steps.
        schedule: how the rate falls to zero after the warm-up: linearly or as a half cosine; or constant.
        clip_norm: limit of the gradient's norm over encoder and active head together; 0: no limit.
        layer_decay: the learning rate of a layer divided by that of the layer above it; heads have the full rate.
        freeze_embeddings: all embeddings (and their norm) stay as they are, and have no moments.
        freeze_layers: how many of the lowest layers stay as they are.
        moment_dtype: of the first moment. The second one always has float32: its decay of 0.999 would be lost
            in bfloat16's rounding, so that it could only grow.
    """

    learning_rate: float
    total_steps: int
    warmup: float = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 1.0
    layer_decay: float = 1.0
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    moment_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if not 1 <= self.total_steps < 2**31:
            raise ConfigError(
                f"total_steps must be at least 1 and below 2**31, got {self.total_steps}.",
                where="OptimizerConfig.total_steps",
                fix="change train.epochs, or set train.max_steps",
            )
        if not 0 <= self.warmup < 2**31:
            raise ConfigError(
                f"warmup must be a share below 1 or a number of steps, got {self.warmup:g}.",
                where="OptimizerConfig.warmup",
                fix="set train.warmup=0.1 for a tenth of the steps",
            )
        for name, known in (
            ("schedule", ("linear", "cosine", "constant")),
            ("moment_dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is not possible.",
                    where=f"OptimizerConfig.{name}",
                    fix=f"take one of {', '.join(known)}",
                )

    @property
    def warmup_steps(self) -> int:
        """Steps until the full learning rate is reached."""
        return math.ceil(self.total_steps * self.warmup) if self.warmup < 1 else int(self.warmup)


def learning_rate_at(config: OptimizerConfig, step: Any, numeric: ModuleType = jnp) -> Any:
    """Returns the learning rate of ``step`` (0-based: the first step of a warm-up has rate 0, as in PyTorch).

    Args:
        step: a number or an array of numbers.
        numeric: ``jax.numpy`` inside a step, ``numpy`` for float64 on the host.
    """
    step = numeric.asarray(step, float)
    ramp = step / max(1, config.warmup_steps)
    done = (step - config.warmup_steps) / max(1, config.total_steps - config.warmup_steps)
    done = numeric.clip(done, 0.0, 1.0)
    after = {
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + numeric.cos(math.pi * done)),
        "constant": numeric.ones_like(done),
    }[config.schedule]
    return config.learning_rate * numeric.where(step < config.warmup_steps, ramp, after)


def is_decayed(path: str) -> bool:
    """Says whether weight decay applies: to no bias, no norm, and not to a dual encoder's scale."""
    *folders, name = path.split("/")
    in_norm = any(folder.endswith("norm") for folder in folders)
    return not (in_norm or name in ("bias", "logit_scale"))


@dataclass(frozen=True)
class Optimizer:
    """AdamW by parts: the encoder and the active head, clipped together, each with moments of its own.

    Adam itself is optax's. The rest is written out because its pieces depend on paths: what decays, what is
    frozen, which rate a layer has.
    """

    config: OptimizerConfig

    def __post_init__(self) -> None:
        if not isinstance(self.config, OptimizerConfig):
            raise ConfigError(
                f"Optimizer({self.config!r}) is not possible.",
                where="Optimizer",
                fix="write Optimizer(OptimizerConfig(learning_rate=..., total_steps=...))",
            )

    def is_trained(self, path: str) -> bool:
        """Says whether the parameter at ``path`` (such as ``encoder/embeddings/word``) moves at all."""
        return not (self.config.freeze_embeddings and path.startswith(EMBEDDINGS))

    def split(self, active: Params) -> tuple[Params, Params]:
        """Splits ``{"encoder", "head"}`` into what is trained and what is not; ``trees.merge`` undoes it."""
        return prune(active, self.is_trained), prune(active, lambda path: not self.is_trained(path))

    def init(self, params: Params) -> Params:
        """Returns the moments of ``{"encoder": E, "heads": {name: H}}``."""
        heads = {name: self._init_part(head, "head/") for name, head in params["heads"].items()}
        return {"encoder": self._init_part(params["encoder"], "encoder/"), "heads": heads}

    def update(
        self, gradients: Params, moments: Params, trained: Params, step: jax.Array
    ) -> tuple[Params, Params, jax.Array, jax.Array]:
        """Takes one step.

        Args:
            gradients: of ``trained``.
            moments: of the same parts, ``{"encoder", "head"}``.
            trained: the parameters, from ``split``.
            step: of the whole run; every part follows the schedule by it, whenever a head was last used.

        Returns:
            Parameters, moments, the gradient's norm before clipping, the learning rate.
        """
        config = self.config
        num_layers = count_layers(trained)
        if config.freeze_layers:
            mask = self._unfrozen(num_layers)
            gradients = map_with_path(
                lambda path, g: g * _spread(mask, g) if path.startswith(LAYERS) else g, gradients
            )
        norm = optax.global_norm(gradients)
        if config.clip_norm:
            gradients = jax.tree.map(
                lambda g: g * (config.clip_norm / jnp.maximum(norm, config.clip_norm)), gradients
            )
        mu_dtype = jnp.bfloat16 if config.moment_dtype == "bfloat16" else None
        adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon, mu_dtype=mu_dtype)
        directions, new_moments = {}, {}
        for part, old in moments.items():
            # A part without parameters (a head that only pools, a frozen encoder) has no gradients either.
            directions[part], new = adam.update(gradients.get(part, {}), optax.ScaleByAdamState(**old))
            new_moments[part] = new._asdict()
        rate = learning_rate_at(config, step)

        def move(path: str, value: jax.Array, direction: jax.Array) -> jax.Array:
            wide = value.astype(direction.dtype)
            if config.weight_decay and is_decayed(path):
                direction = direction + config.weight_decay * wide
            scale = _spread(self.rate_scale(path, num_layers), direction)
            return (wide - rate * scale * direction).astype(value.dtype)

        moved = map_with_path(move, trained, {part: directions[part] for part in trained})
        return moved, new_moments, norm, rate

    def rate_scale(self, path: str, num_layers: int) -> float | np.ndarray:
        """Returns what the learning rate is multiplied by at ``path``; [L] for stacked layers."""
        decay = self.config.layer_decay
        if path.startswith(EMBEDDINGS):
            return 0.0 if self.config.freeze_embeddings else decay ** (num_layers + 1)
        if not path.startswith(LAYERS) or (decay == 1.0 and not self.config.freeze_layers):
            return 1.0
        return decay ** np.arange(num_layers, 0, -1).astype(float) * self._unfrozen(num_layers)

    def untouched_factor(
        self, path: str, num_layers: int, steps: int, skipped: tuple[int, ...] = ()
    ) -> float:
        """Returns what ``steps`` steps make of a value at ``path`` (of the embeddings) that never has a
        gradient.

        Adam's direction is zero there, so weight decay alone is left: a product of ``1 - rate * decay``.

        Args:
            skipped: steps that were left out because their loss was not finite.
        """
        if not is_decayed(path):
            return 1.0
        rates = learning_rate_at(self.config, np.setdiff1d(np.arange(steps), skipped), np)
        return float(np.prod(1.0 - rates * self.rate_scale(path, num_layers) * self.config.weight_decay))

    def _unfrozen(self, num_layers: int) -> np.ndarray:
        if self.config.freeze_layers > num_layers:
            raise ConfigError(
                f"{self.config.freeze_layers} layers can't be frozen.",
                where="OptimizerConfig.freeze_layers",
                fix=f"the encoder has {num_layers}",
            )
        return (np.arange(num_layers) >= self.config.freeze_layers).astype(float)

    def _init_part(self, part: Params, prefix: str) -> Params:
        trained = prune(part, self.is_trained, prefix)
        low = self.config.moment_dtype == "bfloat16"
        return {
            "count": jnp.zeros([], jnp.int32),
            "mu": jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.bfloat16 if low else wide_dtype(p)), trained),
            "nu": jax.tree.map(lambda p: jnp.zeros(p.shape, wide_dtype(p)), trained),
        }


def make_optimizer(config: OptimizerConfig) -> Optimizer:
    """Returns the optimizer that ``config`` describes."""
    return Optimizer(config)


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
