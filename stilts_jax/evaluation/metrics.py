"""The official metrics, on plain Python and numpy values; percent, full precision.

Each metric is ``metric(task, predictions, gold, language) -> MetricResult``; ``METRICS`` finds it by the name
that ``Task.metric`` holds. What predictions and gold look like is said at each.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from stilts_jax.errors import DataError
from stilts_jax.evaluation import metrics_qa
from stilts_jax.tasks.sources.questions import score_answer
from stilts_jax.tasks.spec import Task

RANKING_DEPTH = 20  # XTREME-R looks at twenty candidates a query
Pairs = Collection[tuple[str, str]]
Rankings = Mapping[str, Sequence[str]]
Answers = Mapping[str, Sequence[str]]
Tags = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Items:
    """What each item adds to a score, so that a report can resample items.

    Attributes:
        statistic: how the score follows: ``mean`` of values in 0..1, or F1 of the summed counts.
        values: [n] float32 or uint8 for ``mean``; int32 [n, 3] (right, predicted, gold) for F1.
        ids: a digest of the items' ids in their order: only items of equal digests are the same items.
    """

    statistic: Literal["mean", "chunk_f1", "binary_f1"]
    values: np.ndarray
    ids: str = ""


@dataclass(frozen=True)
class MetricResult:
    """The scores of one language.

    Attributes:
        values: percent by metric name (``perplexity`` and ``loss`` are themselves).
        items: None where a score is not made of items.
        settings: thresholds that were tuned on the way.
    """

    values: Mapping[str, float]
    items: Items | None = None
    settings: Mapping[str, float] = field(default_factory=dict)


def name_items(result: MetricResult, ids: Sequence[str]) -> MetricResult:
    """Returns ``result`` with the digest of its items' ids, where it has one item for each id."""
    if result.items is None or len(result.items.values) != len(ids):
        return result  # words, or pairs that were found: what they belong to differs between runs
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
    return replace(result, items=replace(result.items, ids=digest))


def _same_length(predictions: Sequence, gold: Sequence, language: str) -> None:
    if len(predictions) != len(gold):
        raise DataError(
            f"{len(predictions)} predictions for {len(gold)} items.",
            where=f"language {language}",
            fix="predict every item once, in the order of the data",
        )


def _accuracy(right: Iterable[bool]) -> MetricResult:
    items = np.array(list(right), np.uint8)
    value = 100 * (int(items.sum()) / len(items)) if len(items) else 0.0
    return MetricResult({"accuracy": value}, Items("mean", items))


def _f1(statistic: Literal["chunk_f1", "binary_f1"], counts: Any) -> MetricResult:
    """F1, precision and recall of counts (right, predicted, gold) by item; zero where nothing is right."""
    items = np.array(counts, np.int32).reshape(-1, 3)
    right, predicted, gold = (int(count) for count in items.sum(axis=0))
    precision = right / predicted if predicted else 0.0
    recall = right / gold if gold else 0.0
    both = precision + recall
    values = {"f1": 2 * precision * recall / both if both else 0.0, "precision": precision, "recall": recall}
    return MetricResult({name: 100 * value for name, value in values.items()}, Items(statistic, items))


def accuracy(task: Task | None, predictions: Sequence, gold: Sequence, language: str) -> MetricResult:
    """The share of predictions that equal gold (indices or names)."""
    _same_length(predictions, gold, language)
    return _accuracy(p == g for p, g in zip(predictions, gold))


def accuracy_f1(task: Task | None, predictions: Sequence, gold: Sequence, language: str) -> MetricResult:
    """Accuracy, and F1 of the second label (QQP's duplicates)."""
    positive = (1, task.labels[1]) if task and len(task.labels) > 1 else (1, "1")
    exact = accuracy(task, predictions, gold, language)
    pairs = [(p in positive, g in positive) for p, g in zip(predictions, gold)]
    counted = _f1("binary_f1", [(p and g, p, g) for p, g in pairs])
    return replace(counted, values={**exact.values, "f1": counted.values["f1"]})


def vqa_accuracy(
    task: Task | None, predictions: Sequence, gold: Sequence[Sequence[str]], language: str
) -> MetricResult:
    """VQA v2's accuracy of answers (names, or indices of labels) by those of ten people."""
    _same_length(predictions, gold, language)
    labels = task.labels if task else ()
    names = [one if isinstance(one, str) else labels[one] for one in predictions]
    scores = np.array([score_answer(one, answers) for one, answers in zip(names, gold)], np.float64)
    value = 100 * float(scores.mean()) if len(scores) else 0.0
    return MetricResult({"accuracy": value}, Items("mean", scores.astype(np.float32)))


