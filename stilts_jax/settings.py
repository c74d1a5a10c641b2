"""Every option, once: name, type, default, meaning and what it takes. An experiment's settings are these records.

``configs/*.py`` and ``--config.x.y=z`` (``--config.train.learning_rate=3e-5``) change them; everything below gets them
frozen and checked.
"""

from argparse import ArgumentTypeError
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from stilts_jax.checked import Checked, Range, split_names, split_pairs
from stilts_jax.errors import nearest

DEBUG_SHAPE = "tiny"  # what `:debug` puts in the encoder's place

# Where nothing tighter is known, what the arrays behind an option can hold.
COUNT, POSITIVE = Range(0, 2**31 - 1), Range(1, 2**31 - 1)
ROWS = Range(1, 2**16)  # of a batch
EPOCHS = Range(1e-6, 1e6)
LENGTH = Range(8, 2**16)  # of a row, in tokens
TOKENS_PER_BATCH = Range(0, 2**26)
NEIGHBOURS = Range(1, 1024)
SEEDS = Range(1, 1000)
LAYER = Range(0, 1000)
AXIS = Range(-1, 2**20)
SHARE = Range(0.0, 1.0)
WARMUP = Range(0.0, 2**31 - 1)
HEAD_RATE = Range(0.01, 100.0)

Preset = Literal["paper", "xtreme"]
SourceKind = Literal["files", "hub", "tfds"]
HeadForm = Literal["transformers", "jiant"]
FloatName = Literal["float32", "bfloat16", "float64"]
Remat = Literal["auto", "none", "attention", "dots", "full"]
Layers = Literal["auto", "loop", "written-out"]
Attention = Literal["auto", "xla", "cudnn", "splash", "splash-interpret"]


@dataclass(frozen=True, kw_only=True)
class DataSettings(Checked):
    group: ClassVar[str] = "config.data."
    source: SourceKind = "files"  # a task without the source that is named is read from files
    sources: str = ""  # exceptions by task, as in "mnli=hub,panx=tfds"
    # Malformed rows that may be skipped (and counted) before a file is refused.
    skip_budget: Annotated[int, COUNT] = 0
    cache: str = ""  # folder for tokenized features; empty: features/ in the work directory
    limit: Annotated[int, COUNT] = 0  # train on the first n examples only; 0: all
    # Whose features stand for pictures ("vit" for those that `stilts features` wrote to train2014.vit); empty: pictures
    # themselves, scaled to a square and cut into patches.
    pictures: str = ""
    picture_size: Annotated[int, Range(1, 4096)] = 112  # pixels of a side
    picture_patch: Annotated[int, Range(1, 4096)] = 16  # pixels of a side of a patch

    def __post_init__(self) -> None:
        super().__post_init__()
        for task, kind in self.kinds.items():
            self.choose(f"sources ({task})", kind, get_args(SourceKind))
        what = f"Patches of {self.picture_patch} pixels do not cut {self.picture_size} into equal parts."
        fix = "take a divisor of data.picture_size"
        self.refuse(self.picture_size % self.picture_patch, what, "picture_patch", fix)

    @property
    def kinds(self) -> dict[str, Any]:
        """The exceptions by task."""
        return split_pairs(self.sources, "config.data.sources")


