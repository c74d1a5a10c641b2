"""The frozen settings of an experiment, checked before anything is built.

``configs/base.py`` has the same names with defaults and comments; ``config.py`` turns one into the other.
"""

from argparse import ArgumentTypeError
from dataclasses import dataclass
from typing import Annotated, ClassVar, get_type_hints

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


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes; as the ``type`` of a command's argument it reads one, whole if ``low`` is."""

    low: float
    high: float

    def __call__(self, text: str) -> float:
        whole = isinstance(self.low, int)
        try:
            value = int(text) if whole else float(text)
        except ValueError as error:
            raise ArgumentTypeError(f"{text[:60]!r} is no {'whole ' * whole}number") from error
        if not self.low <= value <= self.high:
            raise ArgumentTypeError(f"{text[:60]} is out of range: {self}")
        return value

    def check(self, value: float | None, name: str) -> None:
        """Raises unless ``value`` is in range (NaN never is), or left to the preset."""
        if value is not None and not self.low <= value <= self.high:
            shown = str(value)[:60]
            raise ConfigError(f"{name}={shown} is out of range.", where=f"config.{name}", fix=f"take {self}")

    def __str__(self) -> str:
        return f"at least {self.low} and at most {self.high}"


@dataclass(frozen=True)
class OneOf:
    """The names that an option takes."""

    known: tuple[str, ...]

    def check(self, value: str, name: str) -> None:
        """Raises unless ``value`` is one of them."""
        if value not in self.known:
            raise ConfigError(
                f"{name}={value!r} is not possible.", where=f"config.{name}", fix=nearest(value, self.known)
            )


# Where nothing tighter is known, what the arrays behind an option can hold.
COUNT, POSITIVE = Range(0, 2**31 - 1), Range(1, 2**31 - 1)
ROWS = Range(1, 2**16)  # of a batch
LENGTH = Range(8, 2**16)  # of a row, in tokens
TOKENS_PER_BATCH = Range(8, 2**26)
NEIGHBOURS = Range(1, 1024)
SEEDS = Range(1, 1000)
LAYER = Range(0, 1000)
AXIS = Range(-1, 2**20)
SHARE = Range(0.0, 1.0)
FLOATS = OneOf(("float32", "bfloat16"))
SOURCES = ("files", "hub", "tfds")


class _Checked:
    """Compares every option with what its type declares."""

    group: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value, full = getattr(self, name, None), f"{self.group}{name}"
            if isinstance(value, str) and not value.isprintable():
                raise ConfigError(
                    f"{full} has a character that can't be printed.",
                    where=f"config.{full}",
                    fix=f"write it anew: {value!r}",
                )
            for rule in getattr(hint, "__metadata__", ()):
                rule.check(value, full)


@dataclass(frozen=True)
class DataSettings(_Checked):
    """Where examples come from."""

    group: ClassVar[str] = "data."
    source: Annotated[str, OneOf(SOURCES)]
    sources: str
    skip_budget: Annotated[int, COUNT]
    cache: str
    limit: Annotated[int, COUNT]

    def __post_init__(self) -> None:
        super().__post_init__()
        for task, kind in split_pairs(self.sources, "config.data.sources").items():
            OneOf(SOURCES).check(kind, f"data.sources ({task})")


@dataclass(frozen=True)
class ExperimentSettings(_Checked):
    """Which phases there are."""

    group: ClassVar[str] = "experiment."
    intermediates: str
    targets: str
    languages: str
    intermediate_seeds: Annotated[int, SEEDS]
    target_seeds: Annotated[int, SEEDS]
    first_seed: Annotated[int, Range(0, 2**32 - 1001)]  # seeds have 32 bits
    source_language: str
    train_on: str
    select_on: Annotated[str, OneOf(("en", "target-languages"))]
    keep: Annotated[str, OneOf(("none", "encoders", "models", "all"))]

    def __post_init__(self) -> None:
        super().__post_init__()
        unused = set(split_pairs(self.train_on, "config.experiment.train_on")) - set(
            split_names(self.targets)
        )
        if unused:
            raise ConfigError(
                f"{', '.join(sorted(unused))} is no target of this experiment.",
                where="config.experiment.train_on",
                fix=f"targets: {self.targets or 'none'}",
            )
        for name in ("intermediates", "targets", "languages"):
            if "," in getattr(self, name):
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is not possible.",
                    where=f"config.experiment.{name}",
                    fix="join names by +, as in a+b",
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
class TrainSettings(_Checked):
    """How a phase is trained; None leaves it to the task's preset."""

    group: ClassVar[str] = "train."
    learning_rate: Annotated[float | None, SHARE]
    batch_size: Annotated[int | None, ROWS]
    epochs: Annotated[float | None, Range(1e-6, 1e6)]
    max_length: Annotated[int | None, LENGTH]
    warmup: Annotated[float | None, Range(0.0, 2**31 - 1)]
    weight_decay: Annotated[float | None, SHARE]
    max_steps: Annotated[int, COUNT]
    schedule: Annotated[str, OneOf(("linear", "cosine", "constant"))]
    clip_norm: Annotated[float, Range(0.0, 1e6)]
    epsilon: Annotated[float, Range(1e-30, 1.0)]
    layer_decay: Annotated[float, Range(0.01, 1.0)]
    freeze_embeddings: bool
    freeze_layers: Annotated[int, COUNT]
    moment_dtype: Annotated[str, FLOATS]
    accumulation: Annotated[int, ROWS]
    window: Annotated[int, Range(1, 1024)]
    buckets: Annotated[int, Range(1, 1024)]
    phase_vocabulary: bool
    eval_every: Annotated[int, POSITIVE]
    eval_examples: Annotated[int, COUNT]
    patience: Annotated[int, COUNT]
    checkpoint_every: Annotated[int, POSITIVE]
    keep_latest: Annotated[int, Range(1, 1000)]
    skip_non_finite: Annotated[int, COUNT]
    log_every: Annotated[int, POSITIVE]
    tensorboard: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size and self.batch_size % self.accumulation:
            raise ConfigError(
                f"A batch of {self.batch_size} does not fall into {self.accumulation} equal microbatches.",
                where="config.train.accumulation",
                fix="take a divisor of the batch size",
            )


