"""A list of phases, run in order of need: resumed, split over machines, failures contained, disk bounded."""

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import jax
from etils import epath

from stilts_jax.checkpoint import lock_run
from stilts_jax.distributed import from_main, is_preempted, leave_together
from stilts_jax.errors import ConfigError, DataError, LockedError, StiltsError, describe, explain
from stilts_jax.experiment import results
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.evaluate import evaluate_phase
from stilts_jax.experiment.models import FINAL, read_trained
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.results import FAILURE, find_kept, read_result
from stilts_jax.experiment.train import adopt_training, find_alike, train_phase
from stilts_jax.files import hash_record, is_remote
from stilts_jax.host_memory import return_freed_memory
from stilts_jax.interruption import check, stop
from stilts_jax.progress import SILENT, Progress
from stilts_jax.sharding import mesh_shape

CHECKPOINTS = "checkpoints"
# Seconds to wait for a parent that another machine trains, and the first and the longest pause between two looks.
_LIMIT, _SHORT, _PAUSE = 48 * 3600.0, 0.5, 60.0
# So long a parent's failure may be one of an earlier launch, which the part that trains it removes.
_GRACE = 600.0


def is_done(phase: Phase, context: Context, progress: Progress = SILENT) -> bool:
    """Says whether ``phase`` is trained and scored on what the settings ask for; damaged records to ``progress``."""
    folder, key = context.folder(phase), context.key(phase)
    result = read_result(folder, progress)
    trained = not phase.train or read_trained(folder, key, progress)
    if not trained or not result or result["phase"]["key"] != key:
        return False
    # In at least the languages that are asked for, which another command may have been more of.
    return context.data(phase).scored.keys() <= set(find_kept(result, phase, context))


def run_phase(phase: Phase, context: Context) -> None:
    """Does whatever is left to do of ``phase``: trains it, scores it, writes ``result.json``."""
    if from_main(lambda: is_done(phase, context, context.progress)):
        context.progress.say("done before")
        return
    folder, started = context.folder(phase), datetime.now(UTC)
    with ExitStack() as held:
        if taken := from_main(lambda: _lock(phase, context, held)):  # the error is raised on all hosts
            raise LockedError(taken, where=str(folder))
        _check_same(phase, context)
        if jax.process_count() == 1 and is_done(phase, context):  # another process was at work on it just now
            return
        if context.is_main:
            _warn_of_another_encoder(phase, context)
        trained, kept = from_main(lambda: read_trained(folder, context.key(phase))), list[str]()
        is_new = phase.train and not trained
        if not is_new:  # what a command with other targets or more languages scored stays
            kept = from_main(lambda: find_kept(read_result(folder), phase, context))
            if lost := from_main(lambda: results.find_lost(read_result(folder), phase, context)):
                told = f"scores of {', '.join(lost)} that were made with other options, or of other data, go"
                context.progress.say(f"warning: {told} (--workdir names another folder)")
        if phase.train:
            trained = trained or adopt_training(phase, context) or train_phase(phase, context)
        scores = evaluate_phase(phase, context, kept, trained)
        if context.is_main:
            results.write_result(phase, context, trained, scores, started, bool(is_new))
    context.progress.say(scores.summary())


def _lock(phase: Phase, context: Context, held: ExitStack) -> str:
    """Locks a phase's folder until ``held`` is closed; where another process has it, returns what to say of that.

    The same where another process is at the very same training in another folder: its model will be taken over.
    """
    folder, key = context.folder(phase), context.key(phase)
    alike = [] if read_trained(folder, key) else find_alike(phase, context)
    try:
        for other in alike:
            if not read_trained(other, key):
                with lock_run(other):
                    pass
        held.enter_context(lock_run(folder))
    except LockedError as error:
        return error.what
    return ""


