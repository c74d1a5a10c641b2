"""The training loop: it can be killed at any moment and goes on as if nothing had happened."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from stilts_jax import interruption
from stilts_jax.checkpoint import Checkpoints
from stilts_jax.chips import compiler_options
from stilts_jax.distributed import is_preempted
from stilts_jax.errors import RunAgain, TrainingError
from stilts_jax.host_memory import FreedMemory
from stilts_jax.progress import SILENT, Progress, format_seconds, seconds_since_start
from stilts_jax.settings import TrainSettings
from stilts_jax.sharding import (
    batch_multiple,
    pad_batch_to,
    place,
    shard_batch,
    state_shardings,
    with_shardings,
)
from stilts_jax.train import logs
from stilts_jax.train.losses import check_batch
from stilts_jax.train.optimizer import OptimizerConfig, Params, make_optimizer
from stilts_jax.train.step import LossFn, TrainState, train_step

_events: Counter[str] = Counter()  # of JAX in this process: listeners can't be taken back
_HITS = "/jax/compilation_cache/cache_hits"  # compiled functions that came from the cache on disk
jax.monitoring.register_event_listener(lambda event, **_: _events.update([event]))
# Seconds of JAX by what it did; of traces within a trace the outer one counts.
_longest: dict[str, float] = {}
_COMPILING = "/jax/core/compile/"  # to trace, to lower, to compile or to read what was compiled


def _note_seconds(event: str, duration_secs: float, **_: Any) -> None:
    _longest[event] = max(duration_secs, _longest.get(event, 0.0))


jax.monitoring.register_event_duration_secs_listener(_note_seconds)


@dataclass(frozen=True)
class RunConfig:
    """All that a run needs besides its first state."""

    optimizer: OptimizerConfig  # also says how many steps the run has
    losses: Mapping[str, LossFn]  # by task; a task has the head of its name
    # The batch of a step, a pure function of its number, the same on all hosts: ``task`` says whose head and loss it
    # takes; ``arrays`` [B, ...] go to the device; ``rows`` [B] number what is in it, -1 where a row only fills up.
    batch_at: Callable[[int], Any]
    # Gets ``checkpoints/``, ``metrics.jsonl`` (a function of the run alone, bit for bit the same however often it was
    # killed) and ``timings.jsonl``. The caller holds its lock (``lock_run``).
    directory: str | os.PathLike
    mesh: Mesh
    seed: int  # of dropout; below 2**32
    train: TrainSettings  # when the loop evaluates, saves, logs and stops; a step that is the best so far is saved too
    # Scores parameters (higher is better); must not keep them, because the next step donates them.
    select: Callable[[Params], float] | None = None
    zero1: bool = False  # shard the moments over the mesh's ``data`` axis too
    accumulation: int = 1  # microbatches per step
    shapes: int = 0  # how many shapes batches have, to say how many of them are compiled; 0: not known
    flops_per_token: float | None = None  # of both passes; with it the log shows the used share of the peak
    trace: Path | None = None  # folder for a profile of some steps
    progress: Progress = SILENT


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run leaves behind."""

    params: Params  # of the best step if there was a selection, else of the last
    step: int  # that step
    skipped: tuple[int, ...]  # steps that were left out because their loss was not finite
    history: list[list[float]]  # [[step, score], ...] of all evaluations
    curve: list[list[float]]  # [[step, loss], ...] as logged; empty on all hosts but the first
    work: logs.Work  # over all launches