@dataclass(frozen=True)
class MixtureSettings(_Checked):
    """How several tasks, and the languages of masked language modelling, are mixed."""

    group: ClassVar[str] = "mixture."
    sampler: Annotated[str, OneOf(("uniform", "proportional", "capped", "temperature", "weights"))]
    cap: Annotated[int, POSITIVE]
    temperature: Annotated[float, Range(1.0, 1e6)]
    weights: str
    mlm_weight: Annotated[float, Range(0.0, 0.99)]
    mlm_alpha: Annotated[float, SHARE]
    mlm_rate: Annotated[float, Range(0.01, 0.99)]
    mlm_languages: str
    mlm_batch_size: Annotated[int, ROWS]
    mlm_max_length: Annotated[int, LENGTH]

    def __post_init__(self) -> None:
        super().__post_init__()
        for task, weight in split_pairs(self.weights, "config.mixture.weights").items():
            try:
                Range(1e-6, 1e6)(weight)
            except ArgumentTypeError as error:
                raise ConfigError(
                    f"The weight of {task}: {error}.",
                    where="config.mixture.weights",
                    fix="such as mnli=2,mlm=1",
                ) from error
        if (self.sampler == "weights") != bool(self.weights):
            raise ConfigError(
                "The sampler 'weights' and the weights themselves are only of use together.",
                where="config.mixture",
                fix="set mixture.sampler=weights and mixture.weights=mnli=2,mlm=1 together",
            )


@dataclass(frozen=True)
class ModelSettings(_Checked):
    """The form of the heads, and the layer that retrieval reads."""

    group: ClassVar[str] = "model."
    head_form: Annotated[str, OneOf(("transformers", "jiant"))]
    head_init: Annotated[str, OneOf(("transformers", "jiant"))]
    retrieval_layer: Annotated[int, LAYER]
    sweep_layers: bool


@dataclass(frozen=True)
class ComputeSettings(_Checked):
    """Precision and memory."""

    group: ClassVar[str] = "compute."
    dtype: Annotated[str, FLOATS]
    param_dtype: Annotated[str, FLOATS]
    remat: Annotated[str, OneOf(("none", "attention", "dots", "full"))]
    attention: Annotated[str, OneOf(("auto", "xla", "cudnn", "splash"))]
    matmul_precision: Annotated[str, OneOf(("", "highest", "high", "default"))]
    rng: Annotated[str, OneOf(("threefry2x32", "rbg", "unsafe_rbg"))]
    check_nans: bool


@dataclass(frozen=True)
class MeshSettings(_Checked):
    """How devices are arranged."""

    group: ClassVar[str] = "mesh."
    data: Annotated[int, AXIS]
    fsdp: Annotated[int, AXIS]
    tensor: Annotated[int, AXIS]
    zero1: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = [self.data, self.fsdp, self.tensor]
        if 0 in sizes or sizes.count(-1) > 1:
            raise ConfigError(
                "An axis of the mesh takes 1 device or more; one of the axes can be -1 and takes all that is left.",
                where="config.mesh",
                fix="set mesh.data, mesh.fsdp and mesh.tensor so that their product is the number of devices",
            )


@dataclass(frozen=True)
class EvaluationSettings(_Checked):
    """Prediction and retrieval."""

    group: ClassVar[str] = "evaluation."
    tokens_per_batch: Annotated[int, TOKENS_PER_BATCH]
    limit: Annotated[int, COUNT]
    max_length: Annotated[int, LENGTH]
    mining_neighbours: Annotated[int, NEIGHBOURS]
    tile: Annotated[int, Range(0, 2**20)]


@dataclass(frozen=True)
class Settings(_Checked):
    """A whole experiment."""

    title: str
    encoder: str
    debug: bool
    preset: Annotated[str, OneOf(("paper", "xtreme"))]
    data: DataSettings
    experiment: ExperimentSettings
    train: TrainSettings
    mixture: MixtureSettings
    model: ModelSettings
    compute: ComputeSettings
    mesh: MeshSettings
    evaluation: EvaluationSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.encoder:
            raise ConfigError(
                "No encoder is named.", where="config.encoder", fix="give a hub name or a folder"
            )