def _check_same(phase: Phase, context: Context) -> None:
    """Raises where files have changed since the grid began, or this host's are others: hosts would wait for ever."""
    own = [hash_record(context.training_record(phase)), context.evaluation_key(phase)]
    if own[0] != context.key(phase):
        what, fix = f"The data or the encoder of {phase.name} have changed while this ran.", "run it again"
        raise DataError(what, where=str(context.source.root), fix=fix)
    if from_main(lambda: own) != own:
        what = f"This host reads other data or another encoder for {phase.name} than the main one."
        fix = "give all hosts the same files"
        raise DataError(what, where=f"host {jax.process_index()}: {context.source.root}", fix=fix)


def _warn_of_another_encoder(phase: Phase, context: Context) -> None:
    """Says so where the same phase once started from other weights: their files were exchanged, or damaged."""
    folder, record = context.folder(phase), json.loads(json.dumps(context.training_record(phase)))
    for path in sorted(folder.parent.glob(f"{folder.name[:-8]}*")) if phase.parent is None else ():
        before = {}
        with suppress(OSError):
            before = (read_result(path) or {}).get("config", {})
        rest = {name: before[name] for name in ("title", "encoder", "scored_rows") if name in before}
        same = before | {"start": record["start"]} == record | rest
        if path != folder and same and before.get("encoder") == phase.encoder:
            told = f"the files of {phase.encoder} are not those that {path.name} started from"
            context.progress.say(f"warning: {told}; if you changed nothing, they are damaged")


def run_grid(
    phases: Sequence[Phase],
    context: Context,
    *,
    mine: Sequence[Phase] | None = None,
    run: Callable[[Phase, Context], None] = run_phase,
) -> int:
    """Runs every phase of ``mine`` (all by default) that is not done yet, parents first.

    Several processes may run the same phases at once: each takes what no other one is at work on, and waits at the end.
    Returns the exit code: 1 if a phase failed (its ``failure.json`` says why), else 0.
    """
    mine = phases if mine is None else mine
    if context.settings.compute.param_dtype != "float32" and any(phase.train for phase in mine):
        what = "Parameters in bfloat16 can't be trained: they would hardly change, as 0.02 + 0.00001 rounds to 0.02."
        fix = "set compute.param_dtype=float32; compute.dtype=bfloat16 saves time, train.moment_dtype=bfloat16 memory"
        raise ConfigError(what, where="config.compute.param_dtype", fix=fix)
    if not all(from_main(partial(is_done, phase, context)) for phase in mine):
        # One that does not fit would fail phase by phase.
        mesh_shape(context.settings.mesh, jax.device_count())
    failed = list[str]()
    launched = busy = time.monotonic()  # busy: when this process last did something
    if context.is_main:
        for phase in mine:
            results.clear_failure(context.folder(phase))

    def work(phase: Phase) -> None:
        if phase.parent and phase.parent not in mine and not from_main(partial(is_done, phase, context)):
            _check_parent(phase.parent, context, launched, busy)
        run(phase, context)

    queue, left, pause = deque(enumerate(mine, 1)), 0, _SHORT  # left: to other processes, one after the other
    while queue:
        check()
        if is_preempted():
            raise stop("; whatever was finished is kept.")
        if left == len(queue):
            time.sleep(pause)
            left, pause = 0, min(1.25 * pause, _PAUSE)
        number, phase = queue.popleft()
        later = {other.name for _, other in queue}
        with context.progress.part(f"[{number}/{len(mine)}] {phase.name}"):
            ready = later.isdisjoint(parent.name for parent in phase.line())
            if ready and _take(phase, context, failed, work):
                left, pause, busy = 0, _SHORT, time.monotonic()
                return_freed_memory()
                if phase.name not in failed:
                    _free_disk(phase, phases, context)
            else:
                queue.append((number, phase))
                left += 1
    if failed and len(mine) > 1:
        context.progress.say(f"{len(failed)} of {len(mine)} phases failed: {', '.join(failed)}")
    return int(bool(failed))


