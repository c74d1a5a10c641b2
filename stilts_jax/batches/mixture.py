"""Several tasks trained together, one task a step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stilts_jax.batches.plan import TrainingBatches
from stilts_jax.batches.schedule import Schedule
from stilts_jax.errors import ConfigError
from stilts_jax.features.records import Batch


@dataclass(frozen=True)
class Sampler:
    """How often each task comes.

    Attributes:
        kind: uniform: each as often; proportional: by its number of rows; capped: likewise, but no more than
            ``cap`` rows count; temperature: rows to the power of 1/``temperature``; weights: as given.
        cap: rows of a task that count, at most. Phase lengths count them whatever the kind (``count_steps``).
        weights: by task.
    """

    kind: Literal["uniform", "proportional", "capped", "temperature", "weights"] = "capped"
    cap: int = 131072
    temperature: float = 2.0
    weights: tuple[tuple[str, float], ...] = ()

    def weigh(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Returns the weight of each task from its number of rows."""
        if self.kind == "uniform":
            return dict.fromkeys(sizes, 1.0)
        if self.kind == "proportional":
            return {name: float(size) for name, size in sizes.items()}
        if self.kind == "capped":
            return {name: float(min(size, self.cap)) for name, size in sizes.items()}
        if self.kind == "temperature":
            return {name: size ** (1 / self.temperature) for name, size in sizes.items()}
        if self.kind != "weights":
            raise ConfigError(f"there is no sampler {self.kind!r}")
        given = dict(self.weights)
        if set(given) != set(sizes):
            raise ConfigError(
                f"weights are given for {sorted(given)}, but the tasks are {sorted(sizes)}",
                fix="give exactly one weight for each task",
            )
        return {name: given[name] for name in sizes}


def count_steps(tasks: Sequence[tuple[int, float, int]], cap: int = 131072) -> int:
    """The length of a phase: the sum of epochs * ceil(min(rows, cap) / batch size).

    Args:
        tasks: (rows, epochs, batch size) of each.
        cap: rows of a task that count, at most.
    """
    return sum(round(epochs * -(-min(rows, cap) // batch_size)) for rows, epochs, batch_size in tasks)


class Mixture:
    """The batches of several tasks, in an order that is a pure function of (seed, step).

    Attributes:
        shares: of the steps, by task.
    """

    def __init__(
        self, tasks: Mapping[str, TrainingBatches], sampler: Sampler, seed: int, *, block: int = 64
    ) -> None:
        self._tasks = list(tasks.items())
        weights = sampler.weigh({name: batches.num_rows for name, batches in self._tasks})
        self._schedule = Schedule(
            [weights[name] for name, _ in self._tasks], seed, block=block, purpose="tasks"
        )
        self.shares = {name: float(share) for (name, _), share in zip(self._tasks, self._schedule.shares)}

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that a batch can have, task by task; each is compiled once."""
        return tuple(shape for _, batches in self._tasks for shape in batches.shapes)

    def task_at(self, step: int) -> str:
        """The task whose turn it is."""
        return self._tasks[self._schedule.at(step)[0]][0]

    def batch_at(self, step: int) -> Batch:
        """The next batch of the task whose turn it is."""
        number, occurrence = self._schedule.at(step)
        return self._tasks[number][1].batch_at(occurrence)
