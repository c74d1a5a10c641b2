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
from stilts_jax.tasks.spec import Task

RANKING_DEPTH = 20  # XTREME-R looks at twenty candidates a query


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


def _f1(right: float, predicted: float, gold: float) -> tuple[float, float, float]:
    """F1, precision, recall; zero where nothing is right."""
    precision = right / predicted if predicted else 0.0
    recall = right / gold if gold else 0.0
    both = precision + recall
    return (2 * precision * recall / both if both else 0.0), precision, recall


def accuracy(task: Task | None, predictions: Sequence, gold: Sequence, language: str) -> MetricResult:
    """The share of predictions that equal gold (indices or names)."""
    _same_length(predictions, gold, language)
    right = np.fromiter((p == g for p, g in zip(predictions, gold)), np.uint8, len(gold))
    value = 100 * (int(right.sum()) / len(gold)) if len(gold) else 0.0
    return MetricResult({"accuracy": value}, Items("mean", right))


def accuracy_f1(task: Task | None, predictions: Sequence, gold: Sequence, language: str) -> MetricResult:
    """Accuracy, and F1 of the second label (QQP's duplicates)."""
    positive = (1, task.labels[1]) if task and len(task.labels) > 1 else (1, "1")
    exact = accuracy(task, predictions, gold, language)
    counts = np.array(
        [(p in positive and g in positive, p in positive, g in positive) for p, g in zip(predictions, gold)],
        np.int32,
    ).reshape(-1, 3)
    f1 = _f1(*(int(count) for count in counts.sum(axis=0)))[0]
    return MetricResult({**exact.values, "f1": 100 * f1}, Items("binary_f1", counts))


def token_accuracy(
    task: Task | None, predictions: Sequence[Sequence], gold: Sequence[Sequence], language: str
) -> MetricResult:
    """The share of words with the right tag."""
    _same_words(predictions, gold, language)
    right = [p == g for ps, gs in zip(predictions, gold) for p, g in zip(ps, gs)]
    value = 100 * (sum(right) / len(right)) if right else 0.0
    return MetricResult({"accuracy": value}, Items("mean", np.array(right, np.uint8)))


def _same_words(predictions: Sequence[Sequence], gold: Sequence[Sequence], language: str) -> None:
    _same_length(predictions, gold, language)
    for index, (p, g) in enumerate(zip(predictions, gold)):
        if len(p) != len(g):
            raise DataError(
                f"{len(p)} tags for {len(g)} words.",
                where=f"language {language}, sentence {index + 1}",
                fix="give every word one tag",
            )


def chunk_types(sentences: Iterable[Sequence[str]]) -> dict[str, int]:
    """Numbers the chunk types of some tags: what stands after a tag's last ``-``."""
    tags = {tag for sentence in sentences for tag in sentence} | {"O"}
    return {kind: number for number, kind in enumerate(sorted({tag.rpartition("-")[2] for tag in tags}))}


