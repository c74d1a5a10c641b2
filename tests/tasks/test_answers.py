"""VQA accuracy against cases worked out by hand from the published rule (visualqa.org/evaluation)."""

from dataclasses import replace

import pytest

from stilts_jax.evaluation.metrics import METRICS
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.questions import normalise_answer, score_answer

# An apostrophe is no punctuation; with a comma inside a number all punctuation goes without a space.
NORMALISED = {
    **{
        "The cat.": "cat",
        "Two dogs": "2 dogs",
        "none": "0",
        "dont know": "don't know",
        "yall": "y'all",
        "A": "",
    },
    **{"couldnt've": "couldn't've", "couldn'tve": "couldn't've", "it's": "it's", "red/blue": "red blue"},
    **{
        "red / blue": "red blue",
        "red, blue": "red blue",
        "t-shirt": "t shirt",
        "1,000": "1000",
        "3.5": "3.5",
    },
    **{"1,000 t-shirts": "1000 tshirts", "st. john": "st john", "a.m.": "am", "yes!": "yes"},
}


@pytest.mark.parametrize("text", NORMALISED)
def test_normalisation(text):
    assert " ".join(normalise_answer(text).split()) == NORMALISED[text]


# Of n people who say it, n see n - 1 others and 10 - n see n others: n * min((n-1)/3, 1) + (10-n) * min(n/3, 1).
@pytest.mark.parametrize(
    ("people", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)]
)
def test_ten_choose_nine(people, expected):
    answers = ["dog"] * people + [f"other {number}" for number in range(10 - people)]
    assert score_answer("dog", answers) == pytest.approx(expected)


def test_answers_are_normalised_only_where_people_disagree():
    assert score_answer("the dog", ["dog"] * 10) == 0.0
    assert score_answer("the dog", ["dog"] * 9 + ["cat"]) == 1.0
    assert score_answer("Dog", ["dog"] * 10) == 1.0  # case never counts
    assert score_answer("dog\n", ["\tdog"] * 10) == 1.0
    assert score_answer("two", ["2"] * 5 + ["two."] * 5) == 1.0


def test_the_metric_takes_labels_and_names():
    task = replace(get_task("vqa_v2"), labels=("dog", "2"))
    gold = [["two"] * 5 + ["2"] * 5, ["dog", *["cat"] * 9]]
    for predictions in ([1, 0], ["2", "dog"]):
        found = METRICS["vqa_accuracy"](task, predictions, gold, "en")
        assert found.values == {"accuracy": pytest.approx(65.0)}
        assert found.items.values.tolist() == pytest.approx([1.0, 0.3])