def run_training(state: TrainState, config: RunConfig) -> TrainingResult:
    """Trains, from the newest good checkpoint in the run's directory if there is one.

    ``state`` is that before the first step, to which its arrays are donated. After SIGTERM or Ctrl-C a checkpoint is
    saved and RunAgain raised.
    """
    with ExitStack() as stack:
        stack.enter_context(jax.set_mesh(config.mesh))
        if jax.process_count() == 1:  # over several hosts SIGTERM belongs to JAX's coordination service
            stack.enter_context(interruption.catch_signals())
            stack.enter_context(interruption.deferred())
        run = Run(state, config, stack)
        del state
        total, progress = config.optimizer.total_steps, config.progress
        mark_step = stack.enter_context(logs.profile_steps(config.trace, total - run.step, progress))
        bar = stack.enter_context(progress.track("training", total, start=run.step))
        while True:
            # Do not change the order. Evaluation comes before saving, so that a checkpoint holds the score of its own
            # step and a restart neither repeats nor forgets it. Saving comes before the batch, so that everything after
            # a checkpoint follows from the step's number, and a restart does exactly what would have come.
            interrupted = is_preempted() if jax.process_count() > 1 else interruption.is_asked()
            if not interrupted:
                try:
                    run.evaluate()
                except RunAgain:  # the evaluation is begun anew after the restart
                    if jax.process_count() > 1:
                        raise  # Ctrl-C on this host alone: no other one would save with it
                    interrupted = True
            best = logs.best_step(run.history) or 0
            without_gain = sum(step > best for step, _ in run.history)
            finished = run.step >= total or 0 < config.train.patience <= without_gain
            run.save(at_once=interrupted or finished)
            if interrupted:
                text = f" after step {run.step}; everything was saved."
                raise interruption.stop(text, str(config.directory))
            if finished:
                return run.result()
            mark_step()
            run.take_step(config.batch_at(run.step), bar.tell)
            bar.advance(1, **run.shown)


