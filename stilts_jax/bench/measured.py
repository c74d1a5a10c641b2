"""What a contender did in its rounds, and how two of them compare."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stilts_jax.bench.device import Device
from stilts_jax.experiment.flops import training_flops_per_token
from stilts_jax.model import EncoderConfig


@dataclass(frozen=True)
class Round:
    """One turn of one contender.

    Attributes:
        lengths: int64 [rows], real tokens of each row that was computed.
        shapes: [[rows, length], ...] of the batches as they were computed.
        attended: of each batch, the length that its rows attend over: as ``shapes`` has it.
    """

    seconds: float
    lengths: np.ndarray
    shapes: Sequence[tuple[int, int]]

    @property
    def positions(self) -> int:
        """Tokens computed, padding included."""
        return sum(rows * length for rows, length in self.shapes)

    def flops(self, encoder: EncoderConfig, *, padded: bool) -> float:
        """Multiply-adds, times two, of layers and attention in a training step; a third of it forward.

        Embeddings, heads and what is computed twice do not count. The last layer counts in full for everybody,
        though before a sentence head we compute but one token of it on a CPU.
        """
        if padded:
            return sum(
                rows * length * training_flops_per_token(encoder, length) for rows, length in self.shapes
            )
        return float(
            sum(length * training_flops_per_token(encoder, length) for length in self.lengths.tolist())
        )


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

    def summarise(self, encoder: EncoderConfig, device: Device, *, training: bool) -> dict[str, Any]:
        """Returns medians over the rounds, and their spread."""
        share = 1.0 if training else 1 / 3
        seconds = sum(one.seconds for one in self.rounds)
        real = sum(one.flops(encoder, padded=False) for one in self.rounds) * share / seconds
        padded = sum(one.flops(encoder, padded=True) for one in self.rounds) * share / seconds
        tokens = sum(int(one.lengths.sum()) for one in self.rounds)
        rates, limit = self.rates, device.matmul * device.count
        return {
            "name": self.name,
            "settings": self.settings,
            "examples_per_second": float(np.median(rates)),
            "spread": [float(rates.min()), float(rates.max())],
            "real_tokens_per_second": float(
                np.median([one.lengths.sum() / one.seconds for one in self.rounds])
            ),
            "padding_share": 1 - tokens / sum(one.positions for one in self.rounds),
            "milliseconds_a_batch": 1e3
            * float(np.median([one.seconds / len(one.shapes) for one in self.rounds])),
            "utilisation": real / limit,
            "utilisation_padded": padded / limit,
            "utilisation_of_peak": real / (device.peak * device.count) if device.peak else None,
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
