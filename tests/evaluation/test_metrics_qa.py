"""Answer metrics against statements of the scripts' rules that are written another way."""

import string
import unicodedata
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.errors import DataError
from stilts_jax.evaluation.evaluate import score_decoded
from stilts_jax.evaluation.metrics import METRICS, main_score
from stilts_jax.evaluation.metrics_qa import NullableAnswer
from stilts_jax.tasks import get_task
from stilts_jax.tasks.spec import SpanExample

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


def official_raw(predictions, gold):
    """evaluate-v2.0's get_raw_scores: (exact match, F1) by question."""
    scores = {}
    for question, answers in gold.items():
        targets = [english(answer) for answer in answers if english(answer)] or [[]]
        ours = english(predictions[question])
        f1 = max(overlap(ours, target) if ours and target else int(ours == target) for target in targets)
        scores[question] = max(int(ours == target) for target in targets), f1
    return scores


def official_best_f1(predictions, chances, gold):
    """evaluate-v2.0's find_best_thresh, with scores of "no answer" that may be negative: percent, threshold."""
    scores = {question: f1 for question, (_, f1) in official_raw(predictions, gold).items()}
    current = best = sum(not answers for answers in gold.values())
    threshold = None
    for question in sorted(chances, key=chances.get):
        if gold[question]:
            current += scores[question]
        elif predictions[question]:
            current -= 1
        if current > best + 1e-12:
            best, threshold = current, chances[question]
    return 100 * best / len(gold), threshold


def score_nullable_task(cases):
    """Predicts and scores SQuAD 2.0's dev set of ``{id: (text, gap, gold)}``: result, written answers, gold."""
    gold = {question: targets for question, (_, _, targets) in cases.items()}
    examples = [
        SpanExample(question, "?", "c", tuple((target, 0) for target in targets), not targets)
        for question, targets in gold.items()
    ]
    decoded = [NullableAnswer(text, gap) for text, gap, _ in cases.values()]
    found = score_decoded(get_task("squad_v2"), {"en": decoded}, {"en": examples})
    return found.results["en"], found.predictions["en"], gold


gaps = st.sampled_from([-3.0, -1.5, -1.0, 0.0, 0.5, 2.0])


def nullable(answers, golds, **options):
    return st.lists(st.tuples(answers, gaps, golds), min_size=1, max_size=6, **options).map(
        lambda cases: dict(zip("abcdef", cases))
    )


@BOUNDED
@given(
    nullable(st.sampled_from(["", "x", "the", "x y"]), st.sampled_from([[], ["x"], ["x y", "z"], ["the"]]))
)
def test_squad_v2_reports_the_best_file_that_a_threshold_can_write(cases):
    result, written, gold = score_nullable_task(cases)

    def score(file):
        em, f1 = (100 * sum(values) / len(gold) for values in zip(*official_raw(file, gold).values()))
        return {"em": em, "f1": f1}

    at = {
        threshold: {q: "" if gap > threshold else text for q, (text, gap, _) in cases.items()}
        for threshold in (-100.0, *(gap for _, gap, _ in cases.values()))
    }
    assert written == {
        q: "" if gap > result.settings["threshold"] else text for q, (text, gap, _) in cases.items()
    }
    assert result.values == pytest.approx(score(written))
    assert result.values["f1"] == pytest.approx(max(score(file)["f1"] for file in at.values()))
    assert 100 * result.items.values.mean() == pytest.approx(main_score("squad_v2", result.values), abs=1e-4)


@BOUNDED
@given(
    nullable(
        st.sampled_from(["x", "x y", "q"]),
        st.sampled_from([[], ["x"], ["x y", "z"]]),
        unique_by=lambda case: case[1],
    )
)
def test_squad_v2_tunes_as_the_official_script(cases):
    result, _, gold = score_nullable_task(cases)
    predictions, chances = ({q: case[part] for q, case in cases.items()} for part in (0, 1))
    best, threshold = official_best_f1(predictions, chances, gold)
    assert result.values["f1"] == pytest.approx(best)
    if threshold is None:
        assert result.settings["threshold"] < min(chances.values())
    else:
        assert result.settings["threshold"] == threshold
