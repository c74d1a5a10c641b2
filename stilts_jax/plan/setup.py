"""What is planned, what came out, and what follows from the shapes alone: products, bytes sent, least seconds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.sharding import Mesh

from stilts_jax.chips import Topology, parse_topology
from stilts_jax.model.config import Compute, EncoderConfig, HeadConfig, Model
from stilts_jax.sharding import AXES, MeshConfig, mesh_shape, parameter_paths, shardings
from stilts_jax.train.optimizer import OptimizerConfig

HEAD = "task"  # the one head that a planned model has
CHOICES = 4  # of a multiple-choice task


@dataclass(frozen=True)
class Setup:
    """One training step on one arrangement of chips: all that its compilation depends on."""

    encoder: EncoderConfig
    head: HeadConfig
    compute: Compute
    optimizer: OptimizerConfig
    rows: int  # of a step's batch, over all devices and microbatches
    length: int  # tokens a row
    topology: str  # see ``parse_topology``
    mesh: MeshConfig = field(default_factory=MeshConfig)
    accumulation: int = 1
    evaluation: bool = True  # the evaluation step is compiled too; it needs less than the training step
    filler: int = 0  # how many of the rows only fill up the devices

    def completed(self) -> "Setup":
        """Returns the setup as the loop would run it: sizes of all axes, and rows that the devices can share."""
        mesh = MeshConfig(*mesh_shape(self.mesh, self.chips.count), zero1=self.mesh.zero1)
        filler = -self.rows % (mesh.data * mesh.fsdp * self.accumulation)
        return replace(self, mesh=mesh, rows=self.rows + filler, filler=self.filler + filler)

    @property
    def model(self) -> Model:
        """The model with its one head, compiled for the chips and not for what is here."""
        platform: Any = {"cuda": "gpu"}.get(self.chips.platform, self.chips.platform)
        return Model(self.encoder, ((HEAD, self.head),), replace(self.compute, platform=platform))

    @property
    def chips(self) -> Topology:
        """The chips behind the topology's name."""
        return parse_topology(self.topology)

    @property
    def tokens(self) -> int:
        """Tokens that the encoder sees in a step: choices and pairs are several sequences per row."""
        seen = self.head.pictures * self.head.patches
        return self.rows * ({"choice": CHOICES, "embed": 2}.get(self.head.kind, 1) * self.length + seen)

    @property
    def masked(self) -> int:
        """Masked positions of a row in masked language modelling."""
        return math.ceil(0.15 * self.length)

    @property
    def width(self) -> int:
        """Bytes of an activation."""
        return 2 if self.compute.dtype == "bfloat16" else 4

    def describe(self) -> str:
        """The settings that a plan may change, in one line."""
        mesh = " ".join(f"{name}={getattr(self.mesh, name)}" for name in AXES)
        return (
            f"mesh {mesh}{', zero1' * self.mesh.zero1}, remat {self.compute.remat}, accumulation "
            f"{self.accumulation}, first moment {self.optimizer.moment_dtype}"
        )


@dataclass(frozen=True)
class Plan:
    """What a setup needs, and how fast it can be at best; memory is bytes on one device."""

    setup: Setup
    num_parameters: int  # of encoder and head
    parameters: int
    optimizer: int  # the moments
    batch: int
    train: Mapping[str, int]  # what the compiled step takes, by part; empty where memory did not suffice
    evaluate: Mapping[str, int]
    failure: str  # the compiler's words about that
    sent: float  # bytes that a device sends in a step, by the shapes of its shards
    model_flops: float  # multiply-adds (times two) that the method needs for a step, without recomputation
    executed_flops: float  # those of all matrix products that the step runs, with recomputation
    seconds: Mapping[str, float]  # a step takes at least so long by compute, memory, links, network
    notes: tuple[str, ...]  # parameters that could not be cut as the rules say
    # Bytes at each stage of a state's life; of the compiled ones (initialise, step) with what is needed meanwhile.
    stages: Mapping[str, int] = field(default_factory=dict)

    @property
    def bound(self) -> float:
        """Seconds that a step takes at least; 0 if the chip's speed is not known."""
        return max(self.seconds.values(), default=0.0)

    @property
    def limit(self) -> str:
        """What bounds the step's time."""
        return max(self.seconds, key=lambda name: self.seconds[name], default="")

    @property
    def fits(self) -> bool:
        """Whether the steps fit the setup's chip; a CPU's memory is not judged."""
        available = self.setup.chips.chip.memory or math.inf
        needed = (self.train, self.evaluate) if self.setup.evaluation else (self.train,)
        return all(memory and sum(memory.values()) <= available for memory in needed)