def token_accuracy(task: Task | None, predictions: Tags, gold: Tags, language: str) -> MetricResult:
    """The share of words with the right tag."""
    _same_length(predictions, gold, language)
    for index, (p, g) in enumerate(zip(predictions, gold)):
        if len(p) != len(g):
            raise DataError(
                f"{len(p)} tags for {len(g)} words.",
                where=f"language {language}, sentence {index + 1}",
                fix="give every word one tag",
            )
    return _accuracy(p == g for ps, gs in zip(predictions, gold) for p, g in zip(ps, gs))


def _find_chunks(sentences: Tags, types: Mapping[str, int]) -> np.ndarray:
    """Finds chunks by the rules of seqeval 0.0.12, which XTREME uses for entities and parts of speech alike.

    A tag's first character says where in a chunk it stands, what follows its last ``-`` is the chunk's type (a number
    in ``types``); runs of equal part-of-speech tags are chunks, but SCONJ and SYM (first letter S) never merge.
    Returns int64 [chunks, 3]: type, first and last position in the sentences laid end to end, an ``O`` after each.
    """
    flat = [tag for sentence in sentences for tag in (*sentence, "O")]
    place = np.array(["O", *(tag[:1] for tag in flat), "O"])
    kind = np.array([-1, *(types[tag.rpartition("-")[2]] for tag in flat), types["O"]])
    before, here = place[:-1], place[1:]
    changes = kind[:-1] != kind[1:]
    outside = ("O", ".")
    ends = (
        np.isin(before, ("E", "S"))
        | (np.isin(before, ("B", "I")) & np.isin(here, ("B", "S", "O")))
        | (~np.isin(before, outside) & changes)
    )
    starts = (
        np.isin(here, ("B", "S"))
        | (np.isin(before, ("E", "S", "O")) & np.isin(here, ("E", "I")))
        | (~np.isin(here, outside) & changes)
    )
    last_start = np.maximum.accumulate(np.where(starts, np.arange(len(here)), 0))
    last = np.flatnonzero(ends) - 1
    return np.stack([kind[:-1][ends], last_start[last], last], axis=1)


def chunk_f1(task: Task | None, predictions: Tags, gold: Tags, language: str) -> MetricResult:
    """Micro-averaged chunk F1, precision and recall, and token accuracy beside them; tags are names."""
    words = token_accuracy(task, predictions, gold, language)
    names = {tag.rpartition("-")[2] for side in (gold, predictions) for tags in side for tag in tags} | {"O"}
    types = {name: number for number, name in enumerate(sorted(names))}
    of_gold, of_predictions = _find_chunks(gold, types), _find_chunks(predictions, types)
    gold_by_last = np.full((sum(len(sentence) + 1 for sentence in gold), 2), -1)
    gold_by_last[of_gold[:, 2]] = of_gold[:, :2]
    right = of_predictions[(gold_by_last[of_predictions[:, 2]] == of_predictions[:, :2]).all(axis=1)]
    sentence_of = np.repeat(np.arange(len(gold)), [len(sentence) + 1 for sentence in gold])
    counts = [
        np.bincount(sentence_of[chunks[:, 2]], minlength=len(gold))
        for chunks in (right, of_predictions, of_gold)
    ]
    found = _f1("chunk_f1", np.stack(counts, axis=1))
    return replace(found, values={**found.values, **words.values})


def bucc_f1(task: Task | None, predictions: Pairs, gold: Pairs, language: str) -> MetricResult:
    """F1, precision and recall of a set of id pairs."""
    found, wanted = set(predictions), set(gold)
    pairs = sorted(found | wanted)
    return _f1("binary_f1", [(p in found and p in wanted, p in found, p in wanted) for p in pairs])


def _ranked(
    name: str, score: Callable[[Sequence[str], Collection[str]], float], predictions: Rankings, gold: Rankings
) -> MetricResult:
    scores = [score(predictions.get(query, ())[:RANKING_DEPTH], set(right)) for query, right in gold.items()]
    items = np.array(scores, np.float64)
    value = 100 * (float(items.sum()) / len(items)) if len(items) else 0.0
    return MetricResult({name: value}, Items("mean", items.astype(np.float32)))


def _reciprocal_rank(ranking: Sequence[str], right: Collection[str]) -> float:
    return next((1 / rank for rank, candidate in enumerate(ranking, 1) if candidate in right), 0.0)


