"""Evaluates a model on a task: predicts the rows of all languages in one pass, then scores each language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from jax.sharding import Mesh

from stilts_jax.batches.masking import Masking
from stilts_jax.errors import StiltsError
from stilts_jax.evaluation.decode import DECODERS
from stilts_jax.evaluation.metrics import METRICS, MetricResult, name_items
from stilts_jax.evaluation.metrics_qa import answers_at, tune_null_threshold
from stilts_jax.evaluation.predict import predict
from stilts_jax.features.records import Features
from stilts_jax.model import Model
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.spec import UNKNOWN_LABEL, Example, Task


@dataclass(frozen=True)
class Evaluation:
    """Predictions and scores of one split of a task.

    Attributes:
        results: by language; a language whose gold is blanked has none.
        predictions: by language, as metrics and submissions take them.
    """

    results: Mapping[str, MetricResult]
    predictions: Mapping[str, Any]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Percent by metric and language."""
        found: dict[str, dict[str, float]] = {}
        for language, result in self.results.items():
            for name, value in result.values.items():
                found.setdefault(name, {})[language] = value
        return found

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each language whose metric needs one."""
        found = {language: result.settings.get("threshold") for language, result in self.results.items()}
        return {language: value for language, value in found.items() if value is not None}


def evaluate_task(
    model: Model,
    params: Mapping[str, Any],
    task: Task,
    features: Features,
    examples: Mapping[str, Sequence[Example]],
    *,
    head: str,
    thresholds: Mapping[str, float] | None = None,
    tokens_per_batch: int = 0,
    masking: Masking | None = None,
    mesh: Mesh | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Predicts and scores a task of any kind but retrieval.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> from stilts_jax.features.records import Features, Ragged
        >>> tokens = Ragged.from_list([[0, 7, 8, 2], [0, 9, 2]])
        >>> columns = {"tokens": tokens, "example": np.arange(2), "language": np.zeros(2, int)}
        >>> features = Features("classify", columns, ("en",), 2, "")
        >>> from stilts_jax.tasks.spec import ClassifyExample
        >>> examples = {"en": [ClassifyExample("1", "good", label=0), ClassifyExample("2", "bad", label=0)]}
        >>> model = sj.Model(sj.SHAPES["tiny"], (("nli", sj.HeadConfig(kind="classify", num_labels=3)),))
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> part = {"encoder": params["encoder"], "head": params["heads"]["nli"]}
        >>> found = sj.evaluate_task(model, part, sj.get_task("xnli"), features, examples, head="nli")
        >>> found.scores["accuracy"]["en"] in (0.0, 50.0, 100.0)
        True

    Args:
        model: what to compute.
        params: ``{"encoder", "head"}``.
        task: says how to score.
        features: of ``examples``, built for prediction.
        examples: by language, in the order in which the features were built.
        head: name of the head in ``model.heads``.
        thresholds: see ``score_decoded``.
        tokens_per_batch: padded tokens of a batch on all devices together; 0: by the device.
        masking: for masked language modelling, whose one result is called "all" instead of a language.
        mesh: devices that share each batch; one device if None.
        progress: counts tokens.
    """
    everything = list(chain.from_iterable(examples.values()))
    if len(everything) != features.num_examples or tuple(examples) != features.languages:
        raise StiltsError(
            f"The features are of {features.num_examples} examples in {', '.join(features.languages)}, but "
            f"{len(everything)} in {', '.join(examples)} were given.",
            where=task.name,
            fix="build the features of these examples",
        )
    options: dict[str, Any] = {"tokens_per_batch": tokens_per_batch, "mesh": mesh, "progress": progress}
    rows = predict(model, params, features, head=head, masking=masking, **options)
    decoded = DECODERS[features.kind](rows, features, everything)
    if features.kind == "mlm":  # packed rows mix examples
        return Evaluation({"all": METRICS[task.metric](task, decoded, None, "all")}, {})
    values = iter(decoded)
    parts = {language: list(islice(values, len(part))) for language, part in examples.items()}
    return score_decoded(task, parts, examples, thresholds)


def score_decoded(
    task: Task,
    decoded: Mapping[str, Sequence[Any]],
    examples: Mapping[str, Sequence[Example]],
    thresholds: Mapping[str, float] | None = None,
) -> Evaluation:
    """Scores what was decoded for the examples of each language, in their order.

    Args:
        thresholds: SQuAD 2.0's metric: by language, from dev; a language without one is left out of results and
            predictions. None (for dev itself) tunes each language's threshold on its own gold and puts it into its
            result's ``settings``.
    """
    results, predictions = {}, {}
    for language, values in decoded.items():
        predicted = _shape_predictions(task, values, examples[language])
        gold = find_gold(task, examples[language])
        settings = {}
        if task.metric == "squad_v2":
            known = gold is not None if thresholds is None else language in thresholds
            if not known:
                continue  # there is nothing that a threshold could come from
            tuned = tune_null_threshold(predicted, gold or {}) if thresholds is None else thresholds[language]
            settings = {"threshold": tuned}
            predicted = answers_at(predicted, tuned)
        predictions[language] = predicted
        if gold is not None:
            result = METRICS[task.metric](task, predicted, gold, language)
            result = name_items(result, [example.id for example in examples[language]])
            results[language] = replace(result, settings=settings)
    return Evaluation(results, predictions)


def _shape_predictions(task: Task, decoded: Sequence[Any], examples: Sequence[Example]) -> Any:
    """What was decoded, as the task's metric takes it."""
    if task.kind == "tag":
        return [[task.labels[tag] for tag in tags] for tags in decoded]
    if task.kind == "span":
        nullable = task.metric == "squad_v2"
        return {example.id: answer if nullable else answer.text for example, answer in zip(examples, decoded)}
    return list(decoded)


def find_gold(task: Task, examples: Sequence[Any]) -> Any | None:
    """The gold of one language as the metric takes it; None where it is blanked (in part, too)."""
    if task.kind == "tag":
        names = (*task.labels, UNKNOWN_LABEL)
        blank = any(example.tags is None for example in examples)
        return None if blank else [[names[tag] for tag in example.tags] for example in examples]
    if task.kind == "span":
        gold = {example.id: [text for text, _ in example.answers] for example in examples}
        known = any(example.impossible or any(gold[example.id]) for example in examples)
        return gold if known or not examples else None
    if task.metric == "vqa_accuracy":
        people = [example.answers for example in examples]
        return None if () in people else people
    labels = [example.label for example in examples]
    return None if None in labels else labels
