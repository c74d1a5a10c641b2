"""Runs one phase: trains it if it is not trained, scores it if it is not scored, writes ``result.json``."""

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import jax

from stilts_jax.checkpoint import check_settings, lock_run
from stilts_jax.distributed import from_main
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.evaluate_phase import PhaseScores, evaluate_phase
from stilts_jax.experiment.models import read_trained
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.results import (
    FORMAT,
    encode_items,
    environment_record,
    phase_record,
    read_result,
    task_records,
    write_result,
)
from stilts_jax.experiment.train_phase import adopt_training, train_phase
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import split_names
from stilts_jax.tasks import get_task


def is_done(phase: Phase, context: Context) -> bool:
    """Says whether ``phase`` is trained and scored on what the settings ask for."""
    return _is_done(phase, context, SILENT)


def _is_done(phase: Phase, context: Context, progress: Progress) -> bool:
    """Says damaged records to ``progress``."""
    folder, key = context.folder(phase), context.key(phase)
    result = read_result(folder, progress)
    trained = not phase.train or read_trained(folder, key, progress) is not None
    return bool(
        trained
        and result
        and result["phase"]["key"] == key
        and result["evaluation_key"] == context.evaluation_key(phase)
    )


def run_phase(phase: Phase, context: Context) -> None:
    """Does whatever is left to do of ``phase``."""
    if from_main(lambda: _is_done(phase, context, context.progress)):
        context.progress.say("done before")
        return
    folder = context.folder(phase)
    started = datetime.now(UTC)
    with lock_run(folder) if context.is_main else nullcontext():
        if context.is_main:
            check_settings(folder, context.training_record(phase))
        trained = None
        if phase.train:
            trained = (
                from_main(lambda: read_trained(folder, context.key(phase)))
                or adopt_training(phase, context)
                or train_phase(phase, context)
            )
        scores = evaluate_phase(phase, context, trained)
        if context.is_main:
            write_result(folder, _result(phase, context, trained, scores, started))
    context.progress.say(scores.summary())


def _result(
    phase: Phase, context: Context, trained: dict[str, Any] | None, scores: PhaseScores, started: datetime
) -> dict[str, Any]:
    work = (trained or {}).get("work", {})
    device = jax.devices()[0]
    parent_key = context.key(phase.parent) if phase.parent else None
    return {
        "format": FORMAT,
        "phase": phase_record(phase, context.key(phase), parent_key),
        "tasks": task_records(phase),
        "evaluation_key": context.evaluation_key(phase),
        "scores": scores.scores,
        "main_metric": scores.main_metric,
        "reported_split": scores.reported_split,
        "selection": _selection(phase, context, trained, scores),
        "items": {
            task: {
                language: encode_items(items.statistic, items.values, aligned, items.ids)
                for language, (items, aligned) in languages.items()
            }
            for task, languages in scores.items.items()
        },
        "curve": (trained or {}).get("curve", []),
        "throughput": {
            "examples_per_second": work.get("examples_per_second", 0.0),
            "real_tokens_per_second": work.get("real_tokens_per_second", 0.0),
            "padding_share": work.get("padding_share", 0.0),
            "seconds": work.get("seconds", 0.0),
            "steps": work.get("steps", 0),
        },
        "environment": environment_record(context.command, started, device.device_kind, jax.device_count())
        | {"attention": (trained or {}).get("attention")},
        "config": context.training_record(phase)
        | {"title": context.settings.title, "encoder": phase.encoder},
        "data": (trained or {}).get("data", {}) | scores.data,
        "thresholds": scores.thresholds,
        "error": None,
    }


def _selection(
    phase: Phase, context: Context, trained: dict[str, Any] | None, scores: PhaseScores
) -> dict[str, Any]:
    settings, notes = context.settings, list(scores.notes)
    zero_shot = True
    for member in (phase, *phase.ancestors()):
        if member.train and settings.experiment.select_on != "en" and member.stage == "target":
            zero_shot = False
            notes.append(f"{member.name}: the best step was chosen on dev sets of the target languages")
    if settings.model.sweep_layers:
        notes.append("all layers were scored: choosing one of them by these scores is not zero-shot")
    limit = settings.data.limit
    if limit:
        notes.append(f"trained on the first {limit} examples only")
    limited = [
        task.name for task in map(get_task, phase.evaluate) if task.kind != "embed"
    ]  # pools stay whole
    if settings.evaluation.limit and limited:
        notes.append(
            f"{', '.join(limited)}: scored on the first {settings.evaluation.limit} examples of each language only"
        )
    if settings.experiment.train_on:
        notes.append(f"targets trained on something else than usual: {settings.experiment.train_on}")
    if split_names(settings.experiment.languages):
        notes.append("only some of the languages were asked for")
    history = (trained or {}).get("history", [])
    return {
        "zero_shot": zero_shot,
        "notes": notes,
        "metric": "mean of the main metrics",
        "history": history,
        "best_step": (trained or {}).get("step"),
        "collapsed": (trained or {}).get("collapsed", False),
        "chance": (trained or {}).get("chance"),
        "source_dev": scores.source_dev,
    }
