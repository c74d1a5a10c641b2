"""Models of an experiment: what a phase starts from, what it leaves behind, and finished ones from outside."""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from stilts_jax.checkpoint import Checkpoints
from stilts_jax.distributed import from_main
from stilts_jax.errors import CheckpointError, ConfigError, EncoderError, RecordError, nearest
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.results import read_result
from stilts_jax.files import cache_root, open_path, read_record, write_record, write_whole
from stilts_jax.model.config import SHAPES, Compute, EncoderConfig, HeadConfig, Model
from stilts_jax.model.encoder import init_encoder
from stilts_jax.model.export import export_encoder
from stilts_jax.model.loading import TaskHead, load_encoder
from stilts_jax.model.weights import find_folder, find_weights, read_json
from stilts_jax.progress import SILENT, Progress, counted
from stilts_jax.settings import DEBUG_SHAPE, Settings
from stilts_jax.sharding import Mesh, MeshConfig, make_mesh, shardings
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.files import hash_files
from stilts_jax.tasks.spec import Hyperparameters, Task
from stilts_jax.tokenization import OTHER_FILES, VOCABULARY_FILES, Tokenizer, load_tokenizer
from stilts_jax.train.optimizer import OptimizerConfig

if TYPE_CHECKING:
    from stilts_jax.experiment.context import Context

RANDOM = "random:"  # "random:FOLDER" draws the weights that FOLDER/config.json describes
_FILES = ("config.json", *VOCABULARY_FILES, *OTHER_FILES)  # of an encoder, besides its weights
_WORTH_REMEMBERING = 2**26  # bytes: smaller files are hashed in a moment
FORMAT = 2  # of ``trained.json``
FINAL = "final"  # folder of a finished model: parameters without an optimizer's state
TOKENIZER = "tokenizer"  # folder in it: the files of the tokenizer that the model was trained with
TRAINED = "trained.json"  # written after the model was saved; removed, the phase is trained again
# Options that change what a finished model predicts: a phase keeps them.
DECISIVE = (
    *("preset", "train.max_length", "train.by_task", "compute.dtype", "compute.matmul_precision"),
    *("model.retrieval_layer", "evaluation.max_length", "evaluation.mining_neighbours"),
    *("data.pictures", "data.picture_size", "data.picture_patch"),
)
_SYNONYMS = {"contradictory": "contradiction", "entailed": "entailment"}
_NUMBERED = re.compile(r"LABEL_\d+", re.IGNORECASE)  # what transformers writes where nobody named the labels


def tokenizer_folder(encoder: str) -> Path:
    """Returns where the tokenizer of ``encoder`` lies; one of the hub must have been fetched by ``prepare``."""
    return find_folder(encoder.removeprefix(RANDOM))


def read_shape(encoder: str, settings: Settings | None = None) -> EncoderConfig:
    """Returns the shape that the ``config.json`` of an encoder describes, as the settings change it."""
    path = tokenizer_folder(encoder) / "config.json"
    config = EncoderConfig.from_transformers(read_json(path), where=str(path))
    if settings is None:
        return config
    tiny, names = SHAPES[DEBUG_SHAPE], ("hidden_size", "num_layers", "num_heads", "intermediate_size")
    if settings.debug and tiny.hidden_size < config.hidden_size:  # of the same family and vocabulary
        config = replace(config, **{name: getattr(tiny, name) for name in names})
    return with_dropout(config, settings)


def with_dropout(config: EncoderConfig, settings: Settings) -> EncoderConfig:
    """Returns a shape with the dropout that the settings name, where they name one."""
    return replace(config, **settings.model.dropout)  # type: ignore[arg-type]


def encoder_fingerprint(encoder: str, settings: Settings) -> str:
    """Returns a hash of an encoder's files, its tokenizer's among them; refuses an encoder of another family."""
    read_shape(encoder)
    folder, prefix = tokenizer_folder(encoder), RANDOM if encoder.startswith(RANDOM) else ""
    drawn = prefix or settings.debug
    weights = [] if drawn else find_weights(folder)[0]  # others may lie there, which come and go
    paths = sorted([*weights, *(folder / name for name in _FILES if (folder / name).exists())])
    hashes = [_remembered_hash(path.resolve()) for path in paths]
    if drawn:
        hashes.append(str(settings.experiment.first_seed))
    return prefix + hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]


