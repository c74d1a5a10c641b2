"""Scores tasks in all their languages: those of a phase, and those that ``stilts eval`` asks of any model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.evaluation.evaluate import Evaluation, evaluate_task
from stilts_jax.evaluation.metrics import MAIN_VALUES, main_score
from stilts_jax.evaluation.predict import default_layer
from stilts_jax.evaluation.retrieval import Embedder, evaluate_retrieval, sweep_layers
from stilts_jax.evaluation.submission import write_predictions, write_thresholds
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.data import describe_data
from stilts_jax.experiment.keys import evaluated_splits, hash_record, phase_hyperparameters
from stilts_jax.experiment.models import (
    OpenModel,
    Trained,
    fit_head,
    load_final,
    load_phase_start,
    open_model,
)
from stilts_jax.experiment.phases import Phase, hyperparameters_of
from stilts_jax.experiment.results import PhaseScores, encode_items
from stilts_jax.features.records import Features
from stilts_jax.model import EncoderConfig, Model, TaskHead
from stilts_jax.progress import SILENT
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import read_retrieval, selection_language, with_labels
from stilts_jax.tasks.spec import Example, Task

Thresholds = Mapping[str, float]


def evaluate_phase(phase: Phase, context: Context, trained: Trained | None) -> PhaseScores:
    """Scores every task of ``phase``; ``trained`` is None where it trains nothing."""
    scores = PhaseScores()
    if phase.evaluate:
        if trained is None:
            model = load_phase_start(phase, context)
        else:
            tokenizer = context.tokenizer(phase.encoder)
            model = load_final(context.folder(phase), trained, tokenizer, context.mesh, context.progress)
        scorer = Scorer(phase, context, model, scores)
        for name in phase.evaluate:
            scorer.score(with_labels(get_task(name), context.source))
        if phase.stage == "target":
            scores.source_dev = scorer.score_source_dev()
    return scores


def score_rows(
    config: EncoderConfig,
    encoder: Mapping[str, Any],
    name: str,
    head: TaskHead,
    task: Task,
    features: Features,
    examples: Mapping[str, Sequence[Example]],
    context: Context,
    thresholds: Thresholds | None = None,
    *,
    silent: bool = False,
) -> Evaluation:
    """Predicts and scores rows with one head, whose labels are matched with the task's by name.

    The way of every score but retrieval's: of selection, reports and ``stilts eval`` alike.
    """
    fitted = fit_head(task, name, head)
    return evaluate_task(
        Model(config, ((name, fitted.config),), context.settings.compute),
        {"encoder": encoder, "head": fitted.params},
        task,
        features,
        examples,
        head=name,
        thresholds=thresholds,
        tokens_per_batch=context.settings.evaluation.tokens_per_batch,
        mesh=context.mesh,
        progress=SILENT if silent else context.progress,
    )


@dataclass(frozen=True)
class Scorer:
    """Scores tasks with a finished model, and adds them to ``scores``."""

    phase: Phase
    context: Context
    model: OpenModel
    scores: PhaseScores

    def score(self, task: Task) -> None:
        """Adds one task."""
        context, scores = self.context, self.scores
        *tuned_on, reported = evaluated_splits(self.phase, task)
        asked = _reported_languages(self.phase, task, context)
        scores.scores[task.name] = {}
        scores.reported_split[task.name] = reported
        scores.main_metric[task.name] = list(MAIN_VALUES[task.metric])
        thresholds = self._tune(task, tuned_on[0], asked) if tuned_on else None
        found = self._score_split(task, reported, asked, thresholds)
        if thresholds is not None or found.thresholds:
            scores.thresholds[task.name] = found.thresholds if thresholds is None else thresholds
        scores.predictions[task.name] = found.predictions
        same = {(len(one.items.values), one.items.ids) for one in found.results.values() if one.items}
        aligned = len(same) == 1 and task.aligned
        scores.items[task.name] = {
            language: encode_items(result.items, aligned)
            for language, result in found.results.items()
            if result.items is not None
        }

    def _tune(self, task: Task, split: str, asked: Sequence[str]) -> dict[str, float]:
        """Scores ``split`` (dev) and returns the threshold that each language of ``asked`` takes from it.

        BUCC tunes each language on its own dev set, as it is defined; other tasks take the source language's.
        """
        found = self.context.languages(self.phase, task, split)
        tuned = self._score_split(task, split, found, None).thresholds if found else {}
        if task.retrieval != "mining":
            tuned = dict.fromkeys(asked, tuned[task.source_language]) if tuned else {}
        if tuned:
            where = "each language's" if task.retrieval == "mining" else f"the {task.source_language}"
            self.scores.notes.append(f"{task.name}: the threshold was tuned on {where} dev set ({split})")
        lost = [language for language in asked if language not in tuned]
        if lost:
            note = (
                f"{task.name}: not scored in {', '.join(lost)}, because there is no dev set ({split}) with gold "
                "to tune the threshold on"
            )
            self.scores.notes.append(note)
            self.context.progress.say(note)
        return tuned

    def _score_split(
        self, task: Task, split: str, languages: Sequence[str], thresholds: Thresholds | None
    ) -> Evaluation:
        """Scores one split; without ``thresholds`` a task that needs one tunes it on this split."""
        context, scores = self.context, self.scores
        scores.notes.extend(describe_data(self.phase, task, split, context))
        score = self._retrieve if task.kind == "embed" else self._predict
        with context.progress.part(f"{task.name} {split}"):
            found, examples = score(task, split, languages, thresholds)
        scores.scores[task.name][split] = found.scores
        scores.data.setdefault(task.name, {})[split] = {
            "fingerprint": hash_record([context.fingerprint(task, split, one) for one in languages]),
            "languages": list(languages),
            "examples": examples,
        }
        return found

    def score_source_dev(self) -> dict[str, Any] | None:
        """Scores what was trained on its own dev set; None for dual encoders, and where there is none or no gold."""
        task = with_labels(get_task(self.phase.train[-1]), self.context.source)
        if task.kind == "embed" or not task.selection:
            return None
        language = selection_language(task, self.context.source)
        with self.context.progress.part(f"{task.name} {task.selection} {language}"):
            found, examples = self._predict(task, task.selection, (language,), None)
        if language not in found.results:
            return None
        return {
            "task": task.name,
            "split": task.selection,
            "language": language,
            "examples": examples,
            "score": main_score(task.metric, found.results[language].values),
        }

    def _predict(
        self, task: Task, split: str, languages: Sequence[str], thresholds: Thresholds | None
    ) -> tuple[Evaluation, int]:
        """Returns what was scored, and how many examples that were."""
        context, model, limit = self.context, self.model, self.context.settings.evaluation.limit
        hyperparameters = phase_hyperparameters(self.phase, task, context.settings)
        examples = context.examples(task, split, languages, limit)
        features = context.features(task, split, languages, model.tokenizer, hyperparameters, limit, examples)
        name, head = self._head_of(task)
        found = score_rows(
            model.config, model.params, name, head, task, features, examples, context, thresholds
        )
        return found, sum(map(len, examples.values()))

    def _retrieve(
        self, task: Task, split: str, languages: Sequence[str], thresholds: Thresholds | None
    ) -> tuple[Evaluation, int]:
        """Returns what was scored, and how many queries that were."""
        context, settings, layers = self.context, self.context.settings, self.scores.layer_thresholds
        sets = {language: read_retrieval(task, split, language, context.source) for language in languages}
        num_queries = sum(len(one.queries) for one in sets.values())
        embed, embed_queries = self._embedders(task)
        options: dict[str, Any] = {"neighbours": settings.evaluation.mining_neighbours}
        if settings.evaluation.tile:
            options["tile"] = (settings.evaluation.tile, settings.evaluation.tile)
        if task.is_trained or not settings.model.sweep_layers:
            options |= {"embed_queries": embed_queries, "thresholds": thresholds}
            return evaluate_retrieval(task, sets, embed, **options), num_queries
        by_layer = None if thresholds is None else layers[task.name]
        swept = sweep_layers(task, sets, embed, thresholds=by_layer, **options)
        if task.retrieval == "mining" and thresholds is None:
            layers[task.name] = [found.thresholds for found in swept]
        for layer, found in enumerate(swept):
            self.scores.scores[task.name][f"{split}-layer{layer}"] = found.scores
        chosen = settings.model.retrieval_layer or default_layer(self.model.config.num_layers)
        return swept[chosen], num_queries

    def _embedders(self, task: Task) -> tuple[Embedder, Embedder]:
        """Returns what embeds candidates, and what embeds queries: by a trained head, or by a layer of the encoder."""
        context, model, evaluation = self.context, self.model, self.context.settings.evaluation
        hyperparameters = phase_hyperparameters(self.phase, task, context.settings)
        name, head = self._head_of(task) if task.is_trained else (None, None)
        wanted = hyperparameters.max_length if head else evaluation.max_length
        embed = Embedder(
            Model(model.config, ((name, head.config),) if head and name else (), context.settings.compute),
            {"encoder": model.params, **({"head": head.params} if head else {})},
            model.tokenizer,
            max_length=min(wanted, model.config.max_length),
            layer=context.settings.model.retrieval_layer or None,
            head=name,
            tokens_per_batch=evaluation.tokens_per_batch,
            mesh=context.mesh,
            progress=context.progress,
        )
        return embed, replace(embed, max_length=hyperparameters.max_query_length) if head else embed

    def _head_of(self, task: Task) -> tuple[str, TaskHead]:
        """The task's own head, or that of the one task that was trained in its place."""
        heads = self.model.heads
        name = task.name if task.name in heads else next(iter(heads))
        return name, heads[name]


