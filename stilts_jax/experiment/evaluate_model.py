"""Evaluates one model from outside an experiment: a phase's folder, or a transformers folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.evaluation.submission import write_predictions, write_thresholds
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.evaluate_phase import PhaseScores, Scorer
from stilts_jax.experiment.finished import OpenModel, open_model
from stilts_jax.experiment.labels import fit_head
from stilts_jax.experiment.phases import Phase, hyperparameters_of
from stilts_jax.model import TaskHead
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import with_labels
from stilts_jax.tasks.spec import Task


def evaluate_model(
    model: str,
    names: tuple[str, ...],
    context: Context,
    *,
    out: Path,
    head: str | None = None,
    labels: tuple[str, ...] = (),
) -> PhaseScores:
    """Scores ``names`` and writes their predictions.

    Args:
        model: a phase's folder, a transformers folder or a hub name.
        names: tasks.
        out: folder of predictions.
        head: which of the model's heads; None takes the one that fits the task.
        labels: names of the head's outputs, the first output first; empty takes those that the model names.
    """
    tasks = [with_labels(get_task(name), context.source) for name in names]
    phases = [_phase(model, name, task, context) for name, task in zip(names, tasks)]
    for phase, task in zip(phases, tasks):
        _check_data(phase, task, context)
    opened = open_model(model, context.mesh, context.progress)
    context.adopt_tokenizer(model, opened.tokenizer)
    chosen = {task.name: _choose_head(task, opened, head, labels) for task in tasks}
    scores = PhaseScores()
    for phase, task in zip(phases, tasks):
        heads = chosen[task.name]
        scorer = Scorer(
            phase,
            context,
            opened.config,
            opened.params,
            {name: one.params for name, one in heads.items()},
            {name: one.config for name, one in heads.items()},
            {name: one.labels for name, one in heads.items()},
        )
        scorer.score(task, scores)
        if context.is_main:
            for language, predictions in scores.predictions[task.name].items():
                write_predictions(out, task, language, predictions)
            if task.name in scores.thresholds:
                write_thresholds(out, task, scores.thresholds[task.name])
    return scores


def _phase(model: str, name: str, task: Task, context: Context) -> Phase:
    """Returns what a grid would call the evaluation of a model that another program trained."""
    return Phase(
        name=f"eval {model}",
        stage="target",
        intermediate="none",
        train=(),
        evaluate=(name,),
        encoder=model,
        hyperparameters=hyperparameters_of(task, context.settings),
    )


def _check_data(phase: Phase, task: Task, context: Context) -> None:
    if task.kind == "mlm":
        raise ConfigError(
            "Masked language modelling has no score to report.", where="--task=mlm", fix="name another task"
        )
    if not context.languages(phase, task, task.reported):
        raise DataError(
            f"There are no data to evaluate {task.name} on.",
            where=f"{context.source.root}, split {task.reported}, languages "
            f"{context.settings.experiment.languages or ', '.join(task.languages)}",
            fix=f"`stilts tasks {task.name} --data_root=...` says which files are looked for",
        )


def _choose_head(
    task: Task, model: OpenModel, asked: str | None, labels: tuple[str, ...]
) -> dict[str, TaskHead]:
    """Returns the head that predicts ``task``, by its name; none for retrieval, which reads the encoder alone."""
    if not task.is_trained:
        return {}
    name = find_head(task, model.heads, asked)
    found = model.heads[name]
    if labels:
        found = replace(found, labels=labels)
    # Refused now, and not when the tasks before this one have been scored.
    fit_head(task, name, found.config, found.params, found.labels)
    return {name: found}


def find_head(task: Task, heads: Mapping[str, TaskHead], asked: str | None) -> str:
    """Returns the name of a task's head: the one asked for, the task's own, or the only one of its kind."""
    listed = "; ".join(
        f"{name} ({head.config.kind}{': ' if head.labels else ''}{', '.join(head.labels)})"
        for name, head in heads.items()
    )
    if asked is not None:
        if asked in heads:
            return asked
        raise ConfigError(
            f"The model has no head {asked!r}.",
            where="--head",
            fix=nearest(asked, heads) if heads else "it has no head at all: leave --head out",
        )
    for name in (*(get_task(one).name for one in task.train_on[-1:]), task.name):
        if name in heads:
            return name
    fitting = [name for name, head in heads.items() if head.config.kind == task.kind]
    if len(fitting) == 1:
        return fitting[0]
    raise ConfigError(
        f"The model has {'several heads' if fitting else 'no head'} of the kind {task.kind}, as {task.name} needs one.",
        where=f"heads: {listed or 'none'}",
        fix="name one with --head" if fitting else f"evaluate a model that was fine-tuned for {task.name}",
    )