class Run:
    """The host's side of a run: its state, logs and checkpoints, with the actions that the loop repeats.

    ``work`` is that of all launches; ``cached`` counts the compiled steps of this launch that came from the cache on
    disk; ``shown`` stands beside the progress. ``stack`` closes the files.
    """

    _announced = False  # whether this process said how long it took to the first step

    def __init__(self, state: TrainState, config: RunConfig, stack: ExitStack) -> None:
        self.config, self.step, self.cached, self._saved_step = config, 0, 0, 0
        self.history: list[list[float]] = []
        self.skipped: list[int] = []
        self.shown: dict[str, float | str] = {}
        self.work = self._logged = logs.Work()
        self._forms: set[tuple] = set()  # those that are compiled
        self._freed = FreedMemory()  # steps of many shapes would take several times what the largest needs
        self._pending: tuple[int, Any, dict[str, jax.Array]] | None = None
        folder, first = epath.Path(config.directory), jax.process_index() == 0
        folder.mkdir(parents=True, exist_ok=True)
        self._shardings = state_shardings(state, config.mesh, zero1=config.zero1)
        # device_put would compare them over all hosts: their float64 with the float32 that comes back.
        given = np.uint32(config.seed), config.optimizer.schedule_numbers
        self._seed, self._numbers = place(given, (self._shardings.step,) * 2)
        # Whatever the rate and the length of the run, its steps are the same program.
        alike = replace(config.optimizer, learning_rate=0.0, total_steps=1, warmup=0.0)
        self._functions = {}
        for task, loss in config.losses.items():
            places, form = jax.tree.flatten(_own(self._shardings, loss))
            self._functions[task] = _compile(loss, alike, config.accumulation, tuple(places), form)
        abstract, keep = with_shardings(state, self._shardings), config.train.keep_latest
        self._abstract = {"params": abstract.params, "moments": abstract.moments}
        self._checkpoints = Checkpoints(folder / "checkpoints", keep=keep, progress=config.progress)
        self._metrics = logs.JsonLines(folder / "metrics.jsonl", enabled=first)
        self._timings = logs.JsonLines(folder / "timings.jsonl", enabled=first)
        for close in (self._timings.sync, self._metrics.sync, self._checkpoints.close):
            stack.callback(close)  # all of them, whatever the others do
        self._state = self._restore(state)
        self._board: logs.Board | None = None
        if config.train.tensorboard and first:
            self._board = logs.Board(os.fspath(folder / "tensorboard"), self.step)
            stack.callback(self._board.close)
            # The only line of this step that won't come again.
            if self.history and self.history[-1][0] == self.step:
                self._board.show({"step": self.step, "score": self.history[-1][1]})
        self._mark = time.monotonic()  # up to here the seconds of training are counted, or left out

    def _restore(self, state: TrainState) -> TrainState:
        """Returns the state of the newest intact checkpoint, or ``state``, sharded over the mesh."""
        found = None
        if self._checkpoints.steps():
            for leaf in jax.tree.leaves(state):
                leaf.delete()  # make room
            found = self._checkpoints.restore_newest(self._abstract)
        if not found:
            self._metrics.cut(0)
            return jax.device_put(state, self._shardings)
        self.step, items, record = found
        self._saved_step = self.step
        self.history, self.skipped = record["history"], record["skipped"]
        self.work = self._logged = logs.Work(**record["work"])
        self._metrics.cut(record["metrics_size"])
        if self._metrics.digest() not in ("", record["metrics_digest"]):
            text = f"warning: {self.config.directory}/metrics.jsonl is not what it was: lines of earlier steps are "
            text += "missing or wrong in the curve; the training itself is not affected"
            self.config.progress.say(text)
        self.config.progress.say(f"going on after step {self.step}")
        return TrainState(place(np.int32(self.step), self._shardings.step), **items)

    def evaluate(self) -> None:
        """Scores the parameters if an evaluation is due and the checkpoint does not hold its score already."""
        last, started = self.step >= self.config.optimizer.total_steps, self.step > 0
        due = last or (started and self.step % self.config.train.eval_every == 0)
        if not self.config.select or not due or (self.history and self.history[-1][0] == self.step):
            return
        self.fetch()
        with interruption.deferred(False):  # may take long, and nothing is lost when it is left
            score = float(self.config.select(self._state.params))
        self.history.append([self.step, score])
        self._write({"step": self.step, "score": score})
        self.shown["score"] = score
        self._mark = time.monotonic()

    def save(self, *, at_once: bool) -> None:
        """Saves if a checkpoint is due, if this step is the best so far, or if ``at_once``."""
        best = logs.best_step(self.history)
        due = at_once or best == self.step or self.step % self.config.train.checkpoint_every == 0
        if not due or self.step == self._saved_step:
            return
        self.fetch()
        record = {"history": self.history, "skipped": self.skipped, "work": asdict(self.work)}
        record |= {"metrics_size": self._metrics.sync(), "metrics_digest": self._metrics.digest()}
        protect = [] if best is None else [best]
        items = {"params": self._state.params, "moments": self._state.moments}
        self._checkpoints.save(self.step, items, record, protect=protect)
        self._timings.sync()
        if self._board:
            self._board.flush()
        self._saved_step = self.step
        self._mark = time.monotonic()

    def take_step(self, batch: Any, tell: Callable[[str], None] = lambda note: None) -> None:
        """Starts a step, then reads what the last one gave: no device waits for that; ``tell`` hears of compiling."""
        if jax.default_backend() == "cpu":
            self.fetch()  # nothing would overlap, and two steps would be in memory
        check_batch(batch.arrays, self._state.params, batch.task)
        mesh = self.config.mesh
        padded = pad_batch_to(batch.arrays, batch_multiple(mesh) * self.config.accumulation)
        placed, shapes = shard_batch(padded, mesh), self.config.shapes
        # What decides whether two batches share a compiled step.
        forms = ((name, array.shape, str(array.dtype)) for name, array in sorted(batch.arrays.items()))
        form = (batch.task, *forms)
        is_new = form not in self._forms
        if is_new:
            self._forms.add(form)
            tell(f"compiling {len(self._forms)}" + (f" of {shapes}" if shapes else ""))
        start, hits = time.monotonic(), _events[_HITS]
        _longest.clear()
        # Once a step is compiled, all its arguments are on the mesh: another transfer would be a defect. What looks for
        # NaN reads all that a step returns.
        is_free = is_new or jax.config.values["jax_debug_nans"]
        with nullcontext() if is_free else jax.transfer_guard("disallow"):
            given = _own(self._state, self.config.losses[batch.task]), placed, self._seed, self._numbers
            new, metrics = self._functions[batch.task](*given)
        self._state = _with_others(new, self._state)
        compiling = 0.0
        if is_new:
            # Not the seconds of the call: a CPU takes the step in it.
            seconds = dict(_longest).items()  # a copy: threads that save checkpoints tell of themselves too
            compiling = sum(longest for event, longest in seconds if event.startswith(_COMPILING))
            self._mark += compiling
            self.cached += _events[_HITS] > hits
            if not Run._announced:
                Run._announced, folder = True, jax.config.values["jax_compilation_cache_dir"]
                taking = time.monotonic() - start - compiling
                waited = format_seconds(seconds_since_start() - taking)
                text = f"first step {waited} after the command; it compiled for {compiling:.1f} s"
                kept = f", {'read from' if self.cached else 'and keeps that in'} {folder}" * bool(folder)
                self.config.progress.say(text + kept)
        self.fetch()
        self._pending = (self.step, batch, metrics)
        self.step += 1
        self.work += logs.count_rows(batch.arrays, batch.rows)
        self.work += logs.Work(1, compile_seconds=compiling, compilations=int(is_new))

    def result(self) -> TrainingResult:
        """Waits for the last checkpoint and returns the best parameters."""
        self._checkpoints.wait()
        self._metrics.sync()
        params, best = self._state.params, logs.best_step(self.history)
        if best not in (None, self.step):
            params = self._checkpoints.restore(best, {"params": self._abstract["params"]})[0]["params"]
        step, curve = self.step if best is None else best, self._metrics.curve()
        return TrainingResult(params, step, tuple(self.skipped), self.history, curve, self.work)

    def fetch(self) -> None:
        """Reads the metrics of the last step that was started, and logs them."""
        if self._pending is None:
            return
        (step, batch, metrics), self._pending, saved = self._pending, None, self._saved_step
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._freed.return_if_short()
        before, self._mark = self._mark, time.monotonic()
        self.work += logs.Work(seconds=self._mark - before)
        if values.pop("skipped"):
            rows = [str(row) for row in batch.rows if row >= 0]
            text = f"step {step}, task {batch.task}, rows {', '.join(rows[:64])}"
            if len(self.skipped) >= self.config.train.skip_non_finite:
                what = f"The loss or its gradient is not finite ({values['loss']}, {values['grad_norm']})."
                fix = f"the last checkpoint (after step {saved}) is good; " * bool(saved)
                fix += "lower the learning rate, look at these rows, or allow such steps to be left out "
                fix += "(train.skip_non_finite)"
                raise TrainingError(what, where=text, fix=fix)
            self.skipped.append(step)
            told = "warning: this step was left out because its loss is not finite"
            self.config.progress.say(f"{told}: {text}")
        self.shown["loss"] = values["loss"]
        if step % self.config.train.log_every:
            return
        # JSON has no NaN.
        finite = {name: value if np.isfinite(value) else None for name, value in values.items()}
        self._write({"step": step, "task": batch.task} | finite)
        window, self._logged = self.work - self._logged, self.work
        if self.work.steps > 1:  # the first step is known by its compilation only
            self.shown["examples/s"] = self.work.rates(None)["examples_per_second"]
        record = {"step": step, **window.rates(self.config.flops_per_token), "steps": window.steps}
        record |= {"seconds": window.seconds, "compilations": self.work.compilations}
        self._timings.write(record | {"memory": logs.device_memory()})

    def _write(self, record: Mapping[str, Any]) -> None:
        self._metrics.write(record)
        if self._board:
            self._board.show(record)


