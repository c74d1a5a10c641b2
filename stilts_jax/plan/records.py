"""What is planned, and what came out: plain records that travel between processes as JSON."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stilts_jax.model.config import Compute, EncoderConfig, HeadConfig, Model
from stilts_jax.plan.chips import Topology, parse_topology
from stilts_jax.plan.hlo import Collective
from stilts_jax.sharding import MeshConfig
from stilts_jax.train.optimizer import OptimizerConfig

HEAD = "task"  # the one head that a planned model has


@dataclass(frozen=True)
class Setup:
    """One training step on one arrangement of chips: all that its compilation depends on.

    Attributes:
        rows: of a step's batch, over all devices and microbatches.
        length: tokens a row.
        topology: see ``parse_topology``.
        evaluation: whether the evaluation step is compiled too; it needs less than the training step.
    """

    encoder: EncoderConfig
    head: HeadConfig
    compute: Compute
    optimizer: OptimizerConfig
    rows: int
    length: int
    topology: str
    mesh: MeshConfig = field(default_factory=MeshConfig)
    accumulation: int = 1
    zero1: bool = False
    evaluation: bool = True

    @property
    def model(self) -> Model:
        """The model with its one head, compiled for the chips and not for what is here."""
        platforms: dict[str, Literal["cpu", "gpu", "tpu"]] = {"cuda": "gpu", "tpu": "tpu", "cpu": "cpu"}
        platform = platforms[self.chips().platform]
        return Model(self.encoder, ((HEAD, self.head),), replace(self.compute, platform=platform))

    def chips(self) -> Topology:
        """The chips behind the topology's name."""
        return parse_topology(self.topology)

    def describe(self) -> str:
        """The settings that a plan may change, in one line."""
        mesh = " ".join(f"{name}={size}" for name, size in dataclasses.asdict(self.mesh).items())
        zero1 = ", zero1" if self.zero1 else ""
        return (
            f"mesh {mesh}{zero1}, remat {self.compute.remat}, accumulation {self.accumulation}, "
            f"parameters {self.compute.param_dtype}, first moment {self.optimizer.moment_dtype}"
        )


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, as the compiler counts them.

    Attributes:
        arguments: what goes into the step and stays on the device.
        temporaries: activations, gathered weights, gradients.
        unaliased_outputs: results that do not take the memory of an argument.
    """

    arguments: int
    temporaries: int
    unaliased_outputs: int

    @property
    def total(self) -> int:
        """What the device must have."""
        return self.arguments + self.temporaries + self.unaliased_outputs


@dataclass(frozen=True)
class Plan:
    """What a setup needs, and how fast it can be at best.

    Attributes:
        num_parameters: of encoder and head.
        parameters: bytes on one device, like the two next.
        optimizer: the moments.
        batch: a step's batch.
        train: of the training step; None if the compiler gave up because memory does not suffice.
        evaluate: of the evaluation step; None likewise.
        failure: the compiler's words about that.
        collectives: of the training step.
        model_flops: multiply-adds (times two) that the method needs for a step, without recomputation.
        executed_flops: those of all matrix products that the step runs, with recomputation.
        seconds: lower bounds of a step's time, by what limits it: compute, memory, links, network.
        notes: parameters that could not be cut as the rules say.
        compile_seconds: for both steps.
        host_memory: peak of the planning process in bytes.
    """

    setup: Setup
    num_parameters: int
    parameters: int
    optimizer: int
    batch: int
    train: Memory | None
    evaluate: Memory | None
    failure: str
    collectives: tuple[Collective, ...]
    model_flops: float
    executed_flops: float
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
    compile_seconds: float
    host_memory: int

    @property
    def fits(self) -> bool:
        """Whether the steps fit the chip; a CPU's memory is not judged."""
        available = self.setup.chips().chip.memory or math.inf
        needed = (self.train, self.evaluate) if self.setup.evaluation else (self.train,)
        return all(memory is not None and memory.total <= available for memory in needed)

    @property
    def bound(self) -> float:
        """Seconds that a step takes at least; 0 if the chip's speed is not known."""
        return max(self.seconds.values(), default=0.0)

    @property
    def limit(self) -> str:
        """What bounds the step's time."""
        return max(self.seconds, key=lambda name: self.seconds[name], default="")


def to_json(record: Any) -> Any:
    """Returns a record as plain JSON values."""
    return dataclasses.asdict(record)


def setup_from_json(values: Mapping[str, Any]) -> Setup:
    """Undoes ``to_json`` of a setup."""
    kinds = {
        "encoder": EncoderConfig,
        "head": HeadConfig,
        "compute": Compute,
        "optimizer": OptimizerConfig,
        "mesh": MeshConfig,
    }
    return Setup(**{name: kinds[name](**value) if name in kinds else value for name, value in values.items()})


def plan_from_json(values: Mapping[str, Any]) -> Plan:
    """Undoes ``to_json`` of a plan."""
    changed = {
        "setup": setup_from_json(values["setup"]),
        "train": values["train"] and Memory(**values["train"]),
        "evaluate": values["evaluate"] and Memory(**values["evaluate"]),
        "collectives": tuple(Collective(**item) for item in values["collectives"]),
        "notes": tuple(values["notes"]),
    }
    return Plan(**{**values, **changed})
