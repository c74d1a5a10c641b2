"""Evaluates one model from outside an experiment: a phase's folder, or a transformers folder."""

from pathlib import Path

from stilts_jax.data.sources import with_labels
from stilts_jax.errors import ConfigError, nearest
from stilts_jax.evaluation.submission import write_predictions, write_thresholds
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.evaluate_phase import PhaseScores, Scorer
from stilts_jax.experiment.finished import open_model
from stilts_jax.experiment.phases import Phase, hyperparameters_of
from stilts_jax.tasks import get_task


def evaluate_model(
    model: str, names: tuple[str, ...], context: Context, *, out: Path, head: str | None = None
) -> PhaseScores:
    """Scores ``names`` and writes their predictions.

    Args:
        model: a phase's folder, a transformers folder or a hub name.
        names: tasks.
        out: folder of predictions.
        head: which of the model's heads; None if it has one, or one that fits the task's training.
    """
    opened = open_model(model, context.mesh, context.progress)
    context.adopt_tokenizer(model, opened.tokenizer)
    scores = PhaseScores()
    for name in names:
        task = with_labels(get_task(name), context.source)
        chosen = None
        if task.is_trained:
            wanted = (*(get_task(one).name for one in task.train_on[-1:]), task.name)
            chosen = head or _fitting_head(task.name, wanted, opened.heads)
        phase = Phase(
            name=f"eval {model}",
            stage="target",
            intermediate="none",
            train=(chosen,) if chosen else (),
            evaluate=(name,),
            encoder=model,
            hyperparameters=hyperparameters_of(task, context.settings),
        )
        scorer = Scorer(
            phase,
            context,
            opened.config,
            opened.params,
            {chosen: opened.heads[chosen][1]} if chosen else {},
            {chosen: opened.heads[chosen][0]} if chosen else {},
        )
        scorer.score(task, scores)
        if context.is_main:
            for language, predictions in scores.predictions[task.name].items():
                write_predictions(out, task, language, predictions)
            if task.name in scores.thresholds:
                write_thresholds(out, task, scores.thresholds[task.name])
    return scores


def _fitting_head(task: str, wanted: tuple[str, ...], heads: dict) -> str:
    for name in wanted:
        if name in heads:
            return name
    if len(heads) == 1:
        return next(iter(heads))
    raise ConfigError(
        f"The model has no head for {task}." if heads else f"The model has no head at all; {task} needs one.",
        where="--head",
        fix=nearest(task, heads) if heads else "name the folder of a model that was fine-tuned for the task",
    )