def _remembered_hash(path: Path) -> str:
    """Returns the hash of a file's bytes; of a large one whose size, time and inode are as they were, the last one."""
    found = path.stat()  # of times that of the last change of anything: what copies can set the other one
    if found.st_size < _WORTH_REMEMBERING:
        return hash_files([path])
    state = {"path": str(path), "size": found.st_size, "changed": found.st_ctime_ns, "inode": found.st_ino}
    memory = cache_root() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, RecordError):
        record = read_record(memory)
        if record == state | {"hash": record["hash"]}:
            return record["hash"]
    value = hash_files([path])
    # A file that was written a moment ago may be written once more within one tick of the clock.
    if time.time_ns() - found.st_ctime_ns > 2e9:
        with suppress(OSError):
            write_record(memory, state | {"hash": value})
    return value


def write_trained(folder: Path, trained: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Writes the record of a training into the phase's folder, which can then be used alone, moved or not."""
    for name in _FILES:
        source = Path(tokenizer.source) / name
        if source.is_file():
            write_whole(folder / FINAL / TOKENIZER / name, source.read_bytes())
    write_record(folder / TRAINED, {"format": FORMAT, **trained})


def read_trained(folder: Path, key: str, progress: Progress = SILENT) -> dict[str, Any] | None:
    """Returns the record of a finished training; None if there is none of this key, or none that can be trusted."""
    record = read_result(folder, progress, TRAINED, FORMAT)
    return record if record and record["key"] == key else None


@dataclass(frozen=True)
class OpenModel:
    """A model on the devices of a mesh, with its tokenizer."""

    config: EncoderConfig
    params: Mapping[str, Any]  # of the encoder
    heads: Mapping[str, TaskHead]  # by name; their labels are empty where they have no names
    tokenizer: Tokenizer
    mesh: Mesh
    # Of heads that may answer "no answer", as they were tuned on dev.
    thresholds: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # how texts were cut for a head

    def __post_init__(self) -> None:
        self.tokenizer.check_fits(self.config.vocab_size)

    def with_head(self, name: str, head: TaskHead | None, compute: Compute) -> tuple[Model, dict[str, Any]]:
        """Returns what predicts: the encoder, with one head or none."""
        heads = ((name, head.config),) if head else ()
        params = {"encoder": self.params, **({"head": head.params} if head else {})}
        return Model(self.config, heads, compute), params


def load_phase_start(phase: Phase, context: "Context") -> OpenModel:
    """Returns the parent's encoder, or the experiment's own; heads are new unless the phase carries them on."""
    encoder, tokenizer = phase.encoder, context.tokenizer(phase.encoder)
    settings, mesh, heads = context.settings, context.mesh, dict[str, TaskHead]()
    if parent := phase.parent:
        opened = load_trained(parent, context)
        if phase.carry_head:
            heads[get_task(phase.train[0]).name] = opened.heads[get_task(parent.train[-1]).name]
        return replace(opened, heads=heads)
    sharding, dtype = partial(shardings, mesh=mesh), settings.compute.param_dtype
    if encoder.startswith(RANDOM) or settings.debug:
        config = read_shape(encoder, settings)
        params = init_encoder(config, jax.random.key(settings.experiment.first_seed), dtype, sharding)
        return OpenModel(config, params, heads, tokenizer, mesh)
    loaded = load_encoder(encoder, dtype=dtype, sharding=sharding)
    if loaded.mlm_head is not None:
        heads["mlm"] = TaskHead(HeadConfig(kind="mlm"), loaded.mlm_head)
    return OpenModel(with_dropout(loaded.config, settings), loaded.params, heads, tokenizer, mesh)


def load_trained(phase: Phase, context: "Context") -> OpenModel:
    """Returns what a phase has trained."""
    folder = context.folder(phase)
    trained = from_main(lambda: read_trained(folder, context.key(phase)))
    if trained is None:
        what, fix = f"{phase.name} is not trained.", "run the grid, or the part that trains it"
        raise CheckpointError(what, where=str(folder / TRAINED), fix=fix)
    return load_final(folder, trained, context.mesh, context.progress, context.tokenizer(phase.encoder))


def load_final(
    folder: Path, trained: dict[str, Any], mesh: Mesh, progress: Progress, tokenizer: Tokenizer | None = None
) -> OpenModel:
    """Reads the model of a finished phase onto a mesh, and the tokenizer that was kept with it unless one is given."""
    fix = f"remove {folder / TRAINED} to train this phase again; its result.json stays until there is another"
    if not from_main((folder / FINAL).exists):
        what = "The model of this phase is needed and was removed (experiment.keep says which are kept)."
        fix = f"ask for what was scored before; or set experiment.keep=models and {fix}"
        raise CheckpointError(what, where=str(folder), fix=fix)
    if tokenizer is None:
        path = folder / FINAL / TOKENIZER
        try:
            tokenizer = load_tokenizer(find_folder(path) if path.is_dir() else path)
        except EncoderError as error:
            what, to_do = f"The phase's tokenizer is missing: {error.what}", "copy that of the encoder there"
            raise CheckpointError(what, where=str(path), fix=to_do) from error
        if tokenizer.fingerprint != trained["tokenizer"]:
            what = "The phase was trained with another tokenizer: these files were changed since."
            fix = "put the tokenizer's files back that the encoder of the phase came with"
            raise CheckpointError(what, where=tokenizer.source, fix=fix)
    try:
        with Checkpoints(folder / FINAL, progress=progress, read_only=True) as checkpoints:
            params = checkpoints.load("params", shardings=partial(shardings, mesh=mesh))
    except CheckpointError as error:
        raise CheckpointError(error.what, where=error.where, fix=fix) from error
    heads = {
        name: TaskHead(HeadConfig(**trained["heads"][name]), values, tuple(trained["labels"].get(name, ())))
        for name, values in params["heads"].items()
    }
    return OpenModel(EncoderConfig(**trained["encoder"]), params["encoder"], heads, tokenizer, mesh)


def save_final(folder: Path, params: Mapping[str, Any], step: int, progress: Progress) -> None:
    """Writes the parameters of a finished phase."""
    with Checkpoints(folder / FINAL, keep=1, progress=progress) as checkpoints:
        checkpoints.save(step, {"params": params}, {"step": step})
        checkpoints.wait()


def _read_phase(name: str | Path) -> dict[str, Any] | None:
    """Returns the record of the training behind a phase's folder; None where the name is of something else."""
    path = open_path(name) / TRAINED
    return read_record(path, FORMAT) if path.is_file() else None


def open_model(
    name: str, mesh: Mesh | None = None, progress: Progress = SILENT, dtype: str = "float32"
) -> OpenModel:
    """Opens a phase's folder, or a transformers folder or hub name, whose encoder becomes ``dtype``."""
    mesh, folder = mesh or make_mesh(MeshConfig()), open_path(name)
    if trained := _read_phase(name):
        opened = load_final(folder, trained, mesh, progress)
        result = read_result(folder, progress) or {}
        found, scored = result.get("thresholds", {}), result.get("main_metric", {})
        tuned: Mapping[str, float] = next(filter(None, found.values()), {})
        thresholds = {}
        for task, one in opened.heads.items():
            # One that was not scored itself was trained for another task, under whose name its threshold was tuned.
            own = tuned if one.config.kind == "span" and task not in scored else found.get(task)
            if own:
                thresholds[task] = next(iter(own.values()))
        return replace(opened, thresholds=thresholds, rows=trained.get("rows", {}))
    loaded = load_encoder(name, dtype=dtype, sharding=partial(shardings, mesh=mesh))
    head = loaded.task_head
    heads: dict[str, TaskHead] = {head.config.kind: head} if head else {}
    return OpenModel(loaded.config, loaded.params, heads, load_tokenizer(loaded.tokenizer_folder), mesh)


def own_options(name: str) -> dict[str, Any]:
    """Returns the options, by their dotted names, that a phase was scored with; of other folders PyTorch's."""
    if trained := _read_phase(name):
        return trained["settings"]
    described = read_json(find_folder(name) / "config.json")
    if (described.get("dtype") or described.get("torch_dtype")) == "bfloat16":
        return {"compute.dtype": "bfloat16"}
    # float16 has more digits than bfloat16. PyTorch multiplies float32 exactly, accelerators by themselves do not.
    return {"compute.dtype": "float32", "compute.matmul_precision": "highest"}


def export_phase(
    folder: Path, out: Path, head: str | None, dtype: Literal["float32", "bfloat16"], progress: Progress
) -> None:
    """Writes the model of a finished phase as a transformers folder."""
    trained = _read_phase(folder)
    if not trained:
        what, fix = "This is no folder of a trained phase.", "name a finished folder below WORKDIR/phases"
        raise CheckpointError(what, where=str(folder / TRAINED), fix=fix)
    if head is not None and head not in trained["heads"]:
        what, fix = f"The phase has no head {head!r}.", nearest(head, trained["heads"])
        raise CheckpointError(what, where=str(folder), fix=fix)
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))  # each device holds its part only, and the host a tensor
    opened = load_final(folder, trained, mesh, progress)
    chosen, source = opened.heads[head] if head else None, opened.tokenizer.source
    export_encoder(out, opened.config, opened.params, tokenizer_folder=source, head=chosen, dtype=dtype)


