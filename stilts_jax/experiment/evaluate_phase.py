"""Scores the tasks of a phase in all their languages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from stilts_jax.errors import DataError
from stilts_jax.evaluation.evaluate import Evaluation, evaluate_task
from stilts_jax.evaluation.metrics import MAIN_VALUES, Items, main_score
from stilts_jax.evaluation.predict import default_layer
from stilts_jax.evaluation.retrieval import Embedder, evaluate_retrieval, sweep_layers
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.data_notes import describe_data
from stilts_jax.experiment.keys import evaluated_splits, hash_record, phase_hyperparameters
from stilts_jax.experiment.labels import fit_head
from stilts_jax.experiment.models import load_final, load_phase_start
from stilts_jax.experiment.phase_data import feature_settings
from stilts_jax.experiment.phases import Phase
from stilts_jax.model import EncoderConfig, HeadConfig, Model
from stilts_jax.sharding import parameter_shardings
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import read_retrieval, selection_language, with_labels
from stilts_jax.tasks.spec import Task

# Targets whose languages are translations of the same items, in the same order.
ALIGNED = frozenset(("xnli", "xquad", "xcopa"))


@dataclass(frozen=True)
class PhaseScores:
    """What a phase scored, in the form of ``result.json``.

    Attributes:
        scores: {task: {split: {metric: {language: percent}}}}
        main_metric: {task: metrics that make the table's cell}
        reported_split: {task: split}
        items: {task: {language: (per-item values of the reported split, whether they are aligned over languages)}}
        data: {task: {split: {"fingerprint", "examples"}}}
        thresholds: {task: {language: threshold}}, tuned on dev.
        layer_thresholds: {task: such thresholds of every layer}, for a sweep over layers.
        notes: what a reader must know about how scores came about.
        predictions: {task: {language: predictions of the reported split}}
        source_dev: what the phase's own training task scores on its dev set, in the language that it was trained in:
            what intermediates may be chosen by without a look at another language.
    """

    scores: dict[str, Any] = field(default_factory=dict)
    main_metric: dict[str, list[str]] = field(default_factory=dict)
    reported_split: dict[str, str] = field(default_factory=dict)
    items: dict[str, dict[str, tuple[Items, bool]]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)
    layer_thresholds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    predictions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    source_dev: dict[str, Any] | None = None

    def summary(self) -> str:
        """One line for the log: each task's main metric, averaged over languages."""
        parts = []
        for task, splits in self.scores.items():
            split = self.reported_split[task]
            for metric in self.main_metric[task]:
                values = splits.get(split, {}).get(metric, {})
                if values:
                    mean = sum(values.values()) / len(values)
                    parts.append(f"{task} {split} {metric} {mean:.1f} ({len(values)} languages)")
        return "; ".join(parts) or "trained"


def evaluate_phase(phase: Phase, context: Context, trained: Mapping[str, Any] | None) -> PhaseScores:
    """Scores every task of ``phase``.

    Args:
        trained: the record of its training; None where it trains nothing.
    """
    scores = PhaseScores()
    if phase.evaluate:
        scorer = _load(phase, context, trained)
        for name in phase.evaluate:
            scorer.score(with_labels(get_task(name), context.source), scores)
        if phase.stage == "target":
            return replace(scores, source_dev=scorer.score_source_dev())
    return scores


@dataclass
class Scorer:
    """A finished model with what is needed to score tasks: parameters, descriptions and labels of its heads by name."""

    phase: Phase
    context: Context
    config: EncoderConfig
    encoder: dict[str, Any]
    heads: dict[str, dict[str, Any]]
    head_configs: dict[str, HeadConfig]
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def score(self, task: Task, scores: PhaseScores) -> None:
        """Adds one task to ``scores``."""
        context = self.context
        *tuned_on, reported = evaluated_splits(self.phase, task)
        asked = context.languages(self.phase, task, reported)
        if not asked:
            raise DataError(
                f"There are no data to evaluate {task.name} on.",
                where=f"{context.source.root}, split {reported}",
                fix="`stilts tasks --data_root=...` says which files are looked for",
            )
        scores.scores[task.name] = {}
        scores.reported_split[task.name] = reported
        scores.main_metric[task.name] = list(MAIN_VALUES[task.metric])
        thresholds = None
        if tuned_on:
            thresholds = scores.thresholds[task.name] = self._tune(task, tuned_on[0], asked, scores)
        found = self._score_split(task, reported, asked, scores, thresholds)
        scores.predictions[task.name] = found.predictions
        same = {(len(one.items.values), one.items.ids) for one in found.results.values() if one.items}
        scores.items[task.name] = {
            language: (result.items, len(same) == 1 and task.name in ALIGNED)
            for language, result in found.results.items()
            if result.items is not None
        }

    def _tune(self, task: Task, split: str, asked: Sequence[str], scores: PhaseScores) -> dict[str, float]:
        """Scores ``split`` (dev) and returns the threshold that each language of ``asked`` takes from it.

        BUCC tunes each language on its own dev set, as it is defined; other tasks take the source language's.
        """
        found = self.context.languages(self.phase, task, split)
        results = self._score_split(task, split, found, scores, None).results if found else {}
        tuned = {
            language: results[language].settings["threshold"] for language in found if language in results
        }
        if task.retrieval != "mining":
            tuned = dict.fromkeys(asked, tuned[task.source_language]) if tuned else {}
        if tuned:
            where = "each language's" if task.retrieval == "mining" else f"the {task.source_language}"
            scores.notes.append(f"{task.name}: the threshold was tuned on {where} dev set ({split})")
        lost = [language for language in asked if language not in tuned]
        if lost:
            note = (
                f"{task.name}: not scored in {', '.join(lost)}, because there is no dev set ({split}) with gold "
                "to tune the threshold on"
            )
            scores.notes.append(note)
            self.context.progress.say(note)
        return tuned

    def _score_split(
        self,
        task: Task,
        split: str,
        languages: Sequence[str],
        scores: PhaseScores,
        thresholds: Mapping[str, float] | None,
    ) -> Evaluation:
        """Scores one split into ``scores``; without ``thresholds`` a task that needs one tunes it on this split."""
        context = self.context
        scores.notes.extend(describe_data(self.phase, task, split, context))
        with context.progress.part(f"{task.name} {split}"):
            if task.kind == "embed":
                found, examples = self._retrieve(task, split, languages, scores, thresholds)
            else:
                found, examples = self._predict(task, split, languages, thresholds)
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
            found, examples = self._predict(task, task.selection, (language,))
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
        self, task: Task, split: str, languages: Sequence[str], thresholds: Mapping[str, float] | None = None
    ) -> tuple[Evaluation, int]:
        """Returns what was scored, and how many examples that were."""
        context, phase = self.context, self.phase
        head = self._head_of(task)
        fitted = fit_head(task, head, self.head_configs[head], self.heads[head], self.labels.get(head, ()))
        settings = feature_settings(phase_hyperparameters(phase, task, context.settings))
        limit = context.settings.evaluation.limit
        examples = context.examples(task, split, languages)
        if limit:
            examples = {language: rows[:limit] for language, rows in examples.items()}
        features = context.features(
            task,
            split,
            languages,
            context.tokenizer(phase.encoder),
            settings,
            training=False,
            limit=limit,
            examples=examples,
        )
        found = evaluate_task(
            self._model({head: self.head_configs[head]}),
            {"encoder": self.encoder, "head": fitted},
            task,
            features,
            examples,
            head=head,
            thresholds=thresholds,
            tokens_per_batch=context.settings.evaluation.tokens_per_batch,
            mesh=context.mesh,
            progress=context.progress,
        )
        return found, sum(map(len, examples.values()))

    def _retrieve(
        self,
        task: Task,
        split: str,
        languages: Sequence[str],
        scores: PhaseScores,
        thresholds: Mapping[str, float] | None,
    ) -> tuple[Evaluation, int]:
        """Returns what was scored, and how many queries that were."""
        context, phase, settings = self.context, self.phase, self.context.settings
        sets = {language: read_retrieval(task, split, language, context.source) for language in languages}
        num_queries = sum(len(one.queries) for one in sets.values())
        trained = task.is_trained
        head = self._head_of(task) if trained else ""
        hyperparameters = phase_hyperparameters(phase, task, settings)
        embedder = Embedder(
            self._model({head: self.head_configs[head]} if trained else {}),
            {"encoder": self.encoder, "head": self.heads[head]} if trained else {"encoder": self.encoder},
            context.tokenizer(phase.encoder),
            max_length=min(
                hyperparameters.max_length if trained else settings.evaluation.max_length,
                self.config.max_length,
            ),
            layer=settings.model.retrieval_layer or None,
            head=head if trained else None,
            tokens_per_batch=settings.evaluation.tokens_per_batch,
            mesh=context.mesh,
            progress=context.progress,
        )
        queries = replace(embedder, max_length=hyperparameters.max_query_length) if trained else None
        options: dict[str, Any] = {"neighbours": settings.evaluation.mining_neighbours}
        if settings.evaluation.tile:
            options["tile"] = (settings.evaluation.tile, settings.evaluation.tile)
        if settings.model.sweep_layers and not trained:
            by_layer = None if thresholds is None else scores.layer_thresholds[task.name]
            layers = sweep_layers(task, sets, embedder, thresholds=by_layer, **options)
            if task.retrieval == "mining" and thresholds is None:
                scores.layer_thresholds[task.name] = [
                    {language: result.settings["threshold"] for language, result in found.results.items()}
                    for found in layers
                ]
            for layer, found in enumerate(layers):
                scores.scores[task.name][f"{split}-layer{layer}"] = found.scores
            return layers[
                settings.model.retrieval_layer or default_layer(self.config.num_layers)
            ], num_queries
        found = evaluate_retrieval(
            task, sets, embedder, embed_queries=queries, thresholds=thresholds, **options
        )
        return found, num_queries

    def _head_of(self, task: Task) -> str:
        """The task's own head, or that of the one task that was trained in its place."""
        return task.name if task.name in self.heads else next(iter(self.heads))

    def _model(self, heads: Mapping[str, HeadConfig]) -> Model:
        return Model(self.config, tuple(heads.items()), self.context.settings.compute)


def _load(phase: Phase, context: Context, trained: Mapping[str, Any] | None) -> Scorer:
    if trained is None:
        start = load_phase_start(phase, context)
        shardings = parameter_shardings({"encoder": start.encoder}, context.mesh)["encoder"]
        encoder = jax.device_put(start.encoder, shardings)
        return Scorer(phase, context, start.config, encoder, {}, {})
    folder = context.folder(phase)
    params = load_final(folder, "", context)
    configs = {name: HeadConfig(**record) for name, record in trained["heads"].items()}
    return Scorer(
        phase,
        context,
        EncoderConfig(**trained["encoder"]),
        params["encoder"],
        params["heads"],
        configs,
        trained["labels"],
    )