@dataclass(frozen=True, kw_only=True)
class ExperimentSettings(Checked):
    group: ClassVar[str] = "config.experiment."
    intermediates: str = "none"  # rows of the table, joined by "+"; "mnli/mlm" is one row of two tasks
    targets: str = "xnli"  # columns of the table, joined by "+"
    languages: str = ""  # evaluation languages, joined by "+"; empty: all that the tasks and the data have
    intermediate_seeds: Annotated[int, SEEDS] = 1
    target_seeds: Annotated[int, SEEDS] = 1
    first_seed: Annotated[int, Range(0, 2**32 - 1001)] = 0  # seeds have 32 bits
    source_language: str = "en"  # language of the target tasks' training data
    train_on: str = ""  # exceptions, as in "xcopa=copa": on COPA alone, without SIQA first
    # "target-languages" selects on their dev sets: no longer zero-shot, and reported so.
    select_on: Literal["en", "target-languages"] = "en"
    # Of finished phases: "encoders" (of intermediates), "models", or "all" (the optimizer's state too).
    keep: Literal["none", "encoders", "models", "all"] = "models"

    def __post_init__(self) -> None:
        super().__post_init__()
        targets, intermediates = split_names(self.targets), split_names(self.intermediates)
        for name in ("intermediates", "targets", "languages"):
            text = getattr(self, name)
            self.refuse("," in text, f"{name}={text!r} is not possible.", name, "join names by +, as in a+b")
        self.refuse(not intermediates, "No intermediate is named.", "intermediates", "write none for none")
        unnamed = not self.source_language
        self.refuse(unnamed, "No language is named.", "source_language", "write en for English")
        what, fix = "Nothing is to be trained or evaluated.", "name an intermediate or a target task"
        self.refuse(not targets and intermediates == ("none",), what, "targets", fix)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Checked):
    """The options of AdamW and its schedule that no task decides."""

    group: ClassVar[str] = "config.train."
    # How the rate falls to zero after the warm-up: linearly or as a half cosine; or constant.
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    clip_norm: Annotated[float, Range(0.0, 1e6)] = 1.0  # limit of the norm of all gradients together; 0: none
    epsilon: Annotated[float, Range(1e-30, 1.0)] = 1e-8
    layer_decay: Annotated[float, Range(0.01, 1.0)] = 1.0  # learning rate over that of the layer above
    freeze_embeddings: bool = False  # all embeddings (and their norm) stay as they are, and have no moments
    freeze_layers: Annotated[int, COUNT] = 0  # lowest layers that stay as they are
    # Of the first moment; "bfloat16" halves its memory. The second one always has float32: its decay of 0.999 would
    # be lost in bfloat16's rounding, so that it could only grow.
    moment_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, kw_only=True)
class TrainSettings(OptimizerSettings):
    """How a phase is trained; None leaves it to the task's preset."""

    learning_rate: Annotated[float | None, SHARE] = None
    batch_size: Annotated[int | None, ROWS] = None
    epochs: Annotated[float | None, EPOCHS] = None
    max_length: Annotated[int | None, LENGTH] = None
    warmup: Annotated[float | None, WARMUP] = None  # below 1: share of the steps; else a number of steps
    weight_decay: Annotated[float | None, SHARE] = None
    # Below 1 rare labels are drawn more often (classify): a label in proportion to its rows to this power.
    label_alpha: Annotated[float | None, SHARE] = None
    head_rate: Annotated[float | None, HEAD_RATE] = None  # of a head's rate, as it is new, over the encoder's
    # Exceptions of these eight by task, as in "xnli.epochs=1,easy_vqa.learning_rate=4e-4", with its controls and
    # translations. A target's count for all that it trains on (xcopa.epochs, not siqa.epochs). (Of several tasks in a
    # row the first one's rates, warm-up and decay count.)
    by_task: str = ""
    max_steps: Annotated[int, COUNT] = 0  # stop (and end the schedule) after so many; 0: what the epochs need
    accumulation: Annotated[int, Range(0, 2**16)] = (
        0  # microbatches of a step (dual encoders: 1); 0: by device and task
    )
    # Batches sorted by length together (transformers' Trainer: 50); 1: plain shuffle, as of rows with pictures.
    window: Annotated[int, Range(1, 1024)] = 32
    # Padded lengths of a task at most, each a compiled step; 0: as many as save more time than they take to compile.
    buckets: Annotated[int, Range(0, 1024)] = 0
    phase_vocabulary: bool = True  # train only the embedding rows that the phase's data use
    eval_every: Annotated[int, POSITIVE] = 1000
    eval_examples: Annotated[int, COUNT] = 500  # of the English selection set; 0: all
    patience: Annotated[int, COUNT] = 30  # evaluations without a gain before a run stops; 0: never
    checkpoint_every: Annotated[int, POSITIVE] = 1000
    # Newest checkpoints that are kept besides the best one: what a damaged one falls back on.
    keep_latest: Annotated[int, Range(1, 1000)] = 2
    skip_non_finite: Annotated[int, COUNT] = 0  # steps with a non-finite loss, left out before the run stops
    log_every: Annotated[int, POSITIVE] = 50
    tensorboard: bool = False  # a copy of the metrics for TensorBoard (needs the extra of that name)

    def __post_init__(self) -> None:
        super().__post_init__()
        uneven = self.batch_size and self.accumulation and self.batch_size % self.accumulation
        what = f"A batch of {self.batch_size} does not fall into {self.accumulation} equal microbatches."
        self.refuse(uneven, what, "accumulation", "take a divisor of the batch size")
        self.exceptions()

    def exceptions(self) -> dict[str, dict[str, float]]:
        """Returns what ``by_task`` says: by option the values by task, as it is written."""
        hints, found = get_type_hints(type(self), include_extras=True), dict[str, dict[str, float]]()
        for place, text in split_pairs(self.by_task, "config.train.by_task").items():
            task, _, option = place.rpartition(".")
            what = f"{place!r} is not of the form TASK.OPTION."
            self.refuse(not task, what, "by_task", "write xnli.epochs=1")
            what, fix = f"{option!r} can't differ by task.", nearest(option, TASK_OPTIONS)
            self.refuse(option not in TASK_OPTIONS, what, "by_task", fix)
            try:
                found.setdefault(option, {})[task] = hints[option].__metadata__[0](text)
            except ArgumentTypeError as error:
                self.refuse(True, f"{place}: {error}.", "by_task", "such as xnli.epochs=1")
        return found