def find_chunks(sentences: Sequence[Sequence[str]], types: Mapping[str, int]) -> np.ndarray:
    """Finds chunks by the rules of seqeval 0.0.12, which XTREME uses for entities and parts of speech alike.

    A tag's first character says where in a chunk it stands, what follows its last ``-`` is the chunk's type;
    runs of equal part-of-speech tags are chunks, but SCONJ and SYM (first letter S) never merge.

    Args:
        sentences: tags; the sentences are laid end to end with an ``O`` after each.
        types: from ``chunk_types``.

    Returns:
        int64 [chunks, 3]: type, first and last position in the laid out sequence.
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
    position = np.arange(len(here))
    last_start = np.maximum.accumulate(np.where(starts, position, 0))
    last = position[ends] - 1
    return np.stack([kind[:-1][ends], last_start[last], last], axis=1)


def chunk_f1(
    task: Task | None, predictions: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], language: str
) -> MetricResult:
    """Micro-averaged chunk F1, precision and recall, and token accuracy beside them; tags are names."""
    words = token_accuracy(task, predictions, gold, language)
    types = chunk_types([*gold, *predictions])
    of_gold, of_predictions = find_chunks(gold, types), find_chunks(predictions, types)
    gold_by_last = np.full((sum(len(sentence) + 1 for sentence in gold), 2), -1)
    gold_by_last[of_gold[:, 2]] = of_gold[:, :2]
    right = of_predictions[(gold_by_last[of_predictions[:, 2]] == of_predictions[:, :2]).all(axis=1)]
    sentence_of = np.repeat(np.arange(len(gold)), [len(sentence) + 1 for sentence in gold])
    counts = np.stack(
        [
            np.bincount(sentence_of[chunks[:, 2]], minlength=len(gold))
            for chunks in (right, of_predictions, of_gold)
        ],
        axis=1,
    ).astype(np.int32)
    f1, precision, recall = (100 * value for value in _f1(len(right), len(of_predictions), len(of_gold)))
    values = {"f1": f1, "precision": precision, "recall": recall, **words.values}
    return MetricResult(values, Items("chunk_f1", counts))


def bucc_f1(
    task: Task | None,
    predictions: Collection[tuple[str, str]],
    gold: Collection[tuple[str, str]],
    language: str,
) -> MetricResult:
    """F1, precision and recall of a set of id pairs."""
    found, wanted = set(predictions), set(gold)
    pairs = sorted(found | wanted)
    counts = np.array(
        [(p in found and p in wanted, p in found, p in wanted) for p in pairs], np.int32
    ).reshape(-1, 3)
    f1, precision, recall = (100 * value for value in _f1(len(found & wanted), len(found), len(wanted)))
    return MetricResult({"f1": f1, "precision": precision, "recall": recall}, Items("binary_f1", counts))


def _ranked(
    name: str,
    score: Callable[[Sequence[str], Collection[str]], float],
    predictions: Mapping[str, Sequence[str]],
    gold: Mapping[str, Sequence[str]],
) -> MetricResult:
    items = np.array(
        [score(predictions.get(query, ())[:RANKING_DEPTH], set(right)) for query, right in gold.items()],
        np.float64,
    )
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


def mrr(
    task: Task | None,
    predictions: Mapping[str, Sequence[str]],
    gold: Mapping[str, Sequence[str]],
    language: str,
) -> MetricResult:
    """Mean reciprocal rank within twenty (Mewsli-X, where XTREME-R calls it mAP@20)."""
    return _ranked("mrr", _reciprocal_rank, predictions, gold)


def mean_average_precision(
    task: Task | None,
    predictions: Mapping[str, Sequence[str]],
    gold: Mapping[str, Sequence[str]],
    language: str,
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


def squad(
    task: Task | None, predictions: Mapping[str, str], gold: Mapping[str, Sequence[str]], language: str
) -> MetricResult:
    """Exact match and token F1 with SQuAD 1.1's English normalisation, whatever the language."""
    return _answers(predictions, gold, metrics_qa.normalise_english)


def mlqa(
    task: Task | None, predictions: Mapping[str, str], gold: Mapping[str, Sequence[str]], language: str
) -> MetricResult:
    """Exact match and token F1 with MLQA's normalisation of the language."""
    return _answers(predictions, gold, metrics_qa.mlqa_normaliser(language))


def _answers(
    predictions: Mapping[str, str], gold: Mapping[str, Sequence[str]], normalise: Callable[[str], list[str]]
) -> MetricResult:
    return _answer_means(*metrics_qa.score_answers(predictions, gold, normalise))


def _answer_means(exact: Sequence[float], overlap: Sequence[float]) -> MetricResult:
    count = max(len(exact), 1)
    values = {"f1": 100 * (sum(overlap) / count), "em": 100 * (sum(exact) / count)}
    items = (np.array(exact, np.float64) + np.array(overlap, np.float64)) / 2
    return MetricResult(values, Items("mean", items.astype(np.float32)))


def squad_v2(
    task: Task | None,
    predictions: Mapping[str, str],
    gold: Mapping[str, Sequence[str]],
    language: str,
) -> MetricResult:
    """Exact match and token F1 by SQuAD 2.0's rules; "" says that there is no answer."""
    return _answer_means(*metrics_qa.score_nullable(predictions, gold))


METRICS: Mapping[str, Callable[[Task | None, Any, Any, str], MetricResult]] = {
    "accuracy": accuracy,
    "accuracy_f1": accuracy_f1,
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

# Scored with a threshold that comes from a dev set: see ``experiment.keys.evaluated_splits``.
TUNED_METRICS = frozenset(("bucc_f1", "squad_v2"))

# Raised (from 1) when a metric, or what decodes for it, gives another score than before: then it scores again.
VERSIONS: Mapping[str, int] = {"squad": 2, "squad_v2": 2, "mlqa": 2, "bucc_f1": 2}


def metric_version(name: str) -> int:
    """Returns the version of a metric, which is part of an evaluation's key."""
    return VERSIONS.get(name, 1)


# The values whose mean is a task's one number.
MAIN_VALUES: Mapping[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "accuracy_f1": ("accuracy", "f1"),
    "token_accuracy": ("accuracy",),
    "chunk_f1": ("f1",),
    "squad": ("f1", "em"),
    "squad_v2": ("f1", "em"),
    "mlqa": ("f1", "em"),
    "bucc_f1": ("f1",),
    "nearest_accuracy": ("accuracy",),
    "mrr": ("mrr",),
    "map": ("map",),
    "perplexity": ("perplexity",),
}


def main_score(metric: str, values: Mapping[str, float]) -> float:
    """A task's one number, where more is better: the mean of its main values; minus the perplexity."""
    names = MAIN_VALUES[metric]
    score = sum(values[name] for name in names) / len(names)
    return -score if metric == "perplexity" else score
