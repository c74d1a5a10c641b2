"""The training loop: it can be killed at any moment and goes on as if nothing had happened."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from stilts_jax import interruption
from stilts_jax.errors import RunAgain, TrainingError
from stilts_jax.progress import SILENT, Progress
from stilts_jax.train.optimizer import OptimizerConfig
from stilts_jax.train.run import BatchLike, LoopConfig, Run, TrainingResult
from stilts_jax.train.state import TrainState
from stilts_jax.train.step import LossFn
from stilts_jax.train.trees import Params


def run_training(
    state: TrainState,
    *,
    config: LoopConfig,
    optimizer: OptimizerConfig,
    losses: Mapping[str, LossFn],
    batch_at: Callable[[int], BatchLike],
    directory: str | os.PathLike,
    select: Callable[[Params], float] | None = None,
    mesh: Mesh | None = None,
    zero1: bool = False,
    flops_per_token: float | None = None,
    tensorboard: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Trains, from the newest good checkpoint in ``directory`` if there is one.

    ``directory`` gets ``checkpoints/``, ``metrics.jsonl`` (a function of the run alone, bit for bit the same
    however often it was killed) and ``timings.jsonl``. The caller holds the directory's lock (``lock_run``).

    Args:
        state: before the first step. Its arrays are donated to the first step.
        losses: ``loss_fn`` by task; a task has the head of its name.
        batch_at: the batch of a step, a pure function of the step's number.
        select: scores parameters (higher is better); must not keep them, because the next step donates them.
        mesh: where to run; None: on the default device.
        zero1: shard the moments over the mesh's ``data`` axis too.
        flops_per_token: of the forward and backward pass; with it the log shows the used share of the peak.
        tensorboard: write a copy of the metrics for TensorBoard.

    Raises:
        RunAgain: SIGTERM or Ctrl-C (then an Interrupted) came; a checkpoint was saved.
        TrainingError: the loss is not finite, or memory ran out.
    """
    with ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh) if mesh else nullcontext())
        if jax.process_count() == 1:  # over several hosts SIGTERM belongs to JAX's coordination service
            stack.enter_context(interruption.catch_signals())
            stack.enter_context(interruption.deferred())
        stack.enter_context(_explain_memory())
        run = stack.enter_context(
            Run(
                state,
                config,
                optimizer,
                losses,
                directory,
                select,
                mesh,
                zero1,
                flops_per_token,
                tensorboard,
                progress,
            )
        )
        del state
        bar = stack.enter_context(progress.track("training", config.total_steps, start=run.step))
        while True:
            # Do not change the order. Evaluation comes before saving, so that a checkpoint holds the score
            # of its own step and a restart neither repeats nor forgets it. Saving comes before the batch, so
            # that everything after a checkpoint follows from the step's number, and a restart does exactly
            # what would have come.
            interrupted = _is_asked(run.step)
            if not interrupted:
                try:
                    run.evaluate()
                except RunAgain:  # the evaluation is begun anew after the restart
                    interrupted = True
            run.save(at_once=interrupted or run.is_finished())
            if interrupted:
                raise interruption.stop(f" after step {run.step}; everything was saved.", str(directory))
            if run.is_finished():
                return run.result()
            batch = batch_at(run.step)
            bar.tell(run.compiling(batch))
            run.take_step(batch)
            bar.aside = run.compile_seconds
            bar.advance(1, **run.shown)


def _is_asked(step: int) -> bool:
    """Says whether to save and stop at this border between steps; the same on all hosts."""
    if jax.process_count() > 1:
        # The coordination service catches SIGTERM of any host and agrees on one step.
        return multihost_utils.reached_preemption_sync_point(step)
    return interruption.is_asked()


@contextmanager
def _explain_memory() -> Iterator[None]:
    """Says what helps when a device's memory ran out."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TrainingError(
            "The device's memory ran out.",
            where=str(error).splitlines()[0][:300],
            fix="what helps most, in this order: more microbatches (train.accumulation), rematerialisation "
            "(compute.remat=full), shorter inputs (train.max_length) or bfloat16 (compute.dtype)",
        ) from error