# What a task's preset decides unless it is set here.
TASK_OPTIONS = tuple(one.name for one in fields(TrainSettings) if one.default is None)


@dataclass(frozen=True, kw_only=True)
class MixtureSettings(Checked):
    """How several tasks, and the languages of masked language modelling, are mixed."""

    group: ClassVar[str] = "config.mixture."
    sampler: Literal["uniform", "proportional", "capped", "temperature", "weights"] = "capped"
    cap: Annotated[int, POSITIVE] = 131072  # of a task's examples (recalled from the paper, not verified)
    temperature: Annotated[float, Range(1.0, 1e6)] = 2.0
    # Of each of several tasks, masked language modelling aside; None: what each has alone. (The paper has 3.)
    epochs: Annotated[float | None, EPOCHS] = None
    weights: str = ""  # as in "mnli=2,mlm=1"
    mlm_weight: Annotated[float, Range(1e-6, 0.99)] = 0.2  # share of the steps that "/mlm" gets
    mlm_alpha: Annotated[float, SHARE] = 0.3  # languages of MLM are drawn with p ~ n^alpha
    mlm_rate: Annotated[float, Range(0.01, 0.99)] = 0.15  # share of the tokens that are predicted
    mlm_languages: str = ""  # joined by "+"; empty: all that the data root has
    mlm_batch_size: Annotated[int, ROWS] = 8  # beside other tasks
    mlm_max_length: Annotated[int, LENGTH] = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        for task, weight in self.pairs.items():
            try:
                Range(1e-6, 1e6)(weight)
            except ArgumentTypeError as error:
                self.refuse(True, f"The weight of {task}: {error}.", "weights", "such as mnli=2,mlm=1")
        what = "The sampler 'weights' and the weights themselves are only of use together."
        fix = "set mixture.sampler=weights and mixture.weights=mnli=2,mlm=1 together"
        self.refuse((self.sampler == "weights") != bool(self.weights), what, "", fix)

    @property
    def pairs(self) -> dict[str, str]:
        """The weights by task, as they are written."""
        return split_pairs(self.weights, "config.mixture.weights")


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Checked):
    """The form of the heads, dropout in attention, and the layer that retrieval reads."""

    group: ClassVar[str] = "config.model."
    head_form: HeadForm = "transformers"  # "jiant" is the paper authors' (pooler, then dense, tanh, out)
    head_init: HeadForm = "transformers"  # normal(0, 0.02); "jiant": uniform(+-1/sqrt(fan-in))
    retrieval_layer: Annotated[int, LAYER] = 0  # 0: 14 of 24, the same share of other depths
    sweep_layers: bool = False  # retrieval at every layer; picking one of them by its score is not zero-shot
    # Of attention's probabilities, in training; None: as the encoder's config.json says, 0.1 for XLM-R. With 0 GPUs and
    # TPUs can train with their fused kernels, none of which drops by row and place as a resumed run must.
    attention_dropout: Annotated[float | None, Range(0.0, 0.99)] = None
    # Of everything else, the heads included; None: as config.json says, and 0.1 in heads.
    hidden_dropout: Annotated[float | None, Range(0.0, 0.99)] = None

    @property
    def dropout(self) -> dict[str, float]:
        """The rates that are set, by their names."""
        names = "attention_dropout", "hidden_dropout"
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True, kw_only=True)
class Compute(Checked):
    """How a model is computed, not what it is; hashable, as a jitted function's static argument.

    >>> import stilts_jax as sj
    >>> sj.Compute(dtype="bfloat16", remat="full").param_dtype
    'float32'
    """

    group: ClassVar[str] = "config.compute."
    # Of activations and matrix products; norms, softmax and losses: at least float32.
    dtype: FloatName = "float32"
    param_dtype: FloatName = "float32"  # what parameters are kept in
    # What the backward pass computes again: nothing; "attention", its probabilities; "dots", all but the results of the
    # layers' matrix products; "full", everything but layer inputs; "auto", as little as memory allows (in a model of
    # your own it is "none").
    remat: Remat = "none"
    # Layers that stand "written-out" in the program train a fifth faster than a "loop" over them on a CPU, by 37 % of a
    # step on an H100, and take four times as long to compile; "auto" counts both. On a TPU they are a loop.
    layers: Layers = "auto"
    attention: Attention = "auto"  # see stilts_jax.model.layers; "splash-interpret" is for tests
    # "highest" for exact float32 on accelerators.
    matmul_precision: Literal["", "highest", "high", "default"] = ""
    check_nans: bool = False
    # What the model is compiled for where that is not this process's own backend.
    platform: Literal["cpu", "gpu", "tpu"] | None = field(default=None, metadata={"option": False})


