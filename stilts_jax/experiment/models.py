"""Models between phases: what a phase starts from, its heads, and the finished models on disk."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from stilts_jax.checkpoint import Checkpoints
from stilts_jax.distributed import from_main
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.settings import Settings
from stilts_jax.experiment.start import Start, load_start
from stilts_jax.model import Compute, EncoderConfig, HeadConfig
from stilts_jax.sharding import parameter_shardings
from stilts_jax.tasks.spec import Task

FINAL = "final"  # folder of a finished model: parameters without an optimizer's state
TRAINED = "trained.json"  # written last: what it speaks of is complete


def read_trained(folder: Path, key: str) -> dict[str, Any] | None:
    """Returns the record of a finished training; None if there is none of this key."""
    try:
        record = json.loads((folder / TRAINED).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if record.get("key") == key else None


def load_phase_start(phase: Phase, context: Context) -> Start:
    """Returns the parent's encoder, or the experiment's own; heads are new unless the phase carries them on."""
    if phase.parent is None:
        return load_start(phase.encoder, context.settings, partial(parameter_shardings, mesh=context.mesh))
    folder = context.folder(phase.parent)
    parent_key = context.key(phase.parent)
    record = from_main(lambda: read_trained(folder, parent_key)) or {}
    config = EncoderConfig(**record["encoder"])
    heads = {}
    if phase.carry_head:
        heads[phase.train[0]] = load_final(folder, f"heads/{phase.parent.train[-1]}", context)
    return Start(config, load_final(folder, "encoder", context), heads)


def load_final(folder: Path, part: str, context: Context) -> dict[str, Any]:
    """Reads a part of a finished model, such as ``encoder`` or ``heads/mnli``, onto the mesh."""
    with Checkpoints(folder / FINAL, progress=context.progress, read_only=True) as checkpoints:
        return checkpoints.load(
            "params", part, shardings=lambda tree: parameter_shardings(tree, context.mesh)
        )


def make_compute(settings: Settings) -> Compute:
    """Returns how models are computed."""
    compute = settings.compute
    return Compute(
        dtype=compute.dtype,  # type: ignore[arg-type]  # checked by the settings, like those below
        param_dtype=compute.param_dtype,  # type: ignore[arg-type]
        remat=compute.remat,  # type: ignore[arg-type]
        attention=compute.attention,  # type: ignore[arg-type]
        matmul_precision=compute.matmul_precision or None,
    )


def head_config(task: Task, settings: Settings) -> HeadConfig:
    """Returns the head that a task is trained with."""
    return HeadConfig(
        kind=task.kind,
        num_labels=len(task.labels) if task.kind in ("classify", "tag") else 0,
        form=settings.model.head_form,  # type: ignore[arg-type]
        init=settings.model.head_init,  # type: ignore[arg-type]
        pooling="pooler",  # of dual encoders; retrieval without training has no head at all
    )
