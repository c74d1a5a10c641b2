"""Chips by name, and how many of them a topology's name means."""

import re
from dataclasses import dataclass

from stilts_jax.errors import ConfigError, nearest

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """What one chip can do at best; published figures, rounded.

    Attributes:
        flops: bfloat16 multiply-adds a second, times two; 0: not known, so that no time is promised.
        memory: bytes that a program can have.
        memory_bandwidth: bytes a second.
        link_bandwidth: bytes a second that a chip can send to its neighbours, over all of its links.
        network_bandwidth: the same beyond the slice (TPU) or host (GPU).
    """

    name: str
    flops: float
    memory: int
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float


# Memory of TPUs as their compiler counts it: a little less than on the label.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, int(30.75 * GIB), 1.2e12, 270e9, 6.25e9),
        Chip("v5e", 197e12, int(15.75 * GIB), 0.82e12, 180e9, 3.125e9),
        Chip("v5p", 459e12, int(94.75 * GIB), 2.76e12, 540e9, 6.25e9),
        Chip("v6e", 918e12, int(31.25 * GIB), 1.64e12, 360e9, 12.5e9),
        Chip("h100", 989e12, 80 * 10**9, 3.35e12, 450e9, 50e9),
        Chip("h200", 989e12, 150754820096, 4.8e12, 450e9, 50e9),
        Chip("cpu", 0.0, 0, 0.0, 0.0, 0.0),
    )
}


@dataclass(frozen=True)
class Topology:
    """Chips and their arrangement.

    Attributes:
        shape: of one slice of TPUs; (hosts, GPUs a host); (devices,) of a CPU.
        slices: how many equal slices of TPUs are joined by a data-centre network.
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def platform(self) -> str:
        """``tpu``, ``cuda`` or ``cpu``."""
        name = self.chip.name
        return "cpu" if name == "cpu" else "tpu" if name.startswith("v") else "cuda"

    @property
    def count(self) -> int:
        """How many chips there are."""
        count = self.slices
        for size in self.shape:
            count *= size
        return count

    @property
    def name(self) -> str:
        """The name that ``parse_topology`` reads."""
        shape = self.shape[1:] if self.platform == "cuda" and self.shape[0] == 1 else self.shape
        slices = f"*{self.slices}" if self.slices > 1 else ""
        return f"{self.chip.name}:{'x'.join(map(str, shape))}{slices}"


def parse_topology(name: str) -> Topology:
    """Reads ``v5e:16x16``, ``v5e:16x16*4`` (slices), ``v4:4x4x8``, ``h200:8``, ``h200:4x8``, ``cpu:8``."""
    kind, _, arrangement = name.partition(":")
    if kind not in CHIPS:
        raise ConfigError(f"There is no chip {kind!r}.", where=f"topology {name}", fix=nearest(kind, CHIPS))
    match = re.fullmatch(r"([1-9]\d*(?:x[1-9]\d*){0,2})(?:\*([1-9]\d*))?", arrangement)
    shape = tuple(map(int, match[1].split("x"))) if match else ()
    slices = int(match[2] or 1) if match else 1
    dimensions = {"cpu": (1,), "h100": (1, 2), "h200": (1, 2), "v5e": (2,), "v6e": (2,)}.get(kind, (3,))
    if len(shape) not in dimensions or (slices > 1 and not kind.startswith("v")):
        raise ConfigError(
            f"{name!r} names no arrangement of chips.",
            where="topology",
            fix="such as v5e:16x16, v6e:8x8*2 (two slices), v4:4x4x8, h200:8 (GPUs), h200:4x8 (hosts), cpu:8",
        )
    if kind in ("h100", "h200") and len(shape) == 1:
        shape = (1, *shape)
    return Topology(CHIPS[kind], shape, slices)