def head_config(task: Task, settings: Settings, sight: Mapping[str, Any] | None = None) -> HeadConfig:
    """Returns the head that a task is trained with; ``sight`` is ``Features.sight`` of what it is trained on."""
    rate = settings.model.hidden_dropout
    return HeadConfig(
        kind=task.kind,
        num_labels=len(task.labels) if task.kind in ("classify", "tag") else 0,
        form=settings.model.head_form,
        init=settings.model.head_init,
        pooling="pooler",  # of dual encoders; retrieval without training has no head at all
        dropout=HeadConfig.dropout if rate is None else rate,
        **(sight or {}),
    )


def optimizer_config(
    settings: Settings, hyperparameters: Hyperparameters, total_steps: int
) -> OptimizerConfig:
    """Returns how a phase's steps are taken: what its task decides, and what the settings do."""
    given = asdict(settings.train) | asdict(hyperparameters) | {"total_steps": total_steps}
    names = {one.name for one in fields(OptimizerConfig)}
    return OptimizerConfig(**{name: value for name, value in given.items() if name in names})


def plain_labels(labels: Sequence[str]) -> list[str]:
    """Returns labels as they are compared: without regard to case, and of several names for one the usual."""
    folded = (label.strip().casefold() for label in labels)
    return [_SYNONYMS.get(label, label) for label in folded]


