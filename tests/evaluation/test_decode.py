"""Decoding by hand: windows, long sentences, characters of the original text; then a task from end to end."""

from dataclasses import replace

import numpy as np
import pytest

from stilts_jax.errors import StiltsError
from stilts_jax.evaluation.evaluate import DECODERS, evaluate_task, find_gold, score_decoded
from stilts_jax.evaluation.metrics import NullableAnswer
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.records import Features, Ragged
from stilts_jax.tasks import get_task
from stilts_jax.tasks.spec import ClassifyExample, SpanExample, TagExample


def test_labels_stand_in_the_order_of_the_examples():
    columns = {"example": np.array([2, 0, 1]), "tokens": Ragged.from_list([[0], [0], [0]])}
    features = Features("classify", columns, ("en",), 3, "")
    assert DECODERS["classify"]({"label": np.array([7, 8, 9])}, features, []) == [8, 9, 7]
    with pytest.raises(StiltsError, match="3 rows for 4 examples"):
        DECODERS["classify"]({"label": np.array([7, 8, 9])}, replace(features, num_examples=4), [])


def test_a_sentence_in_two_rows_gets_all_its_tags():
    examples = [TagExample("a", ("x", "y", "z")), TagExample("b", ("u",))]
    words = [[-1, 2, -1, -1], [-1, 0, -1], [-1, 0, -1, 1, -1]]  # the second row of "a" comes first
    columns = {"example": np.array([0, 1, 0]), "tokens": Ragged.from_list(words)}
    columns["word"] = columns["tokens"]
    features = Features("tag", columns, ("en",), 2, "")
    tags = np.array([0, 3, 9, 0, 0, 4, 0, 0, 1, 9, 2, 0], np.int32)
    assert DECODERS["tag"]({"tags": tags}, features, examples) == [(1, 2, 3), (4,)]
    more = [replace(examples[0], words=("x", "y", "z", "w")), examples[1]]
    with pytest.raises(StiltsError, match="1 words got no tag") as caught:
        DECODERS["tag"]({"tags": tags}, features, more)
    assert caught.value.where.endswith(" a")


def span_features(rows):
    """Features of (example, characters of each token) a window."""
    columns = {
        "example": np.array([example for example, _ in rows]),
        "char_start": Ragged.from_list([[begin for begin, _ in tokens] for _, tokens in rows]),
        "char_end": Ragged.from_list([[end for _, end in tokens] for _, tokens in rows]),
    }
    return Features("span", columns, ("zh",), 2, "")


def test_answers_are_cut_from_the_original_text():
    examples = [SpanExample("q1", "?", "他在 北京市出生。"), SpanExample("q2", "?", "a  b")]
    outside = (-1, -1)
    first, second = [outside, (0, 1), (1, 2)], [outside, (2, 3), (3, 5), (5, 6)]
    features = span_features([(0, first), (0, second), (1, [outside, (0, 1), (1, 2), (2, 4)])])
    low = -np.inf
    rows = {
        "starts": np.array([[1, 2], [1, 2], [2, 2]]),
        "ends": np.array([[2, 2], [3, 2], [2, 3]]),
        "scores": np.array([[4.0, 3.0], [6.0, 5.0], [3.0, 1.0]]),
        "null": np.array([2.0, 9.0, -4.0]),
    }
    first, second = DECODERS["span"](rows, features, examples)
    # The window with the better span wins; the space before it is no part of the answer. "No answer" is the least
    # of the windows: 2 - 6.
    assert first == NullableAnswer("北京市", -4.0)
    # The best span holds nothing but a space: the next one is taken.
    assert second == NullableAnswer("b", -5.0)
    nothing = {**rows, "scores": np.full((3, 2), low)}
    assert DECODERS["span"](nothing, features, examples)[0] == NullableAnswer("", np.inf)


