"""What a phase depends on, as plain records, and the hashes that name it.

A training key holds what defines training, so that a changed setting never meets an old checkpoint. What only
defines how a finished model is scored (test files, reporting languages) is in the evaluation key: adding a test
language evaluates again and never retrains. How a run is computed (mesh, accumulation, rematerialisation, how
often it logs and saves) is in neither: it changes results by rounding at most.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from stilts_jax.evaluation.metrics import TUNED_METRICS, metric_version
from stilts_jax.experiment.phases import Phase, hyperparameters_of
from stilts_jax.features.build import FEATURE_VERSION
from stilts_jax.settings import Settings
from stilts_jax.tasks.spec import Hyperparameters, Task

FORMAT = 3  # raised when what these records mean changes

_NOT_IN_KEY = {
    # These change how a run is computed or watched, not what it computes.
    *("accumulation", "buckets", "checkpoint_every", "keep_latest", "log_every", "tensorboard"),
    # These are in the phase's own hyperparameters, after presets and overrides have met.
    *("learning_rate", "batch_size", "epochs", "max_length", "warmup", "weight_decay"),
}

Tasks = Callable[[str], Task]
Fingerprint = Callable[[Task, str, str], str]  # task, split, language -> hash of its data
# phase, task -> the tasks whose dev sets pick its best step, and their languages
Selection = Callable[[Phase, Task], Sequence[tuple[Task, Sequence[str]]]]


def hash_record(record: Any) -> str:
    """Returns a hash of a record of plain values; the same in every process."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def phase_hyperparameters(phase: Phase, task: Task, settings: Settings) -> Hyperparameters:
    """Returns how ``task`` is trained in ``phase``."""
    return phase.hyperparameters or hyperparameters_of(task, settings)


def training_record(
    phase: Phase,
    settings: Settings,
    get_task: Tasks,
    start: str,
    fingerprint: Fingerprint,
    selection: Selection,
    mlm_languages: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Returns what the training of ``phase`` depends on.

    Args:
        start: the parent's training key, or the fingerprint of the encoder's files.
        mlm_languages: those that masked language modelling reads.
    """
    tasks = {}
    for task in map(get_task, phase.train):
        languages = mlm_languages if task.name == "mlm" else (task.source_language,)
        tasks[task.name] = {
            "version": task.version,
            "hyperparameters": asdict(phase_hyperparameters(phase, task, settings)),
            "data": {f"train/{language}": fingerprint(task, "train", language) for language in languages},
            "selection": {
                f"{chosen.name}/{chosen.metric}/{language}": fingerprint(chosen, chosen.selection, language)
                for chosen, scored in selection(phase, task)
                for language in scored
            },
        }
    trained = [get_task(name) for name in phase.train]
    mixed = len(trained) > 1 or any(
        task.kind == "mlm" for task in trained
    )  # several tasks, or masks and languages of MLM
    compute = asdict(settings.compute)
    seen = any(task.pictures for task in trained)
    data = settings.data
    return {
        **({"pictures": [data.pictures, data.picture_size, data.picture_patch]} if seen else {}),
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


def evaluation_record(
    phase: Phase,
    settings: Settings,
    get_task: Tasks,
    fingerprint: Fingerprint,
    languages: Callable[[Phase, Task, str], Iterable[str]],
) -> dict[str, Any]:
    """Returns what the scores of ``phase`` depend on besides its training; ``languages`` of a split are scored."""
    return {
        "format": FORMAT,
        "features": FEATURE_VERSION,
        "tasks": {
            task.name: {
                "version": task.version,
                "metric": [task.metric, metric_version(task.metric)],
                "data": {
                    f"{split}/{language}": fingerprint(task, split, language)
                    for split in evaluated_splits(phase, task)
                    for language in languages(phase, task, split)
                },
            }
            for task in map(get_task, phase.evaluate)
        },
        "retrieval": {
            "layer": settings.model.retrieval_layer,
            "sweep": settings.model.sweep_layers,
            "neighbours": settings.evaluation.mining_neighbours,
            "max_length": settings.evaluation.max_length,
        },
        "limit": settings.evaluation.limit,
    }


def evaluated_splits(phase: Phase, task: Task) -> tuple[str, ...]:
    """Returns the splits that are scored, the reported one last: before it the one that a threshold is tuned on.

    An intermediate reports its own dev set. So does SQuAD 2.0, whose own script tunes the threshold there.
    """
    if phase.stage == "intermediate":
        return (task.selection,)
    tuned = task.metric in TUNED_METRICS and task.selection != task.reported
    return (task.selection, task.reported) if tuned else (task.reported,)
