"""What the device decides in a phase: chosen at its first step, written into its folder, used again on resume."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax

from stilts_jax import automatic
from stilts_jax.distributed import from_main
from stilts_jax.errors import RecordError
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.data import TrainingData
from stilts_jax.experiment.phases import Phase
from stilts_jax.files import read_record, write_record
from stilts_jax.model import EncoderConfig
from stilts_jax.model.encoder import abstract_encoder, writes_layers_out
from stilts_jax.settings import Remat, Settings
from stilts_jax.sharding import Mesh

CHOICES = "device.json"
_SEQUENCES = {"choice": 4, "embed": 2}  # of a row, about


@dataclass(frozen=True)
class Choices:
    """How the steps of a phase are computed.

    Attributes:
        device: what they were chosen for.
        accumulation: microbatches.
        compile_tokens: what one more padded length costs; see ``automatic.compile_tokens``.
    """

    device: str
    remat: Remat
    accumulation: int
    compile_tokens: float


def choose(phase: Phase, context: Context, data: Sequence[TrainingData], shape: EncoderConfig) -> Choices:
    """Returns the choices of a phase, and says them: those of its first step if the device is the same."""
    used = [(item.task.kind, item.hyperparameters, item.features.visual_tokens) for item in data]
    tasks = [(kind, one.batch_size, one.max_length + seen) for kind, one, seen in used]
    path = context.folder(phase) / CHOICES

    def read() -> tuple[dict[str, Any], dict[str, Any] | None]:
        fresh = asdict(decide(context.settings, context.mesh, shape, tasks))
        try:
            return fresh, asdict(Choices(**read_record(path)))
        except (FileNotFoundError, RecordError, TypeError):
            return fresh, None

    # All hosts do what the main one chose: what is free on each may differ.
    found, record = from_main(read)
    fresh, before = Choices(**found), Choices(**record) if record else None
    remat = context.settings.compute.remat
    set_here = remat != "auto" or context.settings.train.accumulation
    chosen = before if before and before.device == fresh.device and not set_here else fresh
    if before and before.device != fresh.device:
        context.progress.say(
            f"this phase began on {before.device}: what depends on the device is chosen anew"
        )
    if context.is_main and chosen != before:
        write_record(path, asdict(chosen))
    why = "the least that fits" if remat == "auto" else "as set"
    context.progress.say(
        f"{chosen.device}: rematerialisation {chosen.remat} ({why}), "
        f"{chosen.accumulation} microbatch(es) a step, padded lengths that save more than they take to compile "
        f"({chosen.compile_tokens:.3g} tokens each)"
    )
    return chosen


def decide(
    settings: Settings, mesh: Mesh, shape: EncoderConfig, tasks: Sequence[tuple[str, int, int]]
) -> Choices:
    """Returns what the settings leave to the devices.

    Args:
        tasks: (kind, batch size, longest row) of each that is trained.
    """
    device, compute = automatic.this_device(mesh.size), settings.compute
    accumulation = settings.train.accumulation or automatic.microbatches(
        device,
        [rows for _, rows, _ in tasks],
        shape.hidden_size,
        whole=any(kind == "embed" for kind, _, _ in tasks),
    )
    if compute.remat == "auto":
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_encoder(shape)))
        tokens = max(rows * length * _SEQUENCES.get(kind, 1) for kind, rows, length in tasks)
        remat = automatic.rematerialisation(
            device,
            shape,
            parameters=size / (mesh.shape["fsdp"] * mesh.shape["tensor"]),
            tokens=tokens // (accumulation * mesh.shape["data"] * mesh.shape["fsdp"]),
            length=max(length for _, _, length in tasks),
            width=2 if compute.dtype == "bfloat16" else 4,
        )
        compute = replace(compute, remat=remat)
    written_out = shape.num_layers if writes_layers_out(shape, compute) else 0
    tokens_each = automatic.compile_tokens(device, shape.training_flops(), written_out)
    return Choices(f"{device.count} x {device.kind}", compute.remat, accumulation, tokens_each)
