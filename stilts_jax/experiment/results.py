"""``result.json``: the record that a finished (or failed) phase leaves, and the only thing a report reads."""

import base64
import importlib.metadata
import json
import platform
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.evaluation.metrics import MAIN_VALUES
from stilts_jax.experiment.phases import Phase
from stilts_jax.files import write_json
from stilts_jax.tasks import get_task

FORMAT = 1
RESULT = "result.json"
_PACKAGES = ("stilts-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def phase_record(phase: Phase, key: str, parent_key: str | None) -> dict[str, Any]:
    """Returns who a phase is."""
    return {
        "key": key,
        "name": phase.name,
        "stage": phase.stage,
        "intermediate": phase.intermediate,
        "evaluates": list(phase.evaluate),
        "target_training": phase.train[0] if phase.stage == "target" else None,
        "source_language": phase.train[0].partition("@")[2] or "en" if phase.train else "en",
        "intermediate_seed": phase.intermediate_seed,
        "target_seed": phase.target_seed,
        "parent": parent_key,
    }


def encode_items(statistic: str, values: np.ndarray, aligned: bool) -> dict[str, Any]:
    """Returns per-item scores in the compact form that a report reads."""
    array = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return {
        "statistic": statistic,
        "dtype": values.dtype.name,
        "shape": list(values.shape),
        "data": base64.b64encode(zlib.compress(array.tobytes(), 6)).decode(),
        "aligned": aligned,
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
    """Returns the record of a phase that did not come through; what it would have scored is named."""
    tasks = [get_task(name) for name in phase.evaluate]
    return {
        "format": FORMAT,
        "phase": phase_record(phase, key, parent_key),
        "scores": {},
        "main_metric": {task.name: list(MAIN_VALUES[task.metric]) for task in tasks},
        "reported_split": {
            task.name: task.selection if phase.stage == "intermediate" else task.reported for task in tasks
        },
        "environment": {"finished": datetime.now(UTC).isoformat(timespec="seconds")},
        "error": {"type": type(error).__name__, "message": str(error)},
    }


def read_result(folder: Path) -> dict[str, Any] | None:
    """Returns the result in a phase's folder; None if there is none, or none that can be read."""
    try:
        result = json.loads((folder / RESULT).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return result if isinstance(result, dict) and result.get("format") == FORMAT else None


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Writes ``result.json``."""
    write_json(folder / RESULT, result)