def fit_head(task: Task, name: str, head: TaskHead) -> TaskHead:
    """Returns a head with its outputs in the order of the task's labels, matched by their names; raises if it can't."""
    kind, labels, outputs = head.config.kind, head.labels, head.config.num_labels
    what, fix = "", f"evaluate a model that was trained for {task.name}"
    if kind != task.kind:
        what = f"The head {name!r} is of the kind {kind}; {task.name} needs one of the kind {task.kind}."
        raise ConfigError(what, where="--head", fix=f"{fix}, or a task of the kind {kind}")
    if task.kind not in ("classify", "tag"):
        return head
    known = bool(labels) and not all(_NUMBERED.fullmatch(label) for label in labels)
    theirs, ours = plain_labels(labels), plain_labels(task.labels)
    if sorted(labels) == sorted(task.labels):  # equal as they stand: case may tell two of them apart
        known, theirs, ours = True, list(labels), list(task.labels)
    if outputs != len(task.labels):
        what = f"The head has {counted(outputs, 'label')}, {task.name} has {len(task.labels)}."
    elif not known or sorted(theirs) != sorted(ours) or len(set(ours)) < len(ours):
        what = f"The head's labels {'do not have the names of the task' if known else 'have no names'}."
        fix = f"say which label each output means, the first output first: --labels={','.join(task.labels)}"
    if what:
        shown = ", ".join(labels) if known else f"{counted(outputs, 'output')} without names"
        where = f"the head {name!r} has {shown}; {task.name} has {', '.join(task.labels)}"
        raise ConfigError(what, where=where, fix=fix)
    order = [theirs.index(label) for label in ours]
    if order == list(range(outputs)):
        return head
    out = {"kernel": head.params["out"]["kernel"][:, order], "bias": head.params["out"]["bias"][..., order]}
    return replace(head, params={**head.params, "out": out}, labels=task.labels)
