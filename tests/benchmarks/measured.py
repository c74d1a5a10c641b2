"""What a contender did in its rounds, and how two of them compare."""

import resource
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.bench import Round, summarise
from stilts_jax.model import EncoderConfig
from stilts_jax.train.logs import device_memory


@dataclass
class Contender:
    """A way to do the work, with its rounds."""

    name: str
    settings: str
    rounds: list[Round] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def rates(self) -> np.ndarray:
        """Examples a second of each round."""
        return np.array([len(one.lengths) / one.seconds for one in self.rounds])

    def summarise(self, encoder: EncoderConfig, matmul: float, *, training: bool) -> dict[str, Any]:
        """Returns what it did, as ``stilts bench`` counts it."""
        batches = [one.seconds / len(one.shapes) for one in self.rounds]
        return {
            "name": self.name,
            "settings": self.settings,
            **summarise(self.rounds, encoder, matmul, training=training),
            "milliseconds_a_batch": 1e3 * float(np.median(batches)),
            "memory": self.memory,
        }


def compare(ours: Contender, peer: Contender) -> dict[str, Any]:
    """Returns how many times the peer's examples a second ours are."""
    paired = ours.rates / peer.rates
    return {
        "peer": peer.name,
        "ratio_of_medians": float(np.median(ours.rates) / np.median(peer.rates)),
        "median_of_paired_ratios": float(np.median(paired)),
        "paired_ratios": [float(ratio) for ratio in paired],
    }


def memory_used() -> dict[str, float]:
    """Returns peaks so far in GiB: of the process on the host, and of the first device, where it says."""
    on_device = device_memory()
    return host_memory_used() | ({} if on_device is None else {"device_gib": on_device / 2**30})


def host_memory_used() -> dict[str, float]:
    """Returns the peak of the process on the host in GiB."""
    # Of a process that another one started, ``ru_maxrss`` is at least the other's: Linux hands it on.
    with suppress(OSError, IndexError):
        peak = Path("/proc/self/status").read_text("ascii").partition("VmHWM:")[2]
        return {"host_gib": int(peak.split()[0]) / 2**20}
    unit = 1024 if sys.platform != "darwin" else 1
    return {"host_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
