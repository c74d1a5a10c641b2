"""What a phase depends on, as plain records, and the hashes that name it.

A training key holds what defines training, so that a changed setting never meets an old checkpoint. What only
defines how a finished model is scored (test files, reporting languages) is in the evaluation key: adding a test
language evaluates again and never retrains. How a run is computed (mesh, accumulation, rematerialisation, how
often it logs and saves) is in neither: it changes results by rounding at most.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from stilts_jax.evaluation.metrics import metric_version
from stilts_jax.experiment.data import PhaseData
from stilts_jax.experiment.phases import Phase, hyperparameters_of
from stilts_jax.features.build import FEATURE_VERSION
from stilts_jax.settings import TASK_OPTIONS, Settings
from stilts_jax.tasks.spec import Task

FORMAT = 3  # raised when what these records mean changes

_NOT_IN_KEY = {
    # These change how a run is computed or watched, not what it computes.
    *("accumulation", "buckets", "checkpoint_every", "keep_latest", "log_every", "tensorboard"),
    # These are in the phase's own hyperparameters, after presets and overrides have met.
    *(*TASK_OPTIONS, "by_task"),
}
Fingerprint = Callable[[Task, str, str], str]  # task, split, language -> hash of its data


def hash_record(record: Any) -> str:
    """Returns a hash of a record of plain values; the same in every process."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def training_record(
    phase: Phase, settings: Settings, data: PhaseData, start: str, fingerprint: Fingerprint
) -> dict[str, Any]:
    """Returns what the training of ``phase`` depends on.

    ``start`` is the parent's training key, or the fingerprint of the encoder's files.
    """
    tasks = {
        part.task.name: {
            "version": part.task.version,
            "hyperparameters": asdict(phase.hyperparameters or hyperparameters_of(part.task, settings)),
            "data": {f"train/{one}": fingerprint(part.task, "train", one) for one in part.languages},
            "selection": {
                f"{dev.task.name}/{dev.task.metric}/{one}": fingerprint(dev.task, dev.split, one)
                for dev in data.selection[part.task.name]
                for one in dev.languages
            },
        }
        for part in data.train
    }
    trained = [part.task for part in data.train]
    # Several tasks, or masks and languages of MLM.
    mixed = len(trained) > 1 or any(task.kind == "mlm" for task in trained)
    seen, compute = any(task.pictures for task in trained), asdict(settings.compute)
    sight = [settings.data.pictures, settings.data.picture_size, settings.data.picture_patch]
    return {
        **({"pictures": sight} if seen else {}),
        **settings.model.dropout,
        "format": FORMAT,
        "features": FEATURE_VERSION,
        "start": start,
        "carry_head": phase.carry_head,
        "tasks": tasks,
        "seed": phase.seed,
        "train": {k: value for k, value in asdict(settings.train).items() if k not in _NOT_IN_KEY},
        "mixture": asdict(settings.mixture) if mixed else {},
        "head": {"form": settings.model.head_form, "init": settings.model.head_init},
        "precision": {name: compute[name] for name in ("dtype", "param_dtype", "matmul_precision")},
        "limit": settings.data.limit,
        "select_on": settings.experiment.select_on,
        "debug": settings.debug,
    }


def evaluation_record(settings: Settings, data: PhaseData, fingerprint: Fingerprint) -> dict[str, Any]:
    """Returns what the scores of a phase depend on besides its training."""
    return {
        "format": FORMAT,
        "features": FEATURE_VERSION,
        "tasks": {
            name: {
                "version": parts[-1].task.version,
                "metric": [parts[-1].task.metric, metric_version(parts[-1].task.metric)],
                "data": {
                    f"{part.split}/{language}": fingerprint(part.task, part.split, language)
                    for part in parts
                    for language in part.languages
                },
            }
            for name, parts in data.scored.items()
        },
        "retrieval": {
            "layer": settings.model.retrieval_layer,
            "sweep": settings.model.sweep_layers,
            "neighbours": settings.evaluation.mining_neighbours,
            "max_length": settings.evaluation.max_length,
        },
        "limit": settings.evaluation.limit,
    }