def _reported_languages(phase: Phase, task: Task, context: Context) -> tuple[str, ...]:
    """Returns the languages that a phase scores; raises where there are none."""
    split = evaluated_splits(phase, task)[-1]
    found, asked = context.languages(phase, task, split), context.settings.experiment.languages
    if not found:
        raise DataError(
            f"There are no data to evaluate {task.name} on.",
            where=f"{context.source.root}, split {split}, languages {asked or ', '.join(task.languages)}",
            fix=f"`stilts tasks {task.name} --data_root=...` says which files are looked for",
        )
    return found


# -- a model from outside


def evaluate_model(
    name: str,
    tasks: Sequence[str],
    context: Context,
    *,
    out: Path,
    head: str | None = None,
    labels: tuple[str, ...] = (),
) -> PhaseScores:
    """Scores tasks with a model from outside an experiment and writes its predictions.

    Args:
        name: a phase's folder, a transformers folder or a hub name.
        out: folder of predictions.
        head: which of the model's heads; None takes the one that fits the task.
        labels: names of the head's outputs, the first output first; empty takes those that the model names.
    """
    phases = {}
    for reference in tasks:
        task = with_labels(get_task(reference), context.source)
        if task.kind == "mlm":
            raise ConfigError(
                "Masked language modelling has no score to report.",
                where="--task=mlm",
                fix="name another task",
            )
        phases[task.name] = task, _phase_of(name, reference, task, context)
        _reported_languages(phases[task.name][1], task, context)
    opened = open_model(name, context.mesh, context.progress)
    chosen = {task.name: _choose_head(task, opened, head, labels) for task, _ in phases.values()}
    scores = PhaseScores()
    for task, phase in phases.values():
        Scorer(phase, context, replace(opened, heads=chosen[task.name]), scores).score(task)
        if context.is_main:
            for language, predictions in scores.predictions[task.name].items():
                write_predictions(out, task, language, predictions)
            if task.name in scores.thresholds:
                write_thresholds(out, task, scores.thresholds[task.name])
    return scores


