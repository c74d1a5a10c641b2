"""Exact match and token F1 of answers, by the rules of the SQuAD 1.1, SQuAD 2.0 and MLQA scripts."""

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from stilts_jax.errors import DataError, nearest

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ENGLISH_ARTICLES = re.compile(r"\b(a|an|the)\b")
# MLQA's articles by language. For Arabic the article before a word is meant, but MLQA's pattern takes "ال"
# anywhere; published numbers were made so, and so are these.
_MLQA_ARTICLES = {
    "en": _ENGLISH_ARTICLES,
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "ar": re.compile("ال"),
    "hi": None,
    "zh": None,
}
_CHINESE = re.compile("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+")


@dataclass(frozen=True, slots=True)
class NullableAnswer:
    """The best answer of a question that may have none.

    Attributes:
        text: the best answer that is not empty.
        null_gap: score of "no answer" (the least over the windows) minus the score of ``text``; the larger it
            is, the rather there is no answer.
    """

    text: str
    null_gap: float


def normalise_english(text: str) -> list[str]:
    """The tokens of an answer as SQuAD's scripts see them."""
    return _ENGLISH_ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split()


@cache
def _punctuation() -> dict[int, None]:
    """Deletes every character of a Unicode category P*, and ASCII punctuation."""
    marks = {code for code in range(sys.maxunicode) if unicodedata.category(chr(code)).startswith("P")}
    return dict.fromkeys(marks | {ord(mark) for mark in string.punctuation})


def mlqa_normaliser(language: str) -> Callable[[str], list[str]]:
    """The function that makes an answer's tokens as MLQA's script does for ``language``."""
    if language not in _MLQA_ARTICLES:
        raise DataError(
            f"MLQA has no normalisation for language {language!r}.",
            where="metric mlqa",
            fix=nearest(language, _MLQA_ARTICLES),
        )
    articles = _MLQA_ARTICLES[language]

    def normalise(text: str) -> list[str]:
        text = text.lower().translate(_punctuation())
        if articles is not None:
            text = articles.sub(" ", text)
        if language == "zh":  # each Chinese character is a token
            return [token for run in _CHINESE.findall(text) for token in run.split()]
        return text.split()

    return normalise


def token_f1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """The F1 of two bags of tokens; zero without overlap, also where both are empty."""
    common = sum((Counter(prediction) & Counter(gold)).values())
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def score_answers(
    predictions: Mapping[str, str],
    gold: Mapping[str, Sequence[str]],
    normalise: Callable[[str], list[str]],
) -> tuple[list[float], list[float]]:
    """Exact match and F1 (0..1) of each gold question, in gold order; an unanswered question gets zero."""
    exact, overlap = [], []
    for question, answers in gold.items():
        if question not in predictions or not answers:
            exact.append(0.0)
            overlap.append(0.0)
            continue
        prediction = normalise(predictions[question])
        targets = [normalise(answer) for answer in answers]
        exact.append(float(max(prediction == target for target in targets)))
        overlap.append(max(token_f1(prediction, target) for target in targets))
    return exact, overlap


def _real_answers(answers: Sequence[str]) -> list[list[str]]:
    return [tokens for tokens in map(normalise_english, answers) if tokens]


def score_nullable(
    predictions: Mapping[str, str], gold: Mapping[str, Sequence[str]]
) -> tuple[list[float], list[float]]:
    """Exact match and F1 (0..1) of each gold question by SQuAD 2.0's rules, where "" is right if gold has no answer."""
    exact, overlap = [], []
    for question, answers in gold.items():
        # A gold answer that is nothing but articles and punctuation does not count.
        targets = _real_answers(answers) or [[]]
        prediction = normalise_english(predictions[question]) if question in predictions else None
        exact.append(float(prediction in targets))
        overlap.append(
            max(
                token_f1(prediction, target) if prediction and target else float(prediction == target)
                for target in targets
            )
        )
    return exact, overlap


def tune_null_threshold(
    predictions: Mapping[str, NullableAnswer], gold: Mapping[str, Sequence[str]]
) -> float:
    """The no-answer threshold with the best F1: questions are answered whose gap is at most as large.

    As in SQuAD 2.0's script the search begins with answering nothing, which here has a threshold of its own, below
    every gap (gaps may be negative). Equal gaps stand or fall together; of equal F1 the lower threshold is taken.
    """
    gaps = np.array(
        [predictions[question].null_gap for question in gold if question in predictions], np.float64
    )
    if not len(gaps):
        return 0.0
    known = {question: answers for question, answers in gold.items() if question in predictions}
    answered = score_nullable({question: answer.text for question, answer in predictions.items()}, known)[1]
    silent = score_nullable(dict.fromkeys(known, ""), known)[1]
    order = np.argsort(gaps, kind="stable")
    gains = np.concatenate([[0.0], np.cumsum((np.array(answered) - np.array(silent))[order])])
    ordered = gaps[order]
    gains[1:-1][ordered[1:] == ordered[:-1]] = -np.inf  # no threshold parts equal gaps
    best = int(gains.argmax())
    return float(ordered[best - 1] if best else np.nextafter(ordered[0], -np.inf))


def answers_at(predictions: Mapping[str, NullableAnswer], threshold: float) -> dict[str, str]:
    """The answers that a threshold leaves: the text, or "" where "no answer" wins."""
    return {
        question: answer.text if answer.null_gap <= threshold else ""
        for question, answer in predictions.items()
    }