@dataclass(frozen=True)
class MeshConfig(Checked):
    """How devices are arranged: sizes of the axes, of which one may be -1 and takes all devices that are left.

    >>> import stilts_jax as sj
    >>> sj.MeshConfig(data=-1, fsdp=4).tensor
    1
    """

    group: ClassVar[str] = "config.mesh."
    data: Annotated[int, AXIS] = -1
    fsdp: Annotated[int, AXIS] = 1
    tensor: Annotated[int, AXIS] = 1
    zero1: bool = False  # shard the optimizer's state over `data` too

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = [self.data, self.fsdp, self.tensor]
        what = "An axis of the mesh takes 1 device or more; one of the axes can be -1 and takes all that is left."
        fix = "set mesh.data, mesh.fsdp and mesh.tensor so that their product is the number of devices"
        self.refuse(0 in sizes or sizes.count(-1) > 1, what, "", fix)


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Checked):
    group: ClassVar[str] = "config.evaluation."
    tokens_per_batch: Annotated[int, TOKENS_PER_BATCH] = 0  # padding included; 0: by device and rows
    # Score the first n examples of each language only; 0: all. Pools stay whole.
    limit: Annotated[int, COUNT] = 0
    max_length: Annotated[int, LENGTH] = 512  # of texts to embed
    mining_neighbours: Annotated[int, NEIGHBOURS] = 4
    tile: Annotated[int, Range(0, 2**20)] = 0  # side of a tile of similarities, for memory; 0: by device


@dataclass(frozen=True, kw_only=True)
class Settings(Checked):
    title: str = ""  # heading of the report; empty: a usual one
    encoder: str = "FacebookAI/xlm-roberta-large"  # a hub name (`stilts prepare` fetches it) or a folder
    debug: bool = False  # set by `:debug` behind a config: a tiny random encoder of its family, and few steps
    preset: Preset = "paper"  # hyperparameters by task: "paper" (Phang et al.) or "xtreme" (XTREME's scripts)
    data: DataSettings = DataSettings()
    experiment: ExperimentSettings = ExperimentSettings()
    train: TrainSettings = TrainSettings()
    mixture: MixtureSettings = MixtureSettings()
    model: ModelSettings = ModelSettings()
    # An experiment's defaults; a model's own are exact.
    compute: Compute = Compute(dtype="bfloat16", remat="auto")
    mesh: MeshConfig = MeshConfig()
    evaluation: EvaluationSettings = EvaluationSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dtype", "param_dtype"):  # float64 is for tests, which switch it on in JAX
            self.choose(f"compute.{name}", getattr(self.compute, name), ("float32", "bfloat16"))
        self.refuse(not self.encoder, "No encoder is named.", "encoder", "give a hub name or a folder")
