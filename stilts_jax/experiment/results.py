"""``result.json`` and ``failure.json``: what a phase scored, and why its last attempt failed.

They are two files, so that a failure never replaces scores. A report reads nothing else.
"""

import base64
import contextlib
import importlib.metadata
import platform
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.errors import RecordError
from stilts_jax.evaluation.metrics import MAIN_VALUES
from stilts_jax.experiment.phases import Phase
from stilts_jax.files import read_record, write_record
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks import get_task

FORMAT = 2
RESULT = "result.json"
FAILURE = "failure.json"
_PACKAGES = ("stilts-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def phase_record(phase: Phase, key: str, parent_key: str | None) -> dict[str, Any]:
    """Returns who a phase is; tasks by ``Task.name``, as everywhere in ``result.json``."""
    trained = get_task(phase.train[0]) if phase.train else None
    return {
        "key": key,
        "name": phase.name,
        "stage": phase.stage,
        "intermediate": phase.intermediate,
        "evaluates": [get_task(name).name for name in phase.evaluate],
        "target_training": trained.name if trained and phase.stage == "target" else None,
        "source_language": trained.source_language if trained else "en",
        "intermediate_seed": phase.intermediate_seed,
        "target_seed": phase.target_seed,
        "parent": parent_key,
    }


def task_records(phase: Phase) -> dict[str, dict[str, str]]:
    """Returns the entry ``tasks`` of ``result.json``: what a report must know of each task that ``phase`` names.

    By ``Task.name``: ``reference`` (what ``get_task`` takes), ``title`` (empty where the name serves), ``group``,
    ``kind``, ``metric``.
    """
    found = {}
    for reference in dict.fromkeys((*phase.train, *phase.evaluate)):
        task = get_task(reference)
        words = {name: getattr(task, name) for name in ("title", "group", "kind", "metric")}
        found[task.name] = {"reference": reference, **words}
    return found


def encode_items(statistic: str, values: np.ndarray, aligned: bool, ids: str = "") -> dict[str, Any]:
    """Returns per-item scores in the compact form that a report reads."""
    array = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return {
        "statistic": statistic,
        "dtype": values.dtype.name,
        "shape": list(values.shape),
        "data": base64.b64encode(zlib.compress(array.tobytes(), 6)).decode(),
        "aligned": aligned,
        "ids": ids,
    }


def environment_record(command: str, started: datetime, device: str, device_count: int) -> dict[str, Any]:
    """Returns what a result was computed with."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a checkout that is not installed
    return {
        "device": device,
        "device_count": device_count,
        "versions": versions,
        "command": command,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def failed_result(phase: Phase, key: str, parent_key: str | None, error: BaseException) -> dict[str, Any]:
    """Returns ``failure.json`` of a phase: the error, and the tasks that the phase would have scored."""
    tasks = [get_task(name) for name in phase.evaluate]
    return {
        "format": FORMAT,
        "phase": phase_record(phase, key, parent_key),
        "tasks": task_records(phase),
        "scores": {},
        "main_metric": {task.name: list(MAIN_VALUES[task.metric]) for task in tasks},
        "reported_split": {
            task.name: task.selection if phase.stage == "intermediate" else task.reported for task in tasks
        },
        "environment": {"finished": datetime.now(UTC).isoformat(timespec="seconds")},
        "error": {"type": type(error).__name__, "message": str(error)},
    }


def read_result(folder: Path, progress: Progress = SILENT) -> dict[str, Any] | None:
    """Returns the result in a phase's folder; None if there is none, or none that can be trusted, which is said."""
    return _read(folder / RESULT, progress)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Writes ``result.json``, and removes the failure of an earlier attempt."""
    write_record(folder / RESULT, result)
    clear_failure(folder)


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Returns why the last attempt of a phase failed; None if it did not."""
    return _read(folder / FAILURE, SILENT)


def write_failure(folder: Path, failure: dict[str, Any]) -> None:
    """Writes ``failure.json`` beside whatever was scored before."""
    write_record(folder / FAILURE, failure)


def clear_failure(folder: Path) -> None:
    """Removes ``failure.json``: the phase is about to be tried again, or it came through."""
    with contextlib.suppress(OSError):  # a read-only disk: a stale remark in the report is all that is left
        (folder / FAILURE).unlink(missing_ok=True)


def _read(path: Path, progress: Progress) -> dict[str, Any] | None:
    try:
        return read_record(path, FORMAT)
    except FileNotFoundError:
        return None
    except RecordError as error:
        progress.say(f"warning: {error.what} It is not used ({path})")
        return None
