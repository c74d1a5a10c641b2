"""What is chosen by the device where no option says it: pure functions of recorded figures, so a run that is resumed
chooses the same again. None of these choices changes what is learnt beyond rounding, and none is in a key.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from stilts_jax.chips import find_chip
from stilts_jax.model import EncoderConfig
from stilts_jax.settings import Remat

MAX_LENGTHS = 16  # padded lengths of a task at most, however long the run
_SMALL_BATCH, _LARGE_BATCH = 2048, 16384  # padded tokens of a prediction batch on one device
_WIDE = 256  # hidden width from which a microbatch keeps a core busy
_MEMORY_SHARE = 0.8  # of a device's memory; the rest is for what the compiler adds
_STATE = 16  # bytes a parameter: itself, its gradient and two moments, in float32


@dataclass(frozen=True)
class Device:
    """Where a model runs.

    Attributes:
        kind: as JAX names it.
        count: how many there are.
        memory: bytes of one of them; 0: not known, or a host's.
    """

    kind: str
    count: int = 1
    memory: int = 0

    @property
    def is_cpu(self) -> bool:
        """Whether the devices are processors."""
        return self.kind == "cpu"

    @property
    def rate(self) -> float:
        """FLOP/s that training reaches on all of them: of the order of two cores, or 0.4 of the peak of a chip."""
        chip = find_chip(self.kind)
        return 5e10 if self.is_cpu else self.count * 0.4 * (chip.flops if chip and chip.flops else 2e14)

    def compile_seconds(self, written_out: int) -> float:
        """Seconds that one more shape costs by compiling, where some layers are written out.

        Of the order of what two cores take. Elsewhere assumed: 20 seconds, which the cache on disk shares out over
        seeds, phases and evaluations, four at least.
        """
        return 3.0 + 2.0 * written_out if self.is_cpu else 20.0 / 4


def this_device(count: int) -> Device:
    """Returns the devices of this process's backend, ``count`` of them."""
    first = jax.local_devices()[0]
    memory = 0 if first.platform == "cpu" else (first.memory_stats() or {}).get("bytes_limit", 0)
    return Device(first.device_kind, count, memory)


def compile_tokens(device: Device, flops_per_token: float, written_out: int = 0) -> float:
    """Returns how many tokens the device works off in the time that one more shape takes to compile.

    Args:
        flops_per_token: of training; prediction computes a third and compiles in a third of the time.
        written_out: layers that stand one behind the other in the program.
    """
    return device.compile_seconds(written_out) * device.rate / flops_per_token


def prediction_tokens(device: Device, tokens: int) -> int:
    """Returns the padded tokens of a prediction batch, from the tokens that are to be predicted in all.

    A CPU gains nothing by large batches, and small ones are padded less. Elsewhere there are eight batches at least.
    """
    if device.is_cpu:
        return _SMALL_BATCH
    return min(max(tokens // 8, _SMALL_BATCH), _LARGE_BATCH * device.count)


def microbatches(device: Device, batch_sizes: Sequence[int], hidden_size: int, *, whole: bool = False) -> int:
    """Returns the microbatches of a step: two where the cores of a CPU can fill each other's gaps, else one.

    Args:
        whole: whether some loss needs the whole batch at once.
    """
    pairs = device.is_cpu and hidden_size >= _WIDE and all(size % 2 == 0 for size in batch_sizes)
    return 2 if pairs and not whole else 1


def rematerialisation(
    device: Device, shape: EncoderConfig, *, parameters: float, tokens: int, length: int, width: int
) -> Remat:
    """Returns the least rematerialisation whose activations fit beside the state; none where memory is not known.

    Args:
        parameters: on one device.
        tokens: of a microbatch on one device, padding included.
        length: of a row.
        width: bytes of an activation.
    """
    free = _MEMORY_SHARE * device.memory - _STATE * parameters if device.memory else math.inf
    hidden, inner = shape.hidden_size, shape.intermediate_size
    scores = shape.num_heads * length * (8 + width)  # scores and probabilities, and those that were kept
    kept: dict[Remat, float] = {  # bytes a token in one layer
        "none": width * (12 * hidden + 3 * inner) + scores,
        "attention": width * (12 * hidden + 3 * inner),
        "dots": width * (6 * hidden + inner),
    }
    # One layer's own work comes on top of what is kept of all of them.
    fitting = [
        name for name, size in kept.items() if tokens * (shape.num_layers * size + kept["none"]) <= free
    ]
    return fitting[0] if fitting else "full"
