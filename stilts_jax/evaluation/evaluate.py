"""Evaluates a model on a task: predicts the rows of all languages in one pass, decodes them, scores each language."""

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np

from stilts_jax.errors import StiltsError
from stilts_jax.evaluation.metrics import METRICS, MetricResult, NullableAnswer, spell, tune_null_threshold
from stilts_jax.evaluation.predict import Rows, predict
from stilts_jax.features.records import IGNORE, Features
from stilts_jax.model import Model
from stilts_jax.tasks.spec import Example, Kind, RetrievalSet, SpanExample, TagExample, Task


@dataclass
class Evaluation:
    """Scores of one split of a task by language (none where gold is blanked), and predictions as metrics take them."""

    results: dict[str, MetricResult] = field(default_factory=dict)
    predictions: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)  # of a metric that needs one
    _order: Sequence[str] = ()  # ids of the first language

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Percent by metric and language."""
        found: dict[str, dict[str, float]] = {}
        for language, result in self.results.items():
            for name, value in result.values.items():
                found.setdefault(name, {})[language] = value
        return found

    def add(
        self, task: Task, language: str, predicted: Any, gold: Any, ids: Sequence[str], tuned: float | None
    ) -> None:
        """Takes in what is predicted in a language, at the threshold ``tuned``, and scores it where there is gold.

        Items are named by ``ids``; in an aligned task all languages that have the same get one order, so they pair.
        """
        self.predictions[language], self._order = predicted, self._order or ids
        if gold is None:
            return
        result = METRICS[task.metric](task, predicted, gold, language)
        values, places = result.items.values, {name: place for place, name in enumerate(ids)}
        if len(values) == len(ids):  # else words, or pairs that were found, which differ between runs
            if task.aligned and len(places) == len(ids) and sorted(ids) == sorted(self._order):
                ids, values = self._order, values[[places[name] for name in self._order]]
            digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
            names = np.array([zlib.crc32(one.encode()) for one in ids], np.uint32)
            result = replace(result, items=replace(result.items, values=values, ids=digest, names=names))
        self.results[language] = result
        if tuned is not None:
            self.thresholds[language] = tuned


def evaluate_task(
    model: Model,
    params: Mapping[str, Any],
    task: Task,
    features: Features,
    examples: Mapping[str, Sequence[Example]],
    *,
    head: str,
    thresholds: Mapping[str, float] | None = None,
    **options: Any,
) -> Evaluation:
    """Predicts and scores a task of any kind but retrieval and masked language modelling.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> from stilts_jax.features.records import Features, Ragged
        >>> tokens = Ragged.from_list([[0, 7, 8, 2], [0, 9, 2]])
        >>> columns = {"tokens": tokens, "example": np.arange(2), "language": np.zeros(2, int)}
        >>> features = Features("classify", columns, ("en",), 2)
        >>> from stilts_jax.tasks.spec import ClassifyExample
        >>> examples = {"en": [ClassifyExample("1", "good", label=0), ClassifyExample("2", "bad", label=0)]}
        >>> model = sj.Model(sj.SHAPES["tiny"], (("nli", sj.HeadConfig(kind="classify", num_labels=3)),))
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> part = {"encoder": params["encoder"], "head": params["heads"]["nli"]}
        >>> found = sj.evaluate_task(model, part, sj.get_task("xnli"), features, examples, head="nli")
        >>> found.scores["accuracy"]["en"] in (0.0, 50.0, 100.0)
        True

    ``features`` are of ``examples``, by language in the order in which they were built; ``thresholds`` see
    ``score_decoded``; ``options`` are those of ``predict``.
    """
    everything = list(chain.from_iterable(examples.values()))
    if len(everything) != features.num_examples or tuple(examples) != features.languages:
        count, theirs, ours = features.num_examples, ", ".join(features.languages), ", ".join(examples)
        what = f"The features are of {count} examples in {theirs}, not of {len(everything)} in {ours}."
        raise StiltsError(what, where=task.name, fix="build the features of these examples")
    outputs = model.head(head).num_labels
    if features.kind in ("classify", "tag") and task.labels and outputs != len(task.labels):
        what = f"The head {head!r} has {outputs} outputs, the task has the labels {', '.join(task.labels)}."
        raise StiltsError(what, where=task.name, fix="take a head that was trained on these labels")
    rows = predict(model, params, features, head=head, **options)
    values = iter(DECODERS[features.kind](rows, features, everything))
    parts = {language: list(islice(values, len(part))) for language, part in examples.items()}
    return score_decoded(task, parts, examples, thresholds)


def score_decoded(
    task: Task,
    decoded: Mapping[str, Sequence[Any]],
    examples: Mapping[str, Sequence[Any]],
    thresholds: Mapping[str, float] | None = None,
) -> Evaluation:
    """Scores what was decoded for the examples of each language, in their order.

    SQuAD 2.0's metric has ``thresholds`` by language, from dev: a language without one is left out of results and
    predictions. None (for dev itself) tunes each language's on its own gold.
    """
    found = Evaluation()
    for language, values in decoded.items():
        part, tuned = examples[language], None
        if not part:
            continue  # nothing was asked
        gold, ids = find_gold(task, part), [one.id for one in part]
        if task.kind == "span" and len(set(ids)) < len(ids):  # answers go by them
            what, fix = "Two questions have one id.", "give each its own"
            raise StiltsError(what, where=f"{task.name}, {language}", fix=fix)
        predicted: Any = list(values)
        if task.kind == "tag":
            predicted = [spell(task, tags) for tags in values]
        elif task.metric == "squad_v2":
            known = gold is not None if thresholds is None else language in thresholds
            if not known:
                continue  # there is nothing that a threshold could come from
            answers = dict(zip(ids, values))
            tuned = tune_null_threshold(answers, gold or {}) if thresholds is None else thresholds[language]
            predicted = {name: answer.at(tuned) for name, answer in answers.items()}
        elif task.kind == "span":
            predicted = {name: answer.text for name, answer in zip(ids, values)}
        found.add(task, language, predicted, gold, ids, tuned)
    return found


def find_gold(task: Task, part: Sequence[Any] | RetrievalSet) -> Any | None:
    """The gold of one language as the metric takes it; None where it is blanked (in part, too)."""
    if isinstance(part, RetrievalSet):
        if part.gold is None or task.retrieval == "ranking":
            return part.gold
        if task.retrieval == "mining":
            return {(query, right) for query, all_right in part.gold.items() for right in all_right}
        numbers = {candidate.id: number for number, candidate in enumerate(part.candidates)}
        return [numbers[part.gold[query.id][0]] if query.id in part.gold else -1 for query in part.queries]
    if task.kind == "span":
        gold = {example.id: [text for text, _ in example.answers] for example in part}
        known = any(example.impossible or any(gold[example.id]) for example in part)
        return gold if known or not part else None
    people = task.metric == "vqa_accuracy"
    name = "answers" if people else "tags" if task.kind == "tag" else "label"
    found = [getattr(example, name) for example in part]
    if strange := [one for one in found if isinstance(one, str)]:  # no prediction would be equal to it
        fix = "give its number: task.labels.index(name)"
        raise StiltsError(f"The label {strange[0]!r} is a name.", where=task.name, fix=fix)
    if (() if people else None) in found:
        return None
    return [spell(task, tags) for tags in found] if task.kind == "tag" else found


def decode_tags(rows: Rows, features: Features, examples: Sequence[TagExample]) -> list[tuple[int, ...]]:
    """The tag of each word of each example: that of its first subword, in whichever row of the example that is."""
    words, starts = features.columns["word"], np.cumsum([0, *(len(example.words) for example in examples)])
    first = words.values != IGNORE
    owners = np.repeat(features.columns["example"], words.lengths)[first]
    found = np.full(starts[-1], IGNORE)
    found[starts[owners] + words.values[first]] = rows["tags"][first]
    if len(without := np.flatnonzero(found == IGNORE)):
        owner = examples[np.searchsorted(starts, without[0], side="right") - 1]
        raise StiltsError(f"{len(without)} words got no tag.", where=f"the first is in {owner.id}")
    return [tuple(found[begin:end].tolist()) for begin, end in pairwise(starts)]


def decode_spans(rows: Rows, features: Features, examples: Sequence[SpanExample]) -> list[NullableAnswer]:
    """The best answer of each example over its windows, cut out of the original context by character offsets."""
    first, last = features.columns["char_start"], features.columns["char_end"]
    best: list[tuple[float, str]] = [(-np.inf, "")] * len(examples)
    null = np.full(len(examples), np.inf)
    for row, example in enumerate(features.columns["example"].tolist()):
        null[example] = min(null[example], float(rows["null"][row]))  # the least that any window gives it
        begins, ends = first[row], last[row]
        for start, end, score in zip(rows["starts"][row], rows["ends"][row], rows["scores"][row].tolist()):
            if score <= best[example][0]:
                break  # spans come best first; of equal scores the earlier window wins
            text = examples[example].context[begins[start] : ends[end]].strip()
            if text:
                best[example] = (score, text)
                break
    return [NullableAnswer(text, float(empty - score)) for (score, text), empty in zip(best, null.tolist())]


DECODERS: Mapping[Kind, Callable[[Rows, Features, Sequence[Any]], list[Any]]] = {
    # Each example has one row, in its order.
    "classify": lambda rows, features, examples: rows["label"].tolist(),
    "choice": lambda rows, features, examples: rows["label"].tolist(),
    "tag": decode_tags,
    "span": decode_spans,
}