def _phase_of(model: str, reference: str, task: Task, context: Context) -> Phase:
    """Returns what a grid would call the evaluation of a model that another program trained."""
    hyperparameters = hyperparameters_of(task, context.settings)
    return Phase(f"eval {model}", "target", "none", (), (reference,), model, hyperparameters=hyperparameters)


def _choose_head(
    task: Task, model: OpenModel, asked: str | None, labels: tuple[str, ...]
) -> dict[str, TaskHead]:
    """Returns the head that predicts ``task``, by its name; none for retrieval, which reads the encoder alone."""
    if not task.is_trained:
        return {}
    name = _find_head(task, model.heads, asked)
    found = model.heads[name]
    if labels:
        found = replace(found, labels=labels)
    fit_head(task, name, found)  # refused now, and not when the tasks before this one have been scored
    return {name: found}


def _find_head(task: Task, heads: Mapping[str, TaskHead], asked: str | None) -> str:
    """Returns the name of a task's head: the one asked for, the task's own, or the only one of its kind."""
    if asked is not None and asked not in heads:
        raise ConfigError(
            f"The model has no head {asked!r}.",
            where="--head",
            fix=nearest(asked, heads) if heads else "it has no head at all: leave --head out",
        )
    fitting = [name for name, head in heads.items() if head.config.kind == task.kind]
    for name in (asked or "", *(get_task(one).name for one in task.train_on[-1:]), task.name):
        if name in heads:
            return name
    if len(fitting) == 1:
        return fitting[0]
    listed = [
        f"{name} ({head.config.kind}{': ' if head.labels else ''}{', '.join(head.labels)})"
        for name, head in heads.items()
    ]
    raise ConfigError(
        f"The model has {'several heads' if fitting else 'no head'} of the kind {task.kind}, as {task.name} needs one.",
        where=f"heads: {'; '.join(listed) or 'none'}",
        fix="name one with --head" if fitting else f"evaluate a model that was fine-tuned for {task.name}",
    )
