import math

import pytest

from stilts_jax.train.selection import best_step, is_collapsed, is_out_of_patience


def test_the_first_of_equal_scores_is_the_best():
    assert best_step([[10, 0.5], [20, 0.7], [30, 0.7]]) == 20
    assert best_step([[10, math.nan], [20, -3.0]]) == 20
    assert best_step([]) is None and best_step([[10, math.nan]]) is None


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([1, 2, 2, 2], 2, True),
        ([1, 2, 2], 2, False),
        ([1, 2, 1, 3], 2, False),
        ([3, 2, 1], 0, False),
        ([math.nan, math.nan], 2, True),
        ([], 1, False),
    ],
)
def test_patience_counts_evaluations_without_a_gain(scores, patience, expected):
    history = [[10 * (number + 1), score] for number, score in enumerate(scores)]
    assert is_out_of_patience(history, patience) is expected


def test_chance_has_a_margin_that_shrinks_with_the_examples():
    # The standard error of 500 guesses among three is 2.1 points.
    assert is_collapsed(33.3, 33.3, 500) and is_collapsed(37.0, 33.3, 500)
    assert not is_collapsed(38.0, 33.3, 500)
    assert not is_collapsed(37.0, 33.3, 5000)
    assert not is_collapsed(0.1, 0.0, 100)  # a span at chance scores nothing at all
    assert is_collapsed(0.0, 0.0, 100)
