"""Models between phases: what a phase starts from, its heads, and the finished models on disk."""

from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from stilts_jax.checkpoint import Checkpoints
from stilts_jax.distributed import from_main
from stilts_jax.errors import CheckpointError, RecordError
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.start import Start, load_start
from stilts_jax.files import read_record
from stilts_jax.model import EncoderConfig, HeadConfig
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import Settings
from stilts_jax.sharding import parameter_shardings
from stilts_jax.tasks import get_task
from stilts_jax.tasks.spec import Hyperparameters, Task
from stilts_jax.train.optimizer import OptimizerConfig

FORMAT = 2  # of ``trained.json``
FINAL = "final"  # folder of a finished model: parameters without an optimizer's state
TOKENIZER = "tokenizer"  # folder in it: the files of the tokenizer that the model was trained with
TRAINED = "trained.json"  # written after the model was saved; removed, the phase is trained again


def read_trained(folder: Path, key: str, progress: Progress = SILENT) -> dict[str, Any] | None:
    """Returns the record of a finished training.

    None if there is none of this key, or none that can be trusted, which is said.
    """
    try:
        record = read_record(folder / TRAINED, FORMAT)
    except FileNotFoundError:
        return None
    except RecordError as error:
        progress.say(f"warning: {error.what} The phase is trained again ({folder / TRAINED})")
        return None
    return record if record["key"] == key else None


def load_phase_start(phase: Phase, context: Context) -> Start:
    """Returns the parent's encoder, or the experiment's own; heads are new unless the phase carries them on."""
    if phase.parent is None:
        return load_start(phase.encoder, context.settings, partial(parameter_shardings, mesh=context.mesh))
    folder = context.folder(phase.parent)
    parent_key = context.key(phase.parent)
    record = from_main(lambda: read_trained(folder, parent_key))
    if record is None:
        raise CheckpointError(
            f"{phase.parent.name} is not trained.",
            where=str(folder / TRAINED),
            fix="run the whole grid, or the part that trains it",
        )
    config = EncoderConfig(**record["encoder"])
    heads = {}
    if phase.carry_head:
        before, here = (get_task(name).name for name in (phase.parent.train[-1], phase.train[0]))
        heads[here] = load_final(folder, f"heads/{before}", context)
    return Start(config, load_final(folder, "encoder", context), heads)


def load_final(folder: Path, part: str, context: Context) -> dict[str, Any]:
    """Reads a part of a finished model, such as ``encoder`` or ``heads/mnli``, onto the mesh."""
    fix = (
        f"remove {folder / TRAINED} to train this phase again; its result.json stays until there is a new one"
    )
    if not from_main((folder / FINAL).exists):
        raise CheckpointError(
            "The model of this phase is needed and was removed (experiment.keep says which models are kept).",
            where=str(folder),
            fix=f"ask for what was scored before; or set experiment.keep=models and {fix}",
        )
    try:
        with Checkpoints(folder / FINAL, progress=context.progress, read_only=True) as checkpoints:
            return checkpoints.load(
                "params", part, shardings=lambda tree: parameter_shardings(tree, context.mesh)
            )
    except CheckpointError as error:
        raise CheckpointError(error.what, where=error.where, fix=fix) from error


def optimizer_config(
    settings: Settings, hyperparameters: Hyperparameters, total_steps: int
) -> OptimizerConfig:
    """Returns how a phase's steps are taken: what its task decides, and what the settings do."""
    given = asdict(settings.train) | asdict(hyperparameters) | {"total_steps": total_steps}
    names = {one.name for one in fields(OptimizerConfig)}
    return OptimizerConfig(**{name: value for name, value in given.items() if name in names})


def head_config(task: Task, settings: Settings) -> HeadConfig:
    """Returns the head that a task is trained with."""
    return HeadConfig(
        kind=task.kind,
        num_labels=len(task.labels) if task.kind in ("classify", "tag") else 0,
        form=settings.model.head_form,
        init=settings.model.head_init,
        pooling="pooler",  # of dual encoders; retrieval without training has no head at all
    )
