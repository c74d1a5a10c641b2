"""Metrics against independent statements of their rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.errors import DataError
from stilts_jax.evaluation.metrics import MAIN_VALUES, METRICS, main_score

UPOS = ["ADJ", "ADP", "AUX", "INTJ", "NOUN", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"]
ENTITIES = ["O", *(f"{place}-{kind}" for place in "BIES" for kind in ("LOC", "PER")), ".", "B-LOC-X"]
BOUNDED = settings(max_examples=150, deadline=None)


def sentences(tags):
    pair = st.integers(0, 8).flatmap(
        lambda size: st.tuples(*[st.lists(st.sampled_from(tags), min_size=size, max_size=size)] * 2)
    )
    return st.lists(pair, max_size=5)


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
    right = len(ours & theirs)
    assert result.values["f1"] == pytest.approx(f1_of_sets(ours, theirs), abs=1e-9)
    assert result.values["precision"] == pytest.approx(100 * right / len(ours) if ours else 0)
    assert result.values["recall"] == pytest.approx(100 * right / len(theirs) if theirs else 0)
    assert result.items.values.sum(axis=0).tolist() == [right, len(ours), len(theirs)]
    assert len(result.items.values) == len(gold)


def test_subordinating_conjunctions_and_symbols_do_not_merge():
    # NOUN NOUN is one chunk, SYM SYM two: three of four chunks are right if the last tag is wrong.
    gold = [["NOUN", "NOUN", "SYM", "SYM", "VERB"]]
    predicted = [["NOUN", "NOUN", "SYM", "SYM", "NOUN"]]
    result = METRICS["chunk_f1"](None, predicted, gold, "en")
    assert result.values == pytest.approx({"f1": 75.0, "precision": 75.0, "recall": 75.0, "accuracy": 80.0})


def test_a_wrong_number_of_tags_names_the_sentence():
    with pytest.raises(DataError, match="1 tags for 2 words") as caught:
        METRICS["chunk_f1"](None, [["O"], ["O"]], [["O"], ["O", "O"]], "sw")
    assert "language sw, sentence 2" in caught.value.where


def test_accuracy_of_indices_and_names():
    assert METRICS["accuracy"](None, np.array([1, 0, 2]), [1, 1, 2], "en").values[
        "accuracy"
    ] == pytest.approx(200 / 3)
    assert METRICS["nearest_accuracy"](None, [5, 4], [5, 4], "fr").values["accuracy"] == 100.0
    with pytest.raises(DataError):
        METRICS["accuracy"](None, [1], [1, 2], "en")


@BOUNDED
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_duplicate_questions_get_accuracy_and_f1(pairs):
    result = METRICS["accuracy_f1"](None, [p for p, _ in pairs], [g for _, g in pairs], "en")
    right = sum(p == g == 1 for p, g in pairs)
    wrong = sum(p != g for p, g in pairs)
    assert result.values["accuracy"] == pytest.approx(100 - 100 * wrong / len(pairs))
    assert result.values["f1"] == pytest.approx(200 * right / (2 * right + wrong) if right else 0)


@BOUNDED
@given(
    st.sets(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))),
    st.sets(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))),
)
def test_bucc_is_the_f1_of_sets(predicted, gold):
    twice = [*predicted, *predicted]  # a pair that is there twice counts once
    result = METRICS["bucc_f1"](None, twice, gold, "de")
    assert result.values["f1"] == pytest.approx(f1_of_sets(predicted, gold), abs=1e-9)
    counts = result.items.values.sum(axis=0)
    assert counts.tolist() == [len(predicted & gold), len(predicted), len(gold)]


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


def test_an_unranked_query_counts_as_zero_and_a_repeated_candidate_once():
    gold = {"q1": ("a",), "q2": ("a", "b")}
    assert METRICS["mrr"](None, {"q1": ["b", "a"]}, gold, "en").values["mrr"] == 25.0
    assert METRICS["map"](None, {"q2": ["a", "a", "b"]}, gold, "en").values["map"] == pytest.approx(
        100 * (1 + 2 / 3) / 2 / 2
    )


def test_perplexity_weighs_rows_by_their_targets():
    result = METRICS["perplexity"](None, [(2.0, 1.0), (10.0, 3.0)], None, "en")
    assert result.values["loss"] == pytest.approx(3.0)
    assert result.values["perplexity"] == pytest.approx(np.exp(3.0))
    assert main_score("perplexity", result.values) == pytest.approx(-np.exp(3.0))


def test_every_metric_says_what_its_one_number_is():
    assert METRICS.keys() == MAIN_VALUES.keys()
    assert main_score("squad", {"f1": 80.0, "em": 60.0}) == 70.0
