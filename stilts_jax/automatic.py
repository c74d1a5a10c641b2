"""What is chosen by the device where no option says it: pure functions of recorded figures, so a run that is resumed
chooses the same again. None of these choices changes what is learnt beyond rounding, and none is in a key.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax

from stilts_jax.chips import find_chip
from stilts_jax.host_memory import total_memory
from stilts_jax.model import EncoderConfig
from stilts_jax.model.encoder import FEW_LAYERS, abstract_encoder, writes_layers_out
from stilts_jax.settings import Compute, Layers, Remat, Settings
from stilts_jax.sharding import AXES, Mesh

MAX_LENGTHS = 16  # padded lengths of a task at most, however long the run
# Padded tokens of a prediction batch on a CPU, and on one other device, at least and at most.
_CPU_BATCH, _SMALL_BATCH, _LARGE_BATCH = 1024, 2048, 16384
_WIDE = 256  # hidden width from which a microbatch keeps a core busy
_FEW_LENGTHS = 6  # that a phase compiles, about
_MEMORY_SHARE = 0.8  # of a device's memory; the rest is for what the compiler adds
SEQUENCES = {"choice": 4, "embed": 2}  # of a row, about
_USES, _CPU_USES = 8, 2  # of what is compiled once, at least
_STATE = 16  # bytes a parameter: itself, its gradient and two moments, in float32
Tasks = Sequence[tuple[str, int, int]]  # (kind, batch size, longest row) of each


@dataclass(frozen=True)
class Device:
    """Where a model runs: ``count`` devices of a kind as JAX names it, each with ``memory`` bytes (0: not known)."""

    kind: str
    count: int = 1
    memory: int = 0

    @property
    def platform(self) -> str:
        """As JAX names it."""
        return "cpu" if self.kind == "cpu" else "tpu" if self.kind.startswith("TPU") else "gpu"

    @property
    def rate(self) -> float:
        """FLOP/s that training reaches on all of them: of the order of two cores, or 0.4 of the peak of a chip."""
        chip = find_chip(self.kind)
        return 1e11 if self.platform == "cpu" else self.count * 0.4 * (chip.flops if chip else 2e14)

    def compile_seconds(self, written_out: int, *, training: bool = True) -> float:
        """Seconds that one more shape costs by compiling, where some layers are written out.

        Measured on two cores with 12 layers of 384, and on an H100 with XLM-R Large; on TPUs assumed. What is compiled
        is used again from the cache on disk, for other seeds, phases and selections: a use pays an eighth, but training
        on a CPU half of it, because there it takes as long as tens of steps.
        """
        each = {"cpu": (1.0, 4.0 + 1.0 * written_out), "gpu": (5.0, 9.0 + 1.15 * written_out)}
        seconds = each.get(self.platform, (20 / 3, 20.0))[training]
        return seconds / (_CPU_USES if training and self.platform == "cpu" else _USES)


def this_device(count: int) -> Device:
    """Returns the devices of this process's backend, ``count`` of them."""
    first = jax.local_devices()[0]
    if first.platform == "cpu":  # the devices of a host share its memory
        return Device(first.device_kind, count, total_memory() // jax.local_device_count())
    return Device(first.device_kind, count, (first.memory_stats() or {}).get("bytes_limit", 0))


def compile_tokens(device: Device, flops: float, written_out: int = 0, *, training: bool = True) -> float:
    """Returns how many tokens, each of ``flops`` in training, are worked off while one more shape is compiled."""
    seconds = device.compile_seconds(written_out, training=training)
    return seconds * device.rate / (flops if training else flops / 3)


def prediction_tokens(device: Device, tokens: int) -> int:
    """Returns the padded tokens of a prediction batch, from the tokens of all: of eight batches at least."""
    if device.platform == "cpu":  # it gains nothing by large batches, and small ones are padded less
        return _CPU_BATCH
    return min(max(tokens // 8, _SMALL_BATCH), _LARGE_BATCH * device.count)


def fit_memory(
    device: Device, shape: EncoderConfig, compute: Compute, mesh: Sequence[int], tasks: Tasks, wanted: int
) -> tuple[int, Remat]:
    """Returns how many microbatches a step has and what it rematerialises, where these are 0 and "auto": what fits.

    ``mesh`` has the sizes of its axes. Taken is the least whose activations fit beside the state, "none" where memory
    is not known; microbatches cost more, and come after it.
    """
    (data, fsdp, tensor), on_cpu = mesh, device.platform == "cpu"
    size = sum(leaf.size for leaf in jax.tree.leaves(abstract_encoder(shape))) / (fsdp * tensor)
    free = _MEMORY_SHARE * device.memory - _STATE * size if device.memory else math.inf
    free /= 1 + on_cpu  # there half is for holes between what was freed
    length, share = max(length for _, _, length in tasks), data * fsdp
    hidden, inner, width = shape.hidden_size, shape.intermediate_size, 2 if compute.dtype == "bfloat16" else 4
    bare = width * (12 * hidden + 3 * inner)  # bytes a token in one layer, but for attention's probabilities
    whole = bare + shape.num_heads * length * (8 + width)  # scores, probabilities, and those that were kept
    kept: dict[Remat, float] = {"none": whole, "attention": bare}
    kept |= {"dots": width * (6 * hidden + inner), "full": width * hidden}
    kept = kept if compute.remat == "auto" else {compute.remat: kept[compute.remat]}
    # Pairs are each other's wrong answers: their loss needs the whole batch.
    most = 1 if any(kind == "embed" for kind, *_ in tasks) else 10
    even = [2**power for power in range(most) if all(rows % (2**power * share) == 0 for _, rows, _ in tasks)]
    # With two a CPU's cores fill each other's gaps, which a loop over layers does not gain by.
    wide = on_cpu and hidden >= _WIDE and compute.layers != "loop" and most > 1
    least = 2 if wide and all(rows % 2 == 0 for _, rows, _ in tasks) else 1
    for parts in [wanted] if wanted and most > 1 else [parts for parts in even if parts >= least] or [least]:
        # Rows are filled up until each device has as many in each microbatch. A CPU works off two microbatches at once,
        # and holds what is kept of both.
        filled = [(kind, -(-rows // (parts * share)), longest) for kind, rows, longest in tasks]
        held = min(parts, 1 + on_cpu) * _tokens(filled)
        # One layer's own work comes on top of what is kept of all of them.
        room = free / held - whole
        remat = next((name for name, each in kept.items() if shape.num_layers * each <= room), None)
        if remat:
            break
    return parts, remat or list(kept)[-1]


def _tokens(tasks: Tasks) -> int:
    return max(rows * length * SEQUENCES.get(kind, 1) for kind, rows, length in tasks)


@dataclass(frozen=True)
class Choices:
    """How the steps of a phase are computed on a device; ``compile_tokens`` is what one more padded length costs."""

    device: str
    remat: Remat
    layers: Layers
    accumulation: int
    compile_tokens: float

    def apply(self, compute: Compute) -> Compute:
        return replace(compute, remat=self.remat, layers=self.layers)


def layers_of(device: Device, shape: EncoderConfig, tokens: float, steps: int = 0) -> Layers:
    """Returns whether the layers are written out to train on so many tokens: where that saves more than it costs.

    It saves a quarter of training's time on a CPU and a third on an H100, there at least 0.3 ms a layer and step, and
    nothing of prediction's; compiling takes longer by what a layer costs, times a few padded lengths.
    """
    if device.platform == "tpu" or shape.num_layers <= FEW_LAYERS:
        return "auto"
    saved = tokens * shape.training_flops() / device.rate / (4 if device.platform == "cpu" else 3)
    if device.platform == "gpu":
        saved = max(saved, steps * shape.num_layers * 3e-4)
    longer = device.compile_seconds(shape.num_layers) - device.compile_seconds(0)
    return "auto" if saved > _FEW_LENGTHS * longer else "loop"


def decide(settings: Settings, mesh: Mesh, shape: EncoderConfig, tasks: Tasks, steps: int) -> Choices:
    """Returns what the settings leave to the devices."""
    device, compute = this_device(mesh.size), settings.compute
    if compute.layers == "auto":  # half of a row is padding, about
        compute = replace(compute, layers=layers_of(device, shape, steps * _tokens(tasks) / 2, steps))
    wanted, sizes = settings.train.accumulation, [mesh.shape[name] for name in AXES]
    accumulation, remat = fit_memory(device, shape, compute, sizes, tasks, wanted)
    compute = replace(compute, remat=remat)
    written_out = shape.num_layers if writes_layers_out(shape, compute) else 0
    tokens_each = compile_tokens(device, shape.training_flops(), written_out)
    name = f"{device.count} x {device.kind}" + f", mesh {' x '.join(map(str, sizes))}" * (device.count > 1)
    return Choices(name, compute.remat, compute.layers, accumulation, tokens_each)
