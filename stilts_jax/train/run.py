"""One training run: its state, its checkpoints and its logs."""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from stilts_jax import interruption
from stilts_jax.checkpoint import Checkpoints
from stilts_jax.errors import ConfigError, TrainingError
from stilts_jax.progress import Progress, format_seconds, seconds_since_start
from stilts_jax.sharding import state_shardings
from stilts_jax.train.checks import check_batch
from stilts_jax.train.compiled import CompiledSteps
from stilts_jax.train.logs import JsonLines, TensorBoard, Work, count_tokens, device_memory
from stilts_jax.train.optimizer import OptimizerConfig
from stilts_jax.train.selection import best_step, is_out_of_patience
from stilts_jax.train.state import TrainState
from stilts_jax.train.step import LossFn
from stilts_jax.train.trees import Params


class BatchLike(Protocol):
    """What ``batch_at`` returns: one task's rows on this host."""

    @property
    def task(self) -> str:
        """Whose head and loss it takes."""

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """What goes to the device, leading axis B."""

    @property
    def rows(self) -> np.ndarray:
        """Row numbers [B], to name a bad batch; -1 in rows that only fill up."""


@dataclass(frozen=True)
class LoopConfig:
    """How long to train, and what happens on the way.

    Attributes:
        seed: of dropout.
        accumulation: microbatches per step.
        log_every: steps between lines of the two logs.
        evaluate_every: steps between calls of ``select``; 0: only at the end.
        save_every: steps between checkpoints, 0: only the last; a step that is the best so far is saved
            in any case.
        keep: newest checkpoints that stay, besides the best one.
        patience: evaluations without a gain after which the run stops; 0: never.
        max_skipped: steps with a non-finite loss that may be left out before the run stops.
        rng: implementation of the random keys.
        pad_id: the padding in ``tokens``, for counting the rest.
        shapes: how many shapes batches have, to say how many of them are compiled; 0: not known.
    """

    total_steps: int
    seed: int
    accumulation: int = 1
    log_every: int = 10
    evaluate_every: int = 0
    save_every: int = 1000
    keep: int = 2
    patience: int = 0
    max_skipped: int = 0
    rng: str = "threefry2x32"
    pad_id: int = 1
    shapes: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("seed", 0, 2**32 - 1), ("accumulation", 1, 2**31), ("log_every", 1, 2**31)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is out of range.",
                    where=f"LoopConfig.{name}",
                    fix=f"at least {low} and at most {high}",
                )


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run leaves behind.

    Attributes:
        params: of the best step if there was a selection, else of the last.
        step: that step.
        skipped: steps that were left out because their loss was not finite.
        history: [[step, score], ...] of all evaluations.
        curve: [[step, loss], ...] as logged.
        work: what was done over all launches.
    """

    params: Params
    step: int
    skipped: tuple[int, ...]
    history: list[list[float]]
    curve: list[list[float]]
    work: Work


class Run:
    """The host's side of a run: its state, logs and checkpoints, with the actions that the loop repeats."""

    _announced = False

    def __init__(
        self,
        state: TrainState,
        config: LoopConfig,
        optimizer: OptimizerConfig,
        losses: Mapping[str, LossFn],
        directory: str | os.PathLike,
        select: Callable[[Params], float] | None,
        mesh: Mesh | None,
        zero1: bool,
        flops_per_token: float | None,
        tensorboard: bool,
        progress: Progress,
    ) -> None:
        self.config = config
        self.step = 0
        self.history: list[list[float]] = []
        self.skipped: list[int] = []
        self.shown: dict[str, float | str] = {}
        self._select, self._flops_per_token, self._progress = select, flops_per_token, progress
        self._pending: tuple[int, BatchLike, dict[str, jax.Array]] | None = None
        self._work, self._logged = Work(), Work()
        self._saved_step = 0
        folder = epath.Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        first = jax.process_index() == 0
        self._directory = folder
        self._shardings = state_shardings(state, mesh, zero1=zero1) if mesh else None
        self._steps = CompiledSteps(
            losses,
            optimizer,
            seed=config.seed,
            accumulation=config.accumulation,
            rng=config.rng,
            mesh=mesh,
            shardings=self._shardings,
        )
        self._checkpoints = Checkpoints(folder / "checkpoints", keep=config.keep, progress=progress)
        self._metrics = JsonLines(folder / "metrics.jsonl", enabled=first)
        self._timings = JsonLines(folder / "timings.jsonl", enabled=first)
        self._board = TensorBoard(folder / "tensorboard") if tensorboard and first else None
        self._state = self._restore(state)
        self._mark = time.monotonic()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:  # all of them, whatever the others do
            stack.callback(self._checkpoints.close)
            stack.callback(self._metrics.close)
            stack.callback(self._timings.close)
            if self._board:
                stack.callback(self._board.close)

    def _restore(self, state: TrainState) -> TrainState:
        """Returns the state of the newest intact checkpoint, or ``state``, sharded over the mesh."""
        abstract = self._abstract(state)
        found = None
        if self._checkpoints.steps():
            jax.tree.map(
                lambda leaf: leaf.delete() if isinstance(leaf, jax.Array) else None, state
            )  # make room
            found = self._checkpoints.restore_newest({"params": abstract.params, "moments": abstract.moments})
        if not found:
            self._metrics.cut(0)
            return jax.device_put(state, self._shardings) if self._shardings else state
        self.step, items, record = found
        self._saved_step = self.step
        self.history, self.skipped = record["history"], record["skipped"]
        self._work = self._logged = Work(**record["work"])
        self._metrics.cut(record["metrics_size"])
        if self._metrics.digest() not in ("", record["metrics_digest"]):
            self._progress.say(
                f"warning: {self._directory}/metrics.jsonl is not what it was: lines of earlier steps are missing or "
                "wrong in the curve; the training itself is not affected"
            )
        self._progress.say(f"going on after step {self.step}")
        step = jnp.asarray(self.step, jnp.int32)
        if self._shardings:
            step = jax.device_put(step, self._shardings.step)
        return TrainState(step=step, params=items["params"], moments=items["moments"])

    def _abstract(self, state: TrainState) -> TrainState:
        if self._shardings is None:
            return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state,
            self._shardings,
        )

    @property
    def work(self) -> Work:
        """What was done so far, over all launches."""
        return self._work

    def compiling(self, batch: BatchLike) -> str:
        """Says which shape has to be compiled before a step on ``batch``; nothing where that is done."""
        if self._steps.is_compiled(batch.task, batch.arrays):
            return ""
        total = f" of {self.config.shapes}" if self.config.shapes else ""
        return f"compiling {self._steps.count + 1}{total}"

    @property
    def compile_seconds(self) -> float:
        """How long this launch has compiled."""
        return self._steps.seconds

    @property
    def cached(self) -> int:
        """How many compiled steps of this launch came from the cache on disk."""
        return self._steps.cached

    def is_finished(self) -> bool:
        """Says whether all steps are taken, or patience is at an end."""
        return self.step >= self.config.total_steps or is_out_of_patience(self.history, self.config.patience)

    def evaluate(self) -> None:
        """Scores the parameters if an evaluation is due and the checkpoint does not hold its score already."""
        every, last = self.config.evaluate_every, self.step >= self.config.total_steps
        due = last or (every and self.step and self.step % every == 0)
        if not self._select or not due or (self.history and self.history[-1][0] == self.step):
            return
        self.fetch()
        with interruption.deferred(False):  # may take long, and nothing is lost when it is left
            score = float(self._select(self._state.params))
        self.history.append([self.step, score])
        self._write({"step": self.step, "score": score})
        self.shown["score"] = score
        self._mark = time.monotonic()

    def save(self, *, at_once: bool) -> None:
        """Saves if a checkpoint is due, if this step is the best so far, or if ``at_once``."""
        best = best_step(self.history)
        every = self.config.save_every
        due = at_once or best == self.step or (every and self.step % every == 0)
        if not due or self.step == self._saved_step:
            return
        self.fetch()
        record = {
            "history": self.history,
            "skipped": self.skipped,
            "work": asdict(self._work),
            "metrics_size": self._metrics.sync(),
            "metrics_digest": self._metrics.digest(),
        }
        items = {"params": self._state.params, "moments": self._state.moments}
        self._checkpoints.save(self.step, items, record, protect=[] if best is None else [best])
        self._saved_step = self.step
        self._mark = time.monotonic()

    def take_step(self, batch: BatchLike) -> None:
        """Starts a step, then reads the metrics of the one before it, so that the device never waits for the host."""
        if jax.default_backend() == "cpu":
            self.fetch()  # nothing would overlap, and two steps would be in memory
        check_batch(batch.arrays, self._state.params, batch.task)
        count, seconds = self._steps.count, self._steps.seconds
        self._state, metrics = self._steps(self._state, batch.task, batch.arrays)
        compiling = self._steps.seconds - seconds
        if count == 0:
            self._announce_first_step()
        self.fetch()
        self._pending = (self.step, batch, metrics)
        self.step += 1
        positions, real = count_tokens(batch.arrays, self.config.pad_id)
        rows = int(np.sum(np.asarray(batch.rows) >= 0))
        now = time.monotonic()
        self._work += Work(
            steps=1,
            examples=rows,
            tokens=positions,
            real_tokens=real,
            seconds=now - self._mark - compiling,
            compilations=self._steps.count - count,
            compile_seconds=compiling,
        )
        self._mark = now

    def _announce_first_step(self) -> None:
        """Says, once per process, how long after the command the first step was taken."""
        waited = None if Run._announced else seconds_since_start()
        if waited is not None:
            Run._announced = True
            source = ", from the cache on disk" if self._steps.cached else ""
            self._progress.say(
                f"first step {format_seconds(waited)} after the command; "
                f"it compiled for {self._steps.seconds:.1f} s{source}"
            )

    def result(self) -> TrainingResult:
        """Waits for the last checkpoint and returns the best parameters."""
        self._checkpoints.wait()
        self._metrics.sync()
        params, step = self._state.params, self.step
        best = best_step(self.history)
        if best is not None and best != self.step:
            wanted = {"params": self._abstract(self._state).params}
            step, params = best, self._checkpoints.restore(best, wanted)[0]["params"]
        return TrainingResult(
            params=params,
            step=step,
            skipped=tuple(self.skipped),
            history=self.history,
            curve=read_curve(self._directory),
            work=self._work,
        )

    def fetch(self) -> None:
        """Reads the metrics of the last step that was started, and logs them."""
        if self._pending is None:
            return
        (step, batch, metrics), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if values.pop("skipped"):
            self._skip(step, batch, values)
        self.shown["loss"] = values["loss"]
        if step % self.config.log_every == 0:
            # JSON has no NaN.
            self._write(
                {"step": step, "task": batch.task}
                | {name: value if np.isfinite(value) else None for name, value in values.items()}
            )
            self._write_timings(step)

    def _skip(self, step: int, batch: BatchLike, values: Mapping[str, float]) -> None:
        """Counts a step whose loss was not finite; raises if there were too many."""
        rows = [int(row) for row in batch.rows if row >= 0]
        text = f"step {step}, task {batch.task}, rows {', '.join(map(str, rows[:64]))}"
        if len(self.skipped) >= self.config.max_skipped:
            raise TrainingError(
                f"The loss or its gradient is not finite ({values['loss']}, {values['grad_norm']}).",
                where=text,
                fix=f"the last checkpoint (after step {self._saved_step}) is good; lower the "
                "learning rate, look at these rows, or allow such steps to be left out (train.skip_non_finite)",
            )
        self.skipped.append(step)
        self._progress.say(f"warning: this step was left out because its loss is not finite: {text}")

    def _write(self, record: Mapping[str, Any]) -> None:
        self._metrics.write(record)
        if self._board:
            self._board.write(record)

    def _write_timings(self, step: int) -> None:
        window = Work(
            **{name: value - getattr(self._logged, name) for name, value in asdict(self._work).items()}
        )
        self._logged = self._work
        if self._work.steps > 1:  # the first step is known by its compilation only
            self.shown["examples/s"] = self._work.rates(None)["examples_per_second"]
        self._timings.write(
            {
                "step": step,
                **window.rates(self._flops_per_token),
                "steps": window.steps,
                "seconds": window.seconds,
            }
            | {"compilations": self._work.compilations, "memory": device_memory()}
        )


def read_curve(directory: str | os.PathLike) -> list[list[float]]:
    """Returns [[step, loss], ...] from a run's ``metrics.jsonl``."""
    path = epath.Path(directory) / "metrics.jsonl"
    if not path.exists():
        return []
    points = []
    for line in path.read_bytes().splitlines():
        # A damaged line is left out; that the file is damaged was said when the run went on.
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            record = json.loads(line)
            if record.get("loss") is not None:
                points.append([record["step"], record["loss"]])
    return points
