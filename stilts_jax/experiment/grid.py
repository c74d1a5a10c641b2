"""A list of phases, run in order of need: resumed, split over machines, failures contained, disk bounded."""

import contextlib
import math
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from etils import epath

from stilts_jax.distributed import from_main, leave_together
from stilts_jax.errors import EXIT_ERROR, EXIT_OK, StiltsError, explain
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.results import failed_result, read_result, write_result
from stilts_jax.experiment.run import is_done, run_phase
from stilts_jax.files import is_remote
from stilts_jax.interruption import check
from stilts_jax.progress import format_seconds

CHECKPOINTS = "checkpoints"
FINAL = "final"


@dataclass(frozen=True)
class Waiting:
    """How long to wait for a parent that another machine trains, and the longest pause between two looks."""

    limit: float = 48 * 3600.0
    interval: float = 60.0


def run_grid(
    phases: Sequence[Phase],
    context: Context,
    *,
    mine: Sequence[Phase] | None = None,
    waiting: Waiting = Waiting(),
    run: Callable[[Phase, Context], None] = run_phase,
) -> int:
    """Runs every phase that is not done yet.

    Args:
        phases: the whole grid, parents first.
        mine: the phases of this machine; all by default.
        run: runs one phase.

    Returns:
        The exit code: 1 if a phase failed (its record says why), else 0.
    """
    mine = phases if mine is None else mine
    failed: dict[str, str] = {}
    for number, phase in enumerate(mine, 1):
        check()
        with context.progress.part(f"[{number}/{len(mine)}] {phase.name}"):
            lost = next((parent.name for parent in phase.ancestors() if parent.name in failed), None)
            if lost:
                failed[phase.name] = f"needs {lost}, which failed"
                _record_failure(phase, context, StiltsError(f"It needs {lost}, which failed."))
                continue
            try:
                with leave_together():  # over several hosts a failure of one ends all: they would wait for it
                    if phase.parent is not None and phase.parent not in mine:
                        _wait_for(phase.parent, context, waiting)
                    run(phase, context)
            except Exception as error:  # one phase's failure must not stop what does not depend on it
                check()
                explained = explain(error)
                failed[phase.name] = str(explained or error)
                context.progress.say(f"failed: {explained or traceback.format_exc()}")
                _record_failure(phase, context, explained or error)
            else:
                _free_disk(phase, phases, context)
    for name, reason in failed.items():
        context.progress.say(f"failed: {name}: {reason.splitlines()[0]}")
    return EXIT_ERROR if failed else EXIT_OK


def _record_failure(phase: Phase, context: Context, error: Exception) -> None:
    if context.is_main:
        parent_key = context.key(phase.parent) if phase.parent else None
        write_result(context.folder(phase), failed_result(phase, context.key(phase), parent_key, error))


def _wait_for(parent: Phase, context: Context, waiting: Waiting) -> None:
    began, pause = time.monotonic(), min(1.0, waiting.interval)
    said = -math.inf
    while not from_main(lambda: is_done(parent, context)):
        if from_main(lambda: bool((read_result(context.folder(parent)) or {}).get("error"))):
            raise StiltsError(
                f"{parent.name} failed on another machine.",
                where=str(context.folder(parent)),
                fix="run that part again, then this one",
            )
        waited = time.monotonic() - began
        if waited > waiting.limit:
            raise StiltsError(
                f"{parent.name} was not done within {waiting.limit / 3600:g} hours.",
                where=str(context.folder(parent)),
                fix="see whether the part that trains it still runs",
            )
        if waited > 2 * said:  # at ever longer intervals: two days of waiting are a few lines
            so_far = f", for {format_seconds(waited)} so far" if waited > 1 else ""
            context.progress.say(
                f"waiting for {parent.name}, which another part trains{so_far} "
                f"(at most {format_seconds(waiting.limit)})"
            )
            said = max(waited, 5.0)
        time.sleep(pause)
        pause = min(2 * pause, waiting.interval)


def _free_disk(phase: Phase, phases: Sequence[Phase], context: Context) -> None:
    """Removes what no later phase needs: optimizer states first, then models, as ``experiment.keep`` says."""
    keep = context.settings.experiment.keep
    if keep == "all" or not context.is_main:
        return
    _remove(context.folder(phase) / CHECKPOINTS)
    if keep == "models":
        return
    for candidate in (phase, *phase.ancestors()):
        if keep == "encoders" and candidate.stage == "intermediate":
            continue
        children = [other for other in phases if other.parent == candidate]
        if all(is_done(child, context) for child in children):
            _remove(context.folder(candidate) / FINAL)


def _remove(folder: Path) -> None:
    if is_remote(folder):
        epath.Path(folder).rmtree(missing_ok=True)
        return
    # Renamed first, so that a kill leaves no half of a checkpoint under its own name.
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):  # never there, or another part was faster
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
