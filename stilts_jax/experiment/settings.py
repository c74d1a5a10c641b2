"""The frozen settings of an experiment, checked before anything is built.

``configs/base.py`` has the same names with defaults and comments; ``config.py`` turns one into the other.
"""

from collections.abc import Collection
from dataclasses import dataclass

from stilts_jax.errors import ConfigError, nearest

DEBUG_SHAPE = "tiny"  # what `:debug` puts in the encoder's place


def split_names(text: str) -> tuple[str, ...]:
    """Splits names joined by ``+``."""
    return tuple(name.strip() for name in text.split("+") if name.strip())


def split_pairs(text: str, where: str) -> dict[str, str]:
    """Reads ``a=x,b=y``."""
    pairs = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"{item!r} is not of the form name=value.", where=where, fix="write a=x,b=y")
        pairs[key.strip()] = value.strip()
    return pairs


def _one_of(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ConfigError(
            f"{name}={value!r} is not possible.", where=f"config.{name}", fix=nearest(value, known)
        )


def _in_range(name: str, value: float | None, low: float, high: float = float("inf")) -> None:
    if value is not None and not low <= value <= high:
        upper = "" if high == float("inf") else f" and at most {high:g}"
        raise ConfigError(
            f"{name}={value:g} is out of range.", where=f"config.{name}", fix=f"at least {low:g}{upper}"
        )


@dataclass(frozen=True)
class DataSettings:
    """Where examples come from."""

    source: str
    sources: str
    skip_budget: int
    cache: str
    limit: int

    def __post_init__(self) -> None:
        _one_of("data.source", self.source, ("files", "hub", "tfds"))
        for task, kind in split_pairs(self.sources, "config.data.sources").items():
            _one_of(f"data.sources ({task})", kind, ("files", "hub", "tfds"))
        _in_range("data.skip_budget", self.skip_budget, 0)
        _in_range("data.limit", self.limit, 0)


@dataclass(frozen=True)
class ExperimentSettings:
    """Which phases there are."""

    intermediates: str
    targets: str
    languages: str
    intermediate_seeds: int
    target_seeds: int
    first_seed: int
    source_language: str
    train_on: str
    select_on: str
    keep: str

    def __post_init__(self) -> None:
        _in_range("experiment.intermediate_seeds", self.intermediate_seeds, 1)
        _in_range("experiment.target_seeds", self.target_seeds, 1)
        _in_range("experiment.first_seed", self.first_seed, 0)
        _one_of("experiment.select_on", self.select_on, ("en", "target-languages"))
        _one_of("experiment.keep", self.keep, ("none", "encoders", "models", "all"))
        unused = set(split_pairs(self.train_on, "config.experiment.train_on")) - set(
            split_names(self.targets)
        )
        if unused:
            raise ConfigError(
                f"{', '.join(sorted(unused))} is no target of this experiment.",
                where="config.experiment.train_on",
                fix=f"targets: {self.targets or 'none'}",
            )
        if not split_names(self.intermediates):
            raise ConfigError(
                "No intermediate is named.",
                where="config.experiment.intermediates",
                fix="write none for none",
            )
        if not split_names(self.targets) and split_names(self.intermediates) == ("none",):
            raise ConfigError(
                "Nothing is to be trained or evaluated.",
                where="config.experiment",
                fix="name an intermediate or a target task",
            )


@dataclass(frozen=True)
class TrainSettings:
    """How a phase is trained; None leaves it to the task's preset."""

    learning_rate: float | None
    batch_size: int | None
    epochs: float | None
    max_length: int | None
    warmup: float | None
    weight_decay: float | None
    max_steps: int
    schedule: str
    clip_norm: float
    epsilon: float
    layer_decay: float
    freeze_embeddings: bool
    freeze_layers: int
    moment_dtype: str
    accumulation: int
    window: int
    buckets: int
    phase_vocabulary: bool
    eval_every: int
    eval_examples: int
    patience: int
    checkpoint_every: int
    keep_latest: int
    skip_non_finite: int
    log_every: int
    tensorboard: bool

    def __post_init__(self) -> None:
        _in_range("train.learning_rate", self.learning_rate, 0.0, 1.0)
        _in_range("train.batch_size", self.batch_size, 1)
        _in_range("train.epochs", self.epochs, 0.0)
        _in_range("train.max_length", self.max_length, 8)
        _in_range("train.warmup", self.warmup, 0.0)
        _in_range("train.weight_decay", self.weight_decay, 0.0, 1.0)
        _in_range("train.layer_decay", self.layer_decay, 0.01, 1.0)
        for name in ("max_steps", "freeze_layers", "eval_examples", "patience", "skip_non_finite"):
            _in_range(f"train.{name}", getattr(self, name), 0)
        for name in ("accumulation", "window", "buckets", "eval_every", "checkpoint_every", "keep_latest"):
            _in_range(f"train.{name}", getattr(self, name), 1)
        _in_range("train.log_every", self.log_every, 1)
        _in_range("train.clip_norm", self.clip_norm, 0.0)
        _one_of("train.schedule", self.schedule, ("linear", "cosine", "constant"))
        _one_of("train.moment_dtype", self.moment_dtype, ("float32", "bfloat16"))
        if self.batch_size and self.batch_size % self.accumulation:
            raise ConfigError(
                f"A batch of {self.batch_size} does not fall into {self.accumulation} equal microbatches.",
                where="config.train.accumulation",
                fix="take a divisor of the batch size",
            )


@dataclass(frozen=True)
class MixtureSettings:
    """How several tasks, and the languages of masked language modelling, are mixed."""

    sampler: str
    cap: int
    temperature: float
    weights: str
    mlm_weight: float
    mlm_alpha: float
    mlm_rate: float
    mlm_languages: str
    mlm_batch_size: int
    mlm_max_length: int

    def __post_init__(self) -> None:
        _one_of(
            "mixture.sampler",
            self.sampler,
            ("uniform", "proportional", "capped", "temperature", "weights"),
        )
        _in_range("mixture.cap", self.cap, 1)
        _in_range("mixture.temperature", self.temperature, 1.0)
        _in_range("mixture.mlm_weight", self.mlm_weight, 0.0, 1.0)
        _in_range("mixture.mlm_alpha", self.mlm_alpha, 0.0, 1.0)
        _in_range("mixture.mlm_rate", self.mlm_rate, 0.01, 0.99)
        _in_range("mixture.mlm_batch_size", self.mlm_batch_size, 1)
        _in_range("mixture.mlm_max_length", self.mlm_max_length, 8)
        if (self.sampler == "weights") != bool(self.weights):
            raise ConfigError(
                "Sampling by weights needs weights, and weights need that sampler.",
                where="config.mixture",
                fix="set mixture.sampler=weights and mixture.weights=mnli=2,mlm=1 together",
            )


@dataclass(frozen=True)
class ModelSettings:
    """The form of the heads, and the layer that retrieval reads."""

    head_form: str
    head_init: str
    retrieval_layer: int
    sweep_layers: bool

    def __post_init__(self) -> None:
        _one_of("model.head_form", self.head_form, ("transformers", "jiant"))
        _one_of("model.head_init", self.head_init, ("transformers", "jiant"))
        _in_range("model.retrieval_layer", self.retrieval_layer, 0)


@dataclass(frozen=True)
class ComputeSettings:
    """Precision and memory."""

    dtype: str
    param_dtype: str
    remat: str
    attention: str
    matmul_precision: str
    rng: str
    check_nans: bool

    def __post_init__(self) -> None:
        _one_of("compute.dtype", self.dtype, ("float32", "bfloat16"))
        _one_of("compute.param_dtype", self.param_dtype, ("float32", "bfloat16"))
        _one_of("compute.attention", self.attention, ("auto", "xla", "cudnn", "splash"))
        _one_of("compute.matmul_precision", self.matmul_precision, ("", "highest", "high", "default"))
        _one_of("compute.rng", self.rng, ("threefry2x32", "rbg", "unsafe_rbg"))


@dataclass(frozen=True)
class MeshSettings:
    """How devices are arranged."""

    data: int
    fsdp: int
    tensor: int
    zero1: bool

    def __post_init__(self) -> None:
        for name in ("data", "fsdp", "tensor"):
            size = getattr(self, name)
            if size != -1:
                _in_range(f"mesh.{name}", size, 1)
        if [self.data, self.fsdp, self.tensor].count(-1) > 1:
            raise ConfigError(
                "Two axes of the mesh can't both take what is left.", where="config.mesh", fix="keep one -1"
            )


@dataclass(frozen=True)
class EvaluationSettings:
    """Prediction and retrieval."""

    tokens_per_batch: int
    limit: int
    max_length: int
    mining_neighbours: int
    tile: int

    def __post_init__(self) -> None:
        _in_range("evaluation.tokens_per_batch", self.tokens_per_batch, 8)
        _in_range("evaluation.limit", self.limit, 0)
        _in_range("evaluation.max_length", self.max_length, 8)
        _in_range("evaluation.mining_neighbours", self.mining_neighbours, 1)
        _in_range("evaluation.tile", self.tile, 0)


@dataclass(frozen=True)
class Settings:
    """A whole experiment."""

    title: str
    encoder: str
    debug: bool
    preset: str
    data: DataSettings
    experiment: ExperimentSettings
    train: TrainSettings
    mixture: MixtureSettings
    model: ModelSettings
    compute: ComputeSettings
    mesh: MeshSettings
    evaluation: EvaluationSettings

    def __post_init__(self) -> None:
        _one_of("preset", self.preset, ("paper", "xtreme"))
        if not self.encoder:
            raise ConfigError(
                "No encoder is named.", where="config.encoder", fix="give a hub name or a folder"
            )
        if self.train.phase_vocabulary and self.compute.param_dtype != "float32":
            raise ConfigError(
                "The phase vocabulary needs float32 parameters.",
                where="config.train.phase_vocabulary",
                fix="set train.phase_vocabulary=false or compute.param_dtype=float32",
            )
