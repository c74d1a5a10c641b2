"""Decoding by hand: windows, long sentences, characters of the original text; then a task from end to end."""

from dataclasses import replace

import numpy as np
import pytest

from stilts_jax.errors import StiltsError
from stilts_jax.evaluation.evaluate import DECODERS, find_gold, score_decoded
from stilts_jax.evaluation.metrics import NullableAnswer
from stilts_jax.features.records import Features, Ragged
from stilts_jax.tasks import get_task
from stilts_jax.tasks.spec import ClassifyExample, SpanExample, TagExample


def test_a_sentence_in_two_rows_gets_all_its_tags():
    examples = [TagExample("a", ("x", "y", "z")), TagExample("b", ("u",))]
    words = [[-1, 2, -1, -1], [-1, 0, -1], [-1, 0, -1, 1, -1]]  # the second row of "a" comes first
    columns = {"example": np.array([0, 1, 0]), "tokens": Ragged.from_list(words)}
    columns["word"] = columns["tokens"]
    features = Features("tag", columns, ("en",), 2)
    tags = np.array([0, 3, 9, 0, 0, 4, 0, 0, 1, 9, 2, 0], np.int32)
    assert DECODERS["tag"]({"tags": tags}, features, examples) == [(1, 2, 3), (4,)]
    more = [replace(examples[0], words=("x", "y", "z", "w")), examples[1]]
    with pytest.raises(StiltsError, match="1 words got no tag"):
        DECODERS["tag"]({"tags": tags}, features, more)


def span_features(rows):
    """Features of (example, characters of each token) a window."""
    columns = {
        "example": np.array([example for example, _ in rows]),
        "char_start": Ragged.from_list([[begin for begin, _ in tokens] for _, tokens in rows]),
        "char_end": Ragged.from_list([[end for _, end in tokens] for _, tokens in rows]),
    }
    return Features("span", columns, ("zh",), 2)


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


def test_blanked_gold_gives_predictions_without_scores():
    xnli, panx, xquad = (get_task(name) for name in ("xnli", "panx", "xquad"))
    assert find_gold(xnli, [ClassifyExample("1", "a", "b", 2), ClassifyExample("2", "a", "b", None)]) is None
    assert find_gold(panx, [TagExample("1", ("a",), None)]) is None
    assert find_gold(xquad, [SpanExample("1", "?", "c", (("", 0),))]) is None
    found = score_decoded(xnli, {"de": [0, 2]}, {"de": [ClassifyExample(str(i), "a", "b") for i in range(2)]})
    assert found.results == {} and found.predictions == {"de": [0, 2]} and found.scores == {}


def test_items_of_parallel_sets_pair_by_id():
    gold = {"en": {"a": 0, "b": 1, "c": 2}, "ace": {"c": 2, "a": 0, "b": 1}, "ban": {"a": 0, "b": 1, "d": 2}}
    examples = {
        code: [ClassifyExample(name, name, label=label) for name, label in labels.items()]
        for code, labels in gold.items()
    }
    decoded = {"en": [0, 1, 1], "ace": [1, 0, 1], "ban": [0, 1, 1]}  # wrong about "c", about "c", about "d"
    results = score_decoded(get_task("nusax"), decoded, examples).results
    items = {code: one.items for code, one in results.items()}
    assert items["ace"].values.tolist() == items["en"].values.tolist() == [1, 1, 0]
    assert items["ace"].ids == items["en"].ids != items["ban"].ids  # other sentences do not pair
    apart = score_decoded(replace(get_task("nusax"), aligned=False), decoded, examples).results["ace"].items
    assert apart.values.tolist() == [0, 1, 1]
