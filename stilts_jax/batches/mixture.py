"""Several tasks trained together, one task a step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stilts_jax.batches.plan import TrainingBatches
from stilts_jax.batches.schedule import Schedule
from stilts_jax.errors import ConfigError
from stilts_jax.features.records import Batch


@dataclass(frozen=True)
class Sampler:
    """How often each task comes.

    Attributes:
        kind: uniform: each as often; proportional: by its number of rows; capped: likewise, but no more than
            ``cap`` rows count; temperature: rows to the power of 1/``temperature``; weights: as given, by task.
    """

    kind: Literal["uniform", "proportional", "capped", "temperature", "weights"] = "capped"
    cap: int = 131072
    temperature: float = 2.0
    weights: tuple[tuple[str, float], ...] = ()

    def weigh(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Returns the weight of each task from its number of rows."""
        given = dict(self.weights)
        if self.kind == "weights" and set(given) != set(sizes):
            raise ConfigError(
                f"weights are given for {sorted(given)}, but the tasks are {sorted(sizes)}",
                fix="give exactly one weight for each task",
            )
        rules = {
            "uniform": lambda name, size: 1.0,
            "proportional": lambda name, size: float(size),
            "capped": lambda name, size: float(min(size, self.cap)),
            "temperature": lambda name, size: size ** (1 / self.temperature),
            "weights": lambda name, size: given[name],
        }
        return {name: rules[self.kind](name, size) for name, size in sizes.items()}


def count_steps(tasks: Sequence[tuple[int, float, int]], cap: int = 131072) -> int:
    """The length of a phase: the sum of epochs * ceil(min(rows, cap) / batch size) over (rows, epochs, batch size)."""
    return sum(round(epochs * -(-min(rows, cap) // batch_size)) for rows, epochs, batch_size in tasks)


class Mixture:
    """The batches of several tasks, in an order that is a pure function of (seed, step).

    Attributes:
        shares: of the steps, by task.
        shapes: those that a batch can have, task by task; each is compiled once.
    """

    def __init__(
        self, tasks: Mapping[str, TrainingBatches], sampler: Sampler, seed: int, *, block: int = 64
    ) -> None:
        self._tasks = list(tasks.values())
        weights = sampler.weigh({name: batches.num_rows for name, batches in tasks.items()})
        self._schedule = Schedule([weights[name] for name in tasks], seed, block=block, purpose="tasks")
        self.shares = dict(zip(tasks, self._schedule.shares.tolist()))
        self.shapes = tuple(shape for batches in self._tasks for shape in batches.shapes)

    def batch_at(self, step: int) -> Batch:
        """The next batch of the task whose turn it is."""
        number, occurrence = self._schedule.take(np.array([step]))[:, 0].tolist()
        return self._tasks[number].batch_at(occurrence)