def test_equal_spans_of_two_windows_are_the_first_ones():
    examples = [SpanExample("q1", "?", "a b"), SpanExample("q2", "?", "")]
    features = span_features([(0, [(0, 1)]), (0, [(2, 3)]), (1, [(-1, -1)])])
    rows = dict.fromkeys(("starts", "ends"), np.zeros((3, 1), int)) | {"null": np.zeros(3)}
    rows["scores"] = np.array([[1.0], [1.0], [-np.inf]])
    assert [answer.text for answer in DECODERS["span"](rows, features, examples)] == ["a", ""]


def test_blanked_gold_gives_predictions_without_scores():
    xnli, panx, xquad = (get_task(name) for name in ("xnli", "panx", "xquad"))
    assert find_gold(xnli, [ClassifyExample("1", "a", "b", 2), ClassifyExample("2", "a", "b", None)]) is None
    assert find_gold(panx, [TagExample("1", ("a",), None)]) is None
    assert find_gold(xquad, [SpanExample("1", "?", "c", (("", 0),))]) is None
    found = score_decoded(xnli, {"de": [0, 2]}, {"de": [ClassifyExample(str(i), "a", "b") for i in range(2)]})
    assert found.results == {} and found.predictions == {"de": [0, 2]} and found.scores == {}


def test_tags_become_names():
    panx = get_task("panx")
    inside, outside = panx.labels.index("B-LOC"), panx.labels.index("O")
    examples = {"de": [TagExample("1", ("a", "b"), (inside, outside))]}
    found = score_decoded(panx, {"de": [(inside, outside)]}, examples)
    assert found.predictions == {"de": [["B-LOC", "O"]]} and found.scores["f1"] == {"de": 100.0}


def test_items_of_parallel_sets_pair_by_id():
    ids, labels = (
        {"en": "abc", "ace": "cab", "ban": "abd"},
        {"en": (0, 1, 2), "ace": (2, 0, 1), "ban": (0, 1, 2)},
    )
    examples = {
        code: [ClassifyExample(name, name, label=label) for name, label in zip(ids[code], labels[code])]
        for code in ids
    }
    decoded = {"en": [0, 1, 1], "ace": [1, 0, 1], "ban": [0, 1, 1]}  # wrong about "c", about "c", about "d"
    items = {
        code: one.items for code, one in score_decoded(get_task("nusax"), decoded, examples).results.items()
    }
    assert items["ace"].values.tolist() == items["en"].values.tolist() == [1, 1, 0]
    assert items["ace"].ids == items["en"].ids != items["ban"].ids  # other sentences do not pair
    apart = score_decoded(replace(get_task("nusax"), aligned=False), decoded, examples).results["ace"].items
    assert apart.values.tolist() == [0, 1, 1]


def test_squad_v2_submits_what_its_threshold_leaves():
    task = get_task("squad_v2")
    right = [SpanExample("1", "?", "x", (("x", 0),)), SpanExample("2", "?", "b", (), impossible=True)]
    examples, decoded = {"en": right}, {"en": [NullableAnswer("x", -1.0), NullableAnswer("b", 1.0)]}
    found = score_decoded(task, decoded, examples)
    assert found.scores == {"f1": {"en": 100.0}, "em": {"en": 100.0}}
    assert found.predictions == {"en": {"1": "x", "2": ""}}
    more = {**decoded, "de": decoded["en"]}, {**examples, "de": examples["en"]}
    again = score_decoded(task, *more, {"en": 1.0})
    # Another set's threshold is taken as it is, and without one nothing is answered.
    assert again.predictions == {"en": {"1": "x", "2": "b"}}
    assert again.scores == {"f1": {"en": 50.0}, "em": {"en": 50.0}}


def test_features_of_other_examples_are_refused(model, params, tokenizer):
    examples = {"de": [ClassifyExample("1", "a", None, 0)]}
    features = build_features("classify", examples, tokenizer, FeatureSettings(), training=False)
    with pytest.raises(StiltsError, match="1 examples in de, but 1 in fr"):
        evaluate_task(model, params, get_task("xnli"), features, {"fr": examples["de"]}, head="classify")
