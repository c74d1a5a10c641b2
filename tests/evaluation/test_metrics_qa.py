"""Answer metrics against statements of the scripts' rules that are written another way."""

import string
import unicodedata
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.errors import DataError
from stilts_jax.evaluation.metrics import METRICS
from stilts_jax.evaluation.metrics_qa import NullableAnswer, answers_at

BOUNDED = settings(max_examples=120, deadline=None)
ARTICLES = {
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "vi": "của là cái chiếc những",
    "hi": "",
    "zh": "",
    "ar": "",
}
PIECES = [
    *" ".join(ARTICLES.values()).split(),
    *["The", "Der", "EL", "x", "42", "year", "-", "–", "¿", "。", "，", "'", "_", "\u200b", "\u00a0", "\t"],
    *["ال", "البيت", "وال", "بيت", "年", "中国", "龥", "龦", "भारत", "।", "là", "thelast", "$", "€", "İ"],
]
texts = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(["", " "])), max_size=6).map(
    lambda parts: "".join(piece + gap for piece, gap in parts)
)
answers = st.lists(texts, min_size=1, max_size=3)


def without_words(text, words):
    """Replaces whole words by a space; a word is a run of letters, digits and underscores."""
    runs = ("".join(run) for _, run in groupby(text, lambda mark: mark.isalnum() or mark == "_"))
    return "".join(" " if run in words else run for run in runs)


def english(text):
    kept = "".join(mark for mark in text.lower() if mark not in string.punctuation)
    return without_words(kept, ARTICLES["en"].split()).split()


def mlqa(text, language):
    kept = "".join(
        mark
        for mark in text.lower()
        if unicodedata.category(mark)[0] != "P" and mark not in string.punctuation
    )
    kept = without_words(kept, ARTICLES[language].split())
    if language == "ar":
        kept = " ".join(kept.split("ال"))
    if language == "zh":
        kept = "".join(f" {mark} " if 0x4E00 <= ord(mark) <= 0x9FA5 else mark for mark in kept)
    return kept.split()


def overlap(ours, theirs):
    rest, common = list(theirs), 0
    for token in ours:
        if token in rest:
            rest.remove(token)
            common += 1
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def means(predictions, gold, normalise):
    em = f1 = 0.0
    for question, targets in gold.items():
        if question in predictions:
            ours = normalise(predictions[question])
            em += max(ours == normalise(target) for target in targets)
            f1 += max(overlap(ours, normalise(target)) for target in targets)
    return {"em": 100 * em / max(len(gold), 1), "f1": 100 * f1 / max(len(gold), 1)}


questions = st.dictionaries(st.sampled_from("abcde"), answers, max_size=4)
given_answers = st.dictionaries(st.sampled_from("abcdefg"), texts, max_size=6)


@BOUNDED
@given(given_answers, questions)
def test_squad_normalises_every_language_as_english(predictions, gold):
    for language in ("en", "zh"):
        result = METRICS["squad"](None, predictions, gold, language)
        assert result.values == pytest.approx(means(predictions, gold, english), abs=1e-9)


@pytest.mark.parametrize("language", sorted(ARTICLES))
def test_mlqa_has_a_rule_for_each_language(language):
    @settings(max_examples=60, deadline=None)
    @given(given_answers, questions)
    def check(predictions, gold):
        result = METRICS["mlqa"](None, predictions, gold, language)
        expected = means(predictions, gold, lambda text: mlqa(text, language))
        assert result.values == pytest.approx(expected, abs=1e-9)

    check()


def test_mlqa_by_hand():
    def f1(language, prediction, target):
        return METRICS["mlqa"](None, {"q": prediction}, {"q": [target]}, language).values["f1"]

    assert f1("de", "der Dampf", "Dampf") == 100.0
    assert f1("es", "der Dampf", "Dampf") == pytest.approx(200 / 3)
    assert f1("zh", "一九四五年", "1945年") == pytest.approx(
        200 / 7
    )  # five characters, two tokens, one in common
    assert f1("ar", "البيت", "بيت") == 100.0
    assert f1("ar", "سؤال", "سؤ") == 100.0  # the pattern cuts inside words as well
    with pytest.raises(DataError, match="'ru'"):
        f1("ru", "a", "a")


def test_squad_counts_the_best_gold_answer_and_unanswered_as_zero():
    gold = {"1": ["Denver Broncos", "The Broncos"], "2": ["x"]}
    result = METRICS["squad"](None, {"1": "broncos!"}, gold, "en")
    assert result.values == {"em": 50.0, "f1": 50.0}
    assert result.items.values.tolist() == [1.0, 0.0]


nullable = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(
        st.sampled_from(["", "x", "the", "x y"]),
        st.floats(-5, 5, allow_nan=False),
        st.sampled_from([[], ["x"], ["x y", "z"], ["the"]]),
    ),
    min_size=1,
)


@BOUNDED
@given(nullable)
def test_null_threshold_is_the_best_of_all(cases):
    gaps = [gap for _, gap, _ in cases.values()]
    predictions = {question: NullableAnswer(text, gap) for question, (text, gap, _) in cases.items()}
    gold = {question: targets for question, (_, _, targets) in cases.items()}
    result = METRICS["squad_v2"](None, predictions, gold, "en")
    if len(set(gaps)) < len(gaps):
        return  # among equal gaps the script's order decides; a threshold can't part them

    def at(threshold):
        em = f1 = 0.0
        for question, text in answers_at(predictions, threshold).items():
            ours = english(text)
            if gold[question] and text == "" and predictions[question].null_gap > threshold:
                continue  # the script gives "no answer" nothing where there is one, whatever the gold text
            targets = [english(target) for target in gold[question] if english(target)] or [[]]
            if not gold[question]:
                em += text == ""
                f1 += text == ""
                continue
            em += max(ours == target for target in targets)
            f1 += max(overlap(ours, target) if ours and target else ours == target for target in targets)
        return 100 * em / len(gold), 100 * f1 / len(gold)

    thresholds = [-100.0, *gaps]
    assert result.values["em"] == pytest.approx(max(at(threshold)[0] for threshold in thresholds))
    assert result.values["f1"] == pytest.approx(max(at(threshold)[1] for threshold in thresholds))
    assert (
        result.values["f1"] == pytest.approx(at(result.settings["f1_threshold"])[1])
        or result.settings["f1_threshold"] == 0.0
    )


def test_null_threshold_by_hand():
    predictions = {
        "has": NullableAnswer("x", -2.0),
        "has not": NullableAnswer("y", 1.0),
        "half": NullableAnswer("x y", 0.5),
    }
    gold = {"has": ["x"], "has not": [], "half": ["x"]}
    result = METRICS["squad_v2"](None, predictions, gold, "en")
    # Exact match: 2 of 3 from -2 on; F1: answering "half" as well adds 2/3.
    assert result.values == pytest.approx({"em": 200 / 3, "f1": 100 * (2 + 2 / 3) / 3})
    assert result.settings == {"em_threshold": -2.0, "f1_threshold": 0.5}
    assert answers_at(predictions, 0.5) == {"has": "x", "has not": "", "half": "x y"}