def model_flops(setup: Setup) -> float:
    """Multiply-adds, times two, that training on a batch needs: forward, and twice that backward.

    Embedding look-ups and heads that only read one position count as nothing, as usual.
    """
    shape, total = setup.encoder, setup.tokens * setup.encoder.training_flops(setup.length)
    if setup.head.kind == "mlm":
        total += 6.0 * setup.rows * setup.masked * shape.hidden_size * (shape.hidden_size + shape.vocab_size)
    return total


def bytes_sent(setup: Setup, params: Any, mesh: Mesh) -> float:
    """Returns the bytes that one device sends in a step at least, by the best ring algorithms.

    Under ``fsdp`` the forward and the backward pass gather each parameter, and its gradient is summed and cut; under
    ``data`` the gradient is summed over copies; under ``tensor`` each layer sums its activations twice per pass. What
    a compiler adds to that is not counted.
    """
    data, fsdp, tensor = (mesh.shape[axis] for axis in AXES)
    passes = 3 if setup.compute.remat == "full" else 2
    total = 0.0
    for (path, leaf), place in zip(parameter_paths(params), jax.tree.leaves(shardings(params, mesh))):
        shard = math.prod(place.shard_shape(leaf.shape))
        whole = leaf.size / (tensor if "tensor" in jax.tree.leaves(tuple(place.spec)) else 1)
        if not path.endswith("embeddings/word"):  # devices exchange the rows that they look up, as below
            total += 3 * setup.accumulation * setup.width * (whole - shard)
        total += 2 * setup.width * shard * (data - 1) / data
    hidden = setup.width * setup.tokens / (data * fsdp) * setup.encoder.hidden_size
    sums = 2 * passes * setup.encoder.num_layers * hidden * 2 * (tensor - 1) / tensor
    return total + sums + 2 * hidden * (fsdp - 1) / fsdp


def bound_seconds(setup: Setup, executed: float, arguments: int, sent: float) -> Mapping[str, float]:
    """Returns lower bounds of a step's seconds by what limits it; empty for a chip of unknown speed.

    Memory: parameters and moments (``arguments``) are read and written once, and the layers' weights are read in every
    pass. Links: all that is sent, at the speed of all links together. Network: every device's own part of the gradient
    is summed over slices of TPUs, or over hosts of GPUs.
    """
    topology, shape, chip = setup.chips, setup.encoder, setup.chips.chip
    if not chip.flops:
        return {}
    layers = shape.num_layers * (4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size)
    passes = (3 if setup.compute.remat != "none" else 2) * setup.accumulation
    groups = topology.shape[0] if topology.platform == "cuda" else topology.slices
    parts = max(1, setup.mesh.fsdp * setup.mesh.tensor)
    gradient = setup.width * (layers + shape.vocab_size * shape.hidden_size) / parts
    weights = passes * setup.width * layers / max(1, setup.mesh.tensor)
    return {
        "compute": executed / topology.count / chip.flops,
        "memory": (2 * arguments + weights) / chip.memory_bandwidth,
        "links": sent / chip.link_bandwidth,
        "network": 2 * gradient * (groups - 1) / groups / chip.network_bandwidth,
    }
