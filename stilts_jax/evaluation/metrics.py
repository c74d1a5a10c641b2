"""The official metrics, on plain Python and numpy values; percent, full precision."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from stilts_jax.errors import DataError, nearest
from stilts_jax.tasks.sources.pictures import score_answer
from stilts_jax.tasks.spec import UNKNOWN_LABEL, Task

RANKING_DEPTH = 20  # XTREME-R looks at twenty candidates a query
Answers = Mapping[str, Sequence[str]]  # by question, or candidates by query
Tags = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Items:
    """What each item adds to a score, so that a report can resample items."""

    statistic: Literal["mean", "chunk_f1", "binary_f1"]
    values: np.ndarray  # [n] in 0..1; for the F1 of sums int32 [n, 3]: right, predicted, gold
    ids: str = ""  # a digest: where it is equal, so are the items and their order
    names: np.ndarray | None = None  # a number an item: those that two sets of unequal ids have in common


@dataclass(frozen=True)
class MetricResult:
    """The scores of one language, percent by metric."""

    values: Mapping[str, float]
    items: Items


@dataclass(frozen=True, slots=True)
class NullableAnswer:
    """The best answer of a question that may have none."""

    text: str
    null_gap: float  # the score of "no answer" (the least over the windows) minus that of the text

    def at(self, threshold: float) -> str:
        """What a threshold leaves: the text, or "" where "no answer" wins."""
        return self.text if self.null_gap <= threshold else ""


def _mean(name: str, scores: Iterable[float], dtype: type = np.float32) -> MetricResult:
    """The mean of scores in 0..1, each an item."""
    items = np.array(list(scores), np.float64)
    value = 100 * (float(items.sum()) / len(items)) if len(items) else 0.0
    return MetricResult({name: value}, Items("mean", items.astype(dtype)))


def _f1(statistic: Literal["chunk_f1", "binary_f1"], counts: Any) -> MetricResult:
    """F1, precision and recall of counts (right, predicted, gold) by item; zero where nothing is right."""
    items = np.array(counts, np.int32).reshape(-1, 3)
    right, predicted, gold = (int(count) for count in items.sum(axis=0))
    precision = right / predicted if predicted else 0.0
    recall = right / gold if gold else 0.0
    both = precision + recall
    values = {"f1": 2 * precision * recall / both if both else 0.0, "precision": precision, "recall": recall}
    return MetricResult({name: 100 * value for name, value in values.items()}, Items(statistic, items))


def accuracy(task: Task, predictions: Sequence, gold: Sequence, language: str) -> MetricResult:
    """The share of predictions that equal gold (indices or names)."""
    return _mean("accuracy", (p == g for p, g in zip(predictions, gold, strict=True)), np.uint8)


def accuracy_f1(task: Task, predictions: Sequence, gold: Sequence, language: str) -> MetricResult:
    """Accuracy, and F1 of the second label (QQP's duplicates)."""
    positive = (1, *task.labels[1:2])
    exact = accuracy(task, predictions, gold, language)
    pairs = [(p in positive, g in positive) for p, g in zip(predictions, gold)]
    counted = _f1("binary_f1", [(p and g, p, g) for p, g in pairs])
    return replace(counted, values={**exact.values, "f1": counted.values["f1"]})


def open_accuracy(task: Task, predictions: Sequence, gold: Sequence, language: str) -> MetricResult:
    """Accuracy, and ``open``: that of the questions whose answer is neither yes nor no, if there are any."""
    every = accuracy(task, predictions, gold, language)
    triples = zip(predictions, gold, spell(task, gold))
    opened = [p == g for p, g, name in triples if name not in ("yes", "no")]
    return replace(every, values={**every.values, **(_mean("open", opened).values if opened else {})})


def vqa_accuracy(task: Task, predictions: Sequence, gold: Sequence, language: str) -> MetricResult:
    """VQA v2's accuracy of answers (names, or indices of labels) by those of ten people."""
    pairs = zip(spell(task, predictions), gold, strict=True)
    return _mean("accuracy", (score_answer(name, answers) for name, answers in pairs))


def spell(task: Task, labels: Sequence[str | int]) -> list[str]:
    """The names of labels or tags that may be indices."""
    known = (*task.labels, UNKNOWN_LABEL)
    return [one if isinstance(one, str) else known[one] for one in labels]


def token_accuracy(task: Task, predictions: Tags, gold: Tags, language: str) -> MetricResult:
    """The share of words with the right tag; an item is a sentence, whose words are right or wrong together."""
    sentences = zip(predictions, gold, strict=True)
    right = [[p == g for p, g in zip(ps, gs, strict=True)] for ps, gs in sentences]
    # F1 of as many predicted as there are in gold is accuracy.
    found = _f1("chunk_f1", [(sum(one), len(one), len(one)) for one in right])
    return replace(found, values={"accuracy": found.values["recall"]})


def find_chunks(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The chunks of a sentence: type, first and last word.

    The rules are those of seqeval 0.0.12, which XTREME uses for entities and parts of speech alike. A tag's first
    character says where in a chunk it stands, what follows its last ``-`` is the chunk's type; runs of equal
    part-of-speech tags are chunks, but SCONJ and SYM (first letter S) never merge.
    """
    chunks, first, before, before_type = set(), 0, "O", "O"
    for place, tag in enumerate([*tags, "O"]):
        here, kind = tag[:1], tag.rpartition("-")[2]
        changes, outside = kind != before_type, {"O", "."}
        closed = before in {"E", "S"} or (before in {"B", "I"} and here in {"B", "S", "O"})
        if closed or (before not in outside and changes):
            chunks.add((before_type, first, place - 1))
        opens = here in {"B", "S"} or (before in {"E", "S", "O"} and here in {"E", "I"})
        if opens or (here not in outside and changes):
            first = place
        before, before_type = here, kind
    return chunks


def chunk_f1(task: Task, predictions: Tags, gold: Tags, language: str) -> MetricResult:
    """Micro-averaged chunk F1, precision and recall, and token accuracy beside them; tags are names."""
    words = token_accuracy(task, predictions, gold, language)
    chunks = (map(find_chunks, sides) for sides in zip(predictions, gold))
    found = _f1("chunk_f1", [(len(ours & theirs), len(ours), len(theirs)) for ours, theirs in chunks])
    return replace(found, values={**found.values, **words.values})


def bucc_f1(task: Task, predictions: Collection, gold: Collection, language: str) -> MetricResult:
    """F1, precision and recall of a set of id pairs."""
    found, wanted = set(predictions), set(gold)
    pairs = sorted(found | wanted)
    return _f1("binary_f1", [(p in found and p in wanted, p in found, p in wanted) for p in pairs])


def _find_ranks(predictions: Answers, gold: Answers) -> Iterator[tuple[list[int], int]]:
    """Yields the ranks of each query's right candidates and their number; a repeated candidate counts once."""
    for query, right in gold.items():
        ranking = predictions.get(query, ())[:RANKING_DEPTH]
        ranks = {one: rank for rank, one in reversed([*enumerate(ranking, 1)]) if one in right}
        yield sorted(ranks.values()), len(set(right))


def mrr(task: Task, predictions: Answers, gold: Answers, language: str) -> MetricResult:
    """Mean reciprocal rank within twenty (Mewsli-X, where XTREME-R calls it mAP@20)."""
    return _mean("mrr", (1 / ranks[0] if ranks else 0.0 for ranks, _ in _find_ranks(predictions, gold)))


def mean_average_precision(task: Task, predictions: Answers, gold: Answers, language: str) -> MetricResult:
    """Mean average precision within twenty (LAReQA)."""
    scores = []
    for ranks, count in _find_ranks(predictions, gold):
        precisions = [hits / rank for hits, rank in enumerate(ranks, 1)]
        scores.append(sum(precisions) / min(max(count, 1), RANKING_DEPTH))
    return _mean("map", scores)


# -- answers, by the rules of the scripts of SQuAD 1.1, SQuAD 2.0 and MLQA

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# For Arabic the article before a word is meant, but MLQA's pattern takes "ال" anywhere; published numbers were made so,
# and so are these.
_ARTICLES: dict[str, str] = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "ar": "ال",
    "hi": "",
    "zh": "",
}
_CHINESE = re.compile("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+")


def normalise_english(text: str) -> list[str]:
    """The tokens of an answer as SQuAD's scripts see them."""
    return re.sub(_ARTICLES["en"], " ", text.lower().translate(_ASCII_PUNCTUATION)).split()


def _normalise_mlqa(text: str, language: str) -> list[str]:
    text, articles = text.lower().translate(_ASCII_PUNCTUATION), _ARTICLES[language]
    text = "".join(mark for mark in text if unicodedata.category(mark)[0] != "P")
    text = re.sub(articles, " ", text) if articles else text
    # Each Chinese character is a token.
    runs = _CHINESE.findall(text) if language == "zh" else [text]
    return [token for run in runs for token in run.split()]


def token_f1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """The F1 of two bags of tokens; zero without overlap, also where both are empty."""
    common = sum((Counter(prediction) & Counter(gold)).values())
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def squad(task: Task, predictions: Mapping, gold: Answers, language: str, **how: Any) -> MetricResult:
    """Exact match and token F1 of answers: by SQuAD 1.1's rules, which are English for every language."""
    exact, overlap = _score_answers(predictions, gold, **how)
    count = max(len(exact), 1)
    values = {"f1": 100 * sum(overlap) / count, "em": 100 * sum(exact) / count}  # in the script's order
    items = (np.array(exact, np.float64) + np.array(overlap, np.float64)) / 2
    return MetricResult(values, Items("mean", items.astype(np.float32)))


def mlqa(task: Task, predictions: Mapping, gold: Answers, language: str) -> MetricResult:
    """Exact match and token F1 with MLQA's normalisation of the language."""
    if language not in _ARTICLES:
        what = f"MLQA has no normalisation for language {language!r}."
        raise DataError(what, where="metric mlqa", fix=nearest(language, _ARTICLES))
    return squad(task, predictions, gold, language, normalise=partial(_normalise_mlqa, language=language))


def _score_answers(
    predictions: Mapping[str, str],
    gold: Answers,
    normalise: Callable[[str], list[str]] = normalise_english,
    nullable: bool = False,
) -> tuple[list[float], list[float]]:
    """Exact match and F1 (0..1) by the best of a question's gold answers; an unanswered question gets zero.

    By SQuAD 2.0's rules (``nullable``) gold that is nothing but articles and punctuation does not count, and "" is
    right where there is no other.
    """
    exact, overlap = [], []
    for question, answers in gold.items():
        tokens = normalise(predictions[question]) if question in predictions else None
        targets = [normalise(answer) for answer in answers]
        if nullable:
            targets = [target for target in targets if target] or [[]]
        exact.append(float(tokens in targets))
        shared = max((token_f1(tokens or [], target) for target in targets), default=0.0)
        overlap.append(exact[-1] if nullable and not tokens else shared)
    return exact, overlap


def tune_null_threshold(predictions: Mapping[str, NullableAnswer], gold: Answers) -> float:
    """The no-answer threshold with the best F1, of equal ones the lowest.

    As in SQuAD 2.0's script the search begins with answering nothing, which here has a threshold of its own, below
    every gap (gaps may be negative).
    """
    gaps = np.array([predictions[question].null_gap for question in gold], np.float64)
    if not len(gaps):
        return 0.0
    texts = {question: answer.text for question, answer in predictions.items()}
    both = texts, dict.fromkeys(gold, "")
    answered, silent = (np.array(_score_answers(one, gold, nullable=True)[1]) for one in both)
    order = np.argsort(gaps, kind="stable")
    gains = np.concatenate([[0.0], np.cumsum((answered - silent)[order])])
    ordered = gaps[order]
    gains[1:-1][ordered[1:] == ordered[:-1]] = -np.inf  # no threshold parts equal gaps
    best = int(gains.argmax())
    return float(ordered[best - 1] if best else np.nextafter(ordered[0], -np.inf))


# By ``Task.metric``: what scores a language, and the values whose mean is the one number of a task.
_METRICS: Mapping[str, tuple[Callable[[Task, Any, Any, str], MetricResult], tuple[str, ...]]] = {
    "accuracy": (accuracy, ("accuracy",)),
    "nearest_accuracy": (accuracy, ("accuracy",)),
    "accuracy_f1": (accuracy_f1, ("accuracy", "f1")),
    "open_accuracy": (open_accuracy, ("accuracy",)),
    "vqa_accuracy": (vqa_accuracy, ("accuracy",)),
    "token_accuracy": (token_accuracy, ("accuracy",)),
    "chunk_f1": (chunk_f1, ("f1",)),
    "bucc_f1": (bucc_f1, ("f1",)),
    "squad": (squad, ("f1", "em")),
    "squad_v2": (partial(squad, nullable=True), ("f1", "em")),
    "mlqa": (mlqa, ("f1", "em")),
    "mrr": (mrr, ("mrr",)),
    "map": (mean_average_precision, ("map",)),
}
METRICS = {name: metric for name, (metric, _) in _METRICS.items()}
MAIN_VALUES = {name: main for name, (_, main) in _METRICS.items()}

# Scored with a threshold that comes from a dev set: see ``experiment.context.choose_scored``.
TUNED_METRICS = frozenset(("bucc_f1", "squad_v2"))

# Part of an evaluation's key, raised (from 1) when a metric, or what decodes for it, gives another score than before.
VERSIONS: Mapping[str, int] = {"squad": 2, "squad_v2": 2, "mlqa": 2, "bucc_f1": 2, "token_accuracy": 2}


def main_score(metric: str, values: Mapping[str, float]) -> float:
    """A task's one number: the mean of its main values."""
    names = MAIN_VALUES[metric]
    return sum(values[name] for name in names) / len(names)