def _average_precision(ranking: Sequence[str], right: Collection[str]) -> float:
    hits, total, seen = 0, 0.0, set()
    for rank, candidate in enumerate(ranking, 1):
        if candidate in right and candidate not in seen:  # a repeated candidate counts once
            seen.add(candidate)
            hits += 1
            total += hits / rank
    return total / min(len(right), RANKING_DEPTH) if right else 0.0


def mrr(task: Task | None, predictions: Rankings, gold: Rankings, language: str) -> MetricResult:
    """Mean reciprocal rank within twenty (Mewsli-X, where XTREME-R calls it mAP@20)."""
    return _ranked("mrr", _reciprocal_rank, predictions, gold)


def mean_average_precision(
    task: Task | None, predictions: Rankings, gold: Rankings, language: str
) -> MetricResult:
    """Mean average precision within twenty (LAReQA)."""
    return _ranked("map", _average_precision, predictions, gold)


def perplexity(
    task: Task | None, predictions: Sequence[tuple[float, float]], gold: object, language: str
) -> MetricResult:
    """Loss and perplexity from ``(loss sum, weight sum)`` of each row."""
    loss_sum, weight_sum = np.array(predictions, np.float64).reshape(-1, 2).sum(axis=0)
    loss = float(loss_sum / weight_sum) if weight_sum else 0.0
    return MetricResult({"perplexity": float(np.exp(loss)), "loss": loss})


def _answers(exact: Sequence[float], overlap: Sequence[float]) -> MetricResult:
    count = max(len(exact), 1)
    values = {"f1": 100 * (sum(overlap) / count), "em": 100 * (sum(exact) / count)}
    items = (np.array(exact, np.float64) + np.array(overlap, np.float64)) / 2
    return MetricResult(values, Items("mean", items.astype(np.float32)))


def squad(task: Task | None, predictions: Mapping[str, str], gold: Answers, language: str) -> MetricResult:
    """Exact match and token F1 with SQuAD 1.1's English normalisation, whatever the language."""
    return _answers(*metrics_qa.score_answers(predictions, gold, metrics_qa.normalise_english))


def mlqa(task: Task | None, predictions: Mapping[str, str], gold: Answers, language: str) -> MetricResult:
    """Exact match and token F1 with MLQA's normalisation of the language."""
    return _answers(*metrics_qa.score_answers(predictions, gold, metrics_qa.mlqa_normaliser(language)))


def squad_v2(task: Task | None, predictions: Mapping[str, str], gold: Answers, language: str) -> MetricResult:
    """Exact match and token F1 by SQuAD 2.0's rules; "" says that there is no answer."""
    return _answers(*metrics_qa.score_nullable(predictions, gold))


METRICS: Mapping[str, Callable[[Task | None, Any, Any, str], MetricResult]] = {
    "accuracy": accuracy,
    "accuracy_f1": accuracy_f1,
    "vqa_accuracy": vqa_accuracy,
    "token_accuracy": token_accuracy,
    "chunk_f1": chunk_f1,
    "squad": squad,
    "squad_v2": squad_v2,
    "mlqa": mlqa,
    "bucc_f1": bucc_f1,
    "nearest_accuracy": accuracy,
    "mrr": mrr,
    "map": mean_average_precision,
    "perplexity": perplexity,
}

# The values whose mean is a task's one number.
MAIN_VALUES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("accuracy", "vqa_accuracy", "token_accuracy", "nearest_accuracy"), ("accuracy",)),
    **dict.fromkeys(("squad", "squad_v2", "mlqa"), ("f1", "em")),
    **dict.fromkeys(("chunk_f1", "bucc_f1"), ("f1",)),
    **{"accuracy_f1": ("accuracy", "f1"), "mrr": ("mrr",), "map": ("map",), "perplexity": ("perplexity",)},
}

# Scored with a threshold that comes from a dev set: see ``experiment.data.choose_scored``.
TUNED_METRICS = frozenset(("bucc_f1", "squad_v2"))

# Raised (from 1) when a metric, or what decodes for it, gives another score than before: then it scores again.
VERSIONS: Mapping[str, int] = {"squad": 2, "squad_v2": 2, "mlqa": 2, "bucc_f1": 2}


def metric_version(name: str) -> int:
    """Returns the version of a metric, which is part of an evaluation's key."""
    return VERSIONS.get(name, 1)


def main_score(metric: str, values: Mapping[str, float]) -> float:
    """A task's one number, where more is better: the mean of its main values; minus the perplexity."""
    names = MAIN_VALUES[metric]
    score = sum(values[name] for name in names) / len(names)
    return -score if metric == "perplexity" else score