def _own(state: TrainState, loss: LossFn) -> TrainState:
    """Returns what a step changes: of several heads its own, so that with others beside it is the same program."""
    if (head := getattr(loss, "head", None)) is None:
        return state
    params, moments = (
        {**tree, "heads": {head: tree["heads"][head]}} for tree in (state.params, state.moments)
    )
    return TrainState(state.step, params, moments)


def _with_others(new: TrainState, old: TrainState) -> TrainState:
    """Returns the state after a step with the heads that it left alone."""
    trees = (new.params, old.params), (new.moments, old.moments)
    params, moments = ({**one, "heads": other["heads"] | one["heads"]} for one, other in trees)
    return TrainState(new.step, params, moments)


@lru_cache(maxsize=32)
def _compile(
    loss_fn: LossFn, optimizer: OptimizerConfig, accumulation: int, places: tuple[Any, ...], form: Any
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Returns ``train_step(state, batch, seed, numbers)``, jitted: it donates the state, and gives one that lies alike.

    The seed and the schedule's numbers are arguments: runs that differ in these alone find this step in the process, or
    in the cache on disk.
    """

    def step(
        state: TrainState, batch: Any, seed: jax.Array, numbers: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key, rates = jax.random.key(seed), optimizer.rates(numbers)
        given: Any = {"tx": make_optimizer(optimizer, rates), "accumulation": accumulation}
        new, metrics = train_step(state, batch, loss_fn=loss_fn, key=key, skip_non_finite=True, **given)
        return new, metrics | {"learning_rate": jnp.asarray(rates(state.step))}

    state = jax.tree.unflatten(form, places)
    # The metrics lie as the number of the step: whole on every device.
    options: Any = {"out_shardings": (state, state.step), "compiler_options": compiler_options()}
    return jax.jit(step, donate_argnums=0, **options)
