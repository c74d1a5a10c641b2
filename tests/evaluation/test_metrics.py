"""Metrics against independent statements of their rules, written another way than the scripts."""

import string
import unicodedata
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.errors import DataError
from stilts_jax.evaluation.evaluate import score_decoded
from stilts_jax.evaluation.metrics import METRICS, NullableAnswer, main_score
from stilts_jax.tasks import get_task
from stilts_jax.tasks.spec import SpanExample, Task

UPOS = ["ADJ", "ADP", "AUX", "INTJ", "NOUN", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"]
ENTITIES = ["O", *(f"{place}-{kind}" for place in "BIES" for kind in ("LOC", "PER")), ".", "B-LOC-X"]
BOUNDED = settings(max_examples=150, deadline=None)


def sentences(tags):
    def two(size):
        return st.tuples(*[st.lists(st.sampled_from(tags), min_size=size, max_size=size)] * 2)

    return st.lists(st.integers(0, 8).flatmap(two), max_size=5)


def chunks_by_state_machine(tag_sentences):
    """seqeval 0.0.12 as spec'd, token by token."""
    flat = [tag for sentence in tag_sentences for tag in [*sentence, "O"]]
    found, before, before_type, begin = set(), "O", "", 0
    for i, tag in enumerate([*flat, "O"]):
        here, kind = tag[0], tag.split("-")[-1]
        end = before in "ES" or (before in "BI" and here in "BSO")
        end = end or (before not in "O." and before_type != kind)
        if end:
            found.add((before_type, begin, i - 1))
        start = here in "BS" or (before in "ESO" and here in "EI")
        if start or (here not in "O." and before_type != kind):
            begin = i
        before, before_type = here, kind
    return found


def f1_of_sets(predicted, gold):
    right = len(predicted & gold)
    return 200 * right / (len(predicted) + len(gold)) if right else 0.0


@BOUNDED
@given(st.sampled_from([ENTITIES, UPOS]).flatmap(sentences))
def test_chunk_f1_follows_the_state_machine(pairs):
    predicted, gold = [p for p, _ in pairs], [g for _, g in pairs]
    result = METRICS["chunk_f1"](None, predicted, gold, "en")
    ours, theirs = chunks_by_state_machine(predicted), chunks_by_state_machine(gold)
    assert result.values["f1"] == pytest.approx(f1_of_sets(ours, theirs), abs=1e-9)
    assert result.items.values.sum(axis=0).tolist() == [len(ours & theirs), len(ours), len(theirs)]
    assert len(result.items.values) == len(gold)


def test_subordinating_conjunctions_and_symbols_do_not_merge():
    # NOUN NOUN is one chunk, SYM SYM two: three of four chunks are right if the last tag is wrong.
    gold = [["NOUN", "NOUN", "SYM", "SYM", "VERB"]]
    result = METRICS["chunk_f1"](None, [["NOUN", "NOUN", "SYM", "SYM", "NOUN"]], gold, "en")
    assert result.values == pytest.approx({"f1": 75.0, "precision": 75.0, "recall": 75.0, "accuracy": 80.0})


rankings = st.dictionaries(
    st.integers(0, 5).map(str),
    st.tuples(
        st.permutations([str(i) for i in range(30)]),
        st.sets(st.integers(0, 29).map(str), min_size=1, max_size=25),
    ),
    max_size=4,
)


@BOUNDED
@given(rankings)
def test_rankings_are_cut_at_twenty(queries):
    predicted = {query: ranking for query, (ranking, _) in queries.items()}
    gold = {query: tuple(right) for query, (_, right) in queries.items()}
    reciprocal, precision = [], []
    for ranking, right in queries.values():
        hits = np.isin(ranking[:20], list(right))
        reciprocal.append(1 / (1 + np.argmax(hits)) if hits.any() else 0)
        at_rank = np.cumsum(hits) / np.arange(1, 21)
        precision.append((at_rank * hits).sum() / min(len(right), 20))
    mean = 100 * np.mean(reciprocal) if queries else 0
    assert METRICS["mrr"](None, predicted, gold, "en").values["mrr"] == pytest.approx(mean)
    mean = 100 * np.mean(precision) if queries else 0
    assert METRICS["map"](None, predicted, gold, "en").values["map"] == pytest.approx(mean)


def test_small_metrics_by_hand():
    found = METRICS["accuracy"](None, np.array([1, 0, 2]), [1, 1, 2], "en").values
    assert found == {"accuracy": pytest.approx(200 / 3)}
    found = METRICS["accuracy_f1"](
        get_task("qqp"), [1, 1, 0, 1], [1, 0, 1, 1], "en"
    ).values  # two right, one of each wrong
    assert found == pytest.approx({"accuracy": 50.0, "f1": 200 / 3})
    task = Task(name="seen", kind="classify", labels=("yes", "red", "no", "blue"))
    right = [0, 2, 1, 3, 1]  # yes and no are right, of three colours two
    found = METRICS["open_accuracy"](task, [0, 2, 1, 1, 1], right, "en").values
    assert found == pytest.approx({"accuracy": 80.0, "open": 200 / 3})
    named = [[task.labels[one] for one in ones] for ones in ([0, 2, 1, 1, 1], right)]
    assert METRICS["open_accuracy"](task, *named, "en").values == found
    assert main_score("squad", {"f1": 80.0, "em": 60.0}) == 70.0
    # A pair that is there twice counts once.
    found = METRICS["bucc_f1"](None, [("a", "x"), ("a", "x"), ("b", "y")], {("a", "x")}, "de")
    assert found.values["f1"] == pytest.approx(200 / 3)
    assert found.items.values.sum(axis=0).tolist() == [1, 2, 1]
    # The best gold answer counts, and no answer is zero.
    gold = {"1": ["Denver Broncos", "The Broncos"], "2": ["x"]}
    assert METRICS["squad"](None, {"1": "broncos!"}, gold, "en").values == {"em": 50.0, "f1": 50.0}
    # A query without a ranking is zero, a repeated candidate counts once.
    gold = {"q1": ("a",), "q2": ("a", "b")}
    assert METRICS["mrr"](None, {"q1": ["b", "a"]}, gold, "en").values["mrr"] == 25.0
    found = METRICS["map"](None, {"q2": ["a", "a", "b"]}, gold, "en").values["map"]
    assert found == pytest.approx(100 * (1 + 2 / 3) / 2 / 2)


# -- answers

ARTICLES = {
    **{"en": "a an the", "es": "un una unos unas el la los las", "vi": "của là cái chiếc những"},
    **{"de": "ein eine einen einem eines einer der die das den dem des", "hi": "", "zh": "", "ar": ""},
}
PIECES = [
    *" ".join(ARTICLES.values()).split(),
    *["The", "Der", "EL", "x", "42", "year", "-", "–", "¿", "。", "，", "'", "_", "\u200b", "\u00a0", "\t"],
    *["ال", "البيت", "وال", "بيت", "年", "中国", "龥", "龦", "भारत", "।", "là", "thelast", "$", "€", "İ"],
]
pieces = st.tuples(st.sampled_from(PIECES), st.sampled_from(["", " "])).map("".join)
texts = st.lists(pieces, max_size=6).map("".join)
answers = st.lists(texts, min_size=1, max_size=3)


def without_words(text, words):
    """Replaces whole words by a space; a word is a run of letters, digits and underscores."""
    runs = ("".join(run) for _, run in groupby(text, lambda mark: mark.isalnum() or mark == "_"))
    return "".join(" " if run in words else run for run in runs)


def english(text):
    kept = "".join(mark for mark in text.lower() if mark not in string.punctuation)
    return without_words(kept, ARTICLES["en"].split()).split()


def mlqa(text, language):
    marks = {mark for mark in text.lower() if unicodedata.category(mark)[0] == "P"} | {*string.punctuation}
    kept = "".join(mark for mark in text.lower() if mark not in marks)
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


@BOUNDED
@given(st.sampled_from(sorted(ARTICLES)), given_answers, questions)
def test_mlqa_has_a_rule_for_each_language(language, predictions, gold):
    result = METRICS["mlqa"](None, predictions, gold, language)
    expected = means(predictions, gold, lambda text: mlqa(text, language))
    assert result.values == pytest.approx(expected, abs=1e-9)


def test_mlqa_by_hand():
    def f1(language, prediction, target):
        return METRICS["mlqa"](None, {"q": prediction}, {"q": [target]}, language).values["f1"]

    assert f1("de", "der Dampf", "Dampf") == 100.0
    assert f1("es", "der Dampf", "Dampf") == pytest.approx(200 / 3)
    assert f1("zh", "一九四五年", "1945年") == pytest.approx(200 / 7)  # five tokens and two, one in common
    assert f1("ar", "البيت", "بيت") == 100.0
    assert f1("ar", "سؤال", "سؤ") == 100.0  # the pattern cuts inside words as well
    with pytest.raises(DataError, match="'ru'"):
        f1("ru", "a", "a")


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
    """Predicts and scores SQuAD 2.0's dev set of ``{id: (text, gap, gold)}``; returns the gold too."""
    gold = {question: targets for question, (_, _, targets) in cases.items()}
    examples = []
    for question, targets in gold.items():
        answers = tuple((target, 0) for target in targets)
        examples.append(SpanExample(question, "?", "c", answers, not targets))
    decoded = [NullableAnswer(text, gap) for text, gap, _ in cases.values()]
    return score_decoded(get_task("squad_v2"), {"en": decoded}, {"en": examples}), gold


gaps = st.sampled_from([-3.0, -1.5, -1.0, 0.0, 0.5, 2.0])


CASE = st.tuples(st.sampled_from(["x", "x y", "q"]), gaps, st.sampled_from([[], ["x"], ["x y", "z"]]))


@BOUNDED
@given(st.lists(CASE, min_size=1, max_size=6, unique_by=lambda case: case[1]))
def test_squad_v2_tunes_as_the_official_script_and_writes_what_it_reports(found):
    cases = dict(zip("abcdef", found))
    found, gold = score_nullable_task(cases)
    scores = [f1 for _, f1 in official_raw(found.predictions["en"], gold).values()]
    assert found.scores["f1"]["en"] == pytest.approx(100 * np.mean(scores))
    predictions, chances = ({q: case[part] for q, case in cases.items()} for part in (0, 1))
    best, threshold = official_best_f1(predictions, chances, gold)
    assert found.scores["f1"]["en"] == pytest.approx(best)
    tuned = found.thresholds["en"]
    assert tuned < min(chances.values()) if threshold is None else tuned == threshold
