"""Mining and thresholds against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.evaluation.retrieval import (
    keep_above,
    mine_pairs,
    mine_sentences,
    tune_threshold,
)


def mine_by_force(source, target, k):
    """The whole matrix of margins in float64, then the greedy choice by a loop over sorted candidates."""
    x = source / np.linalg.norm(source, axis=1, keepdims=True)
    y = target / np.linalg.norm(target, axis=1, keepdims=True)
    cosine = x @ y.T
    near_x = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    near_y = np.argsort(-cosine.T, axis=1, kind="stable")[:, :k]
    mean_x = np.take_along_axis(cosine, near_x, 1).mean(1)
    mean_y = np.take_along_axis(cosine.T, near_y, 1).mean(1)
    margin = cosine / ((mean_x[:, None] + mean_y[None, :]) / 2)
    candidates = [
        (margin[i, j], i, j) for i in range(len(x)) for j in near_x[i][[margin[i, near_x[i]].argmax()]]
    ]
    candidates += [
        (margin[i, j], i, j) for j in range(len(y)) for i in near_y[j][[margin[near_y[j], j].argmax()]]
    ]
    used_x, used_y, pairs = set(), set(), []
    for score, i, j in sorted(candidates, key=lambda item: (-item[0], item[1], item[2])):
        if i not in used_x and j not in used_y:
            used_x.add(i)
            used_y.add(j)
            if score > 0:
                pairs.append((int(i), int(j), score))
    return pairs


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60))
def test_mining_equals_brute_force(seed, rows, columns):
    generator = np.random.default_rng(seed)
    source, target = generator.standard_normal((rows, 16)), generator.standard_normal((columns, 16))
    shared = min(rows, columns) // 2
    target[:shared] = source[:shared] + 0.3 * target[:shared]
    # Positive similarities, as encoders give them: around zero means a ratio is ill-conditioned.
    source += 1.0
    target += 1.0
    found = mine_pairs(source, target, 4)
    expected = mine_by_force(source, target, 4)
    assert list(zip(found.source.tolist(), found.target.tolist())) == [(i, j) for i, j, _ in expected]
    np.testing.assert_allclose(found.score, [score for _, _, score in expected], rtol=1e-5)


def test_empty_sides_mine_nothing():
    for rows, columns in ((0, 3), (3, 0), (0, 0)):
        assert len(mine_pairs(np.ones((rows, 4)), np.ones((columns, 4))).score) == 0


def test_equal_scores_are_taken_in_the_order_of_the_files():
    vectors = np.eye(5)  # every margin of a right pair is the same
    pairs = mine_pairs(vectors, vectors, 2)
    assert pairs.source.tolist() == pairs.target.tolist() == [0, 1, 2, 3, 4]


def test_texts_under_several_ids_are_in_no_pair():
    source = {"x1": "eins", "x2": "zwei", "x3": "eins"}
    target = {"y1": "one", "y2": "two"}
    # The first "eins" lies elsewhere; the last occurrence counts.
    source_vectors = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    target_vectors = np.array([[1.0, 0.1, 0], [0.1, 1, 0]])
    assert list(mine_sentences(source, target, source_vectors, target_vectors)) == [("x2", "y2")]


scored = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz")),
    st.one_of(st.floats(0.1, 2), st.sampled_from([0.5, 1.0])),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(scored, st.sets(st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz")), max_size=8))
def test_threshold_is_the_best_of_all(scores, gold):
    def f1_at(threshold):
        kept = {pair for pair, score in scores.items() if score >= threshold}
        return 200 * len(kept & gold) / (len(kept) + len(gold)) if kept & gold else 0.0

    threshold, f1 = tune_threshold(scores, gold)
    assert f1 == pytest.approx(max((f1_at(score) for score in scores.values()), default=0.0))
    if f1:
        assert f1_at(threshold) == pytest.approx(f1)
        kept = {scores[pair] for pair in keep_above(scores, threshold)}
        others = set(scores.values()) - kept
        # Midway to the next score, or the last score itself.
        assert threshold == pytest.approx((min(kept) + max(others)) / 2 if others else min(kept))


def test_threshold_at_the_last_candidate():
    scores = {("a", "x"): 1.5, ("b", "y"): 1.25}
    assert tune_threshold(scores, scores) == (1.25, 100.0)
    assert tune_threshold(scores, [("a", "x")]) == (1.375, 100.0)
    assert tune_threshold({}, [("a", "x")]) == (0.0, 0.0)
    assert tune_threshold(scores, [("c", "z")]) == (0.0, 0.0)