def _take(phase: Phase, context: Context, failed: list[str], work: Callable[[Phase], None]) -> bool:
    """Works on a phase, and adds it to ``failed`` where it fails; returns False where another process has it."""
    lost = next((parent.name for parent in phase.line() if parent.name in failed), None)
    try:
        with leave_together():  # over several hosts a failure of one ends all: they would wait for it
            if lost and not from_main(partial(is_done, phase, context)):
                raise StiltsError(f"It needs {lost}, which failed.")
            work(phase)
        return True
    except LockedError as held:
        context.progress.say(f"comes later: {held.what}", once=True)
        return False
    except Exception as found:  # one phase's failure must not stop what does not depend on it
        check()
        error = explain(found) or found
        context.progress.say(f"failed: {describe(found)}")
    failed.append(phase.name)
    if context.is_main:
        try:  # but nothing is written into a folder in which another process is at work
            with suppress(LockedError), lock_run(context.folder(phase)):
                results.write_failure(phase, context, error)
        except (StiltsError, OSError) as problem:
            context.progress.say(f"warning: the failure could not be recorded: {problem}")
    del error  # by its traceback it holds this frame too, and what the failed phase had on its device
    return True


def is_trained(phase: Phase, context: Context) -> bool | None:
    """Whether there is a model of ``phase``, scored or not: False where it was removed, None where it never was."""
    folder = context.folder(phase)
    return None if read_trained(folder, context.key(phase)) is None else (folder / FINAL).exists()


def _check_parent(parent: Phase, context: Context, launched: float, busy: float) -> None:
    """Raises LockedError while another part trains the parent, and another error where that will come to no end."""
    folder, hours = context.folder(parent), f"{_LIMIT / 3600:g} hours"

    def look() -> str | None:
        """Returns what is wrong; nothing while there is hope, and None where the parent is there."""
        if is_done(parent, context) or is_trained(parent, context):
            return None
        now, failure = time.monotonic(), (read_result(folder, name=FAILURE) or {}).get("error")
        if failure and now - launched >= _GRACE:
            why = (failure["message"].splitlines() or [failure["type"]])[0]  # MemoryError() has no message
            return f"{parent.name} failed on another machine: {why}"
        return f"{parent.name} was not done within {hours}." if now - busy > _LIMIT else ""

    found = from_main(look)
    if found:
        fix = "see whether the part that trains it still runs; run that part again, then this one"
        raise StiltsError(found, where=str(folder), fix=fix)
    if found is not None:
        raise LockedError(f"waiting for {parent.name}, which another part trains (at most {hours})")


def _free_disk(phase: Phase, phases: Sequence[Phase], context: Context) -> None:
    """Removes what no later phase needs: optimizer states first, then models, as ``experiment.keep`` says."""
    keep = context.settings.experiment.keep
    if keep == "all" or not context.is_main:
        return
    _remove(context.folder(phase) / CHECKPOINTS, context)
    # What trains the same takes a model over: it goes when all of them are done.
    keys = set(map(context.key, phase.line())) if keep != "models" else set()
    for candidate in (one for one in phases if context.key(one) in keys):
        kept, key = keep == "encoders" and candidate.stage == "intermediate", context.key(candidate)
        model = context.folder(candidate) / FINAL
        # The last one first: most often it is not done.
        needing = (one for one in reversed(phases) if one.parent == candidate or context.key(one) == key)
        if not kept and model.exists() and all(is_done(one, context) for one in needing):
            _remove(model, context)


def _remove(folder: Path, context: Context) -> None:
    if is_remote(folder):
        epath.Path(folder).rmtree(missing_ok=True)
        return
    # Renamed first, so that a kill leaves no half of a checkpoint under its own name.
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    try:
        folder.rename(doomed)
    except FileNotFoundError:  # there is none, or another part was faster
        pass
    except OSError as error:
        context.progress.say(f"warning: {folder} can't be removed: {error.strerror}")
    shutil.rmtree(doomed, ignore_errors=True)
