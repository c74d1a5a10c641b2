"""Mining and thresholds against brute force; retrieval tasks over vectors that are known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stilts_jax.errors import DataError
from stilts_jax.evaluation.retrieval import (
    Embedder,
    evaluate_retrieval,
    mine_sentences,
    pair_up,
    tune_threshold,
)
from stilts_jax.evaluation.search import find_neighbours, normalise
from stilts_jax.tasks import get_task
from stilts_jax.tasks.spec import EmbedExample, RetrievalSet


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
    best = [(i, near_x[i][margin[i, near_x[i]].argmax()]) for i in range(len(x))]
    best += [(near_y[j][margin[near_y[j], j].argmax()], j) for j in range(len(y))]
    pairs = []
    for score, i, j in sorted(
        ((margin[pair], *pair) for pair in best), key=lambda item: (-item[0], *item[1:])
    ):
        if all(i != one and j != other for one, other, _ in pairs):
            pairs.append((int(i), int(j), score))
    return [pair for pair in pairs if pair[2] > 0]


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
    found = pair_up(*find_neighbours(normalise(source), normalise(target), 4))
    expected = mine_by_force(source, target, 4)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
    np.testing.assert_allclose([pair[2] for pair in found], [pair[2] for pair in expected], rtol=1e-5)


def test_texts_under_several_ids_are_in_no_pair():
    part = RetrievalSet(sentences("x", "eins", "zwei", "eins"), sentences("y", "one", "two"), None)
    # The first "eins" lies elsewhere; the last occurrence counts.
    source_vectors = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    target_vectors = np.array([[1.0, 0.1, 0], [0.1, 1, 0]])
    assert list(mine_sentences(part, source_vectors, target_vectors)) == [("x-1", "y-1")]


scored = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz")),
    st.floats(0.1, 2) | st.sampled_from([0.5, 1.0]),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(scored, st.sets(st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz")), max_size=8))
@example({("a", "w"): 0.1, ("a", "x"): 0.10000000000000002}, {("a", "x")})  # nothing lies between
def test_threshold_is_the_best_of_all(scores, gold):
    def f1_at(threshold):
        kept = {pair for pair, score in scores.items() if score >= threshold}
        return 200 * len(kept & gold) / (len(kept) + len(gold)) if kept & gold else 0.0

    threshold, f1 = tune_threshold(scores, gold), max(map(f1_at, scores.values()), default=0.0)
    assert f1_at(threshold) == pytest.approx(f1)
    if f1:
        kept = {score for score in scores.values() if score >= threshold}
        others = set(scores.values()) - kept
        assert threshold == pytest.approx((min(kept) + max(others)) / 2 if others else min(kept))


def embed(texts):
    """A text is a direction: its numbers."""
    return np.array([[float(number) for number in text.split()] for text in texts], np.float32).reshape(-1, 3)


def sentences(prefix, *texts):
    return [EmbedExample(f"{prefix}-{line}", text) for line, text in enumerate(texts)]


def test_nearest_neighbours_are_line_numbers():
    task, german = get_task("tatoeba"), sentences("de", "0 2 0", "0 0 1", "3 1 0")
    gold = {"en-0": ("de-2",), "en-1": ("de-1",)}
    part = RetrievalSet(sentences("en", "1 0 0", "0 1 0"), german, gold)
    (found,) = evaluate_retrieval(task, {"de": part, "fr": replace(part, gold=None)}, embed)
    assert found.predictions == {"de": [2, 0], "fr": [2, 0]} and found.scores == {"accuracy": {"de": 50.0}}


def test_a_question_in_two_languages_is_one_item():
    """LAReQA's questions are called by their language too, and may stand in another order."""
    pool = [EmbedExample("a", "1 0 0"), EmbedExample("b", "0 1 0")]
    asked = {"de": {"q1": "1 0 0", "q2": "0 1 0"}, "sw": {"q2": "0 1 0", "q1": "0 1 0"}}
    sets = {}
    for code, texts in asked.items():
        queries = [EmbedExample(f"{name}_{code}", text) for name, text in texts.items()]
        sets[code] = RetrievalSet(queries, pool, {f"q1_{code}": ("a",), f"q2_{code}": ("b",)})
    (found,) = evaluate_retrieval(get_task("lareqa"), sets, embed)
    found = found.results
    assert found["de"].items.ids == found["sw"].items.ids
    assert [found[code].items.values.tolist() for code in asked] == [[1.0, 1.0], [0.5, 1.0]]


def make_pool(rows, noise, seed):
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((rows, 3)) + 4
    words = [" ".join(map(str, vector)) for vector in vectors]
    others = [" ".join(map(str, vector + noise * draw.standard_normal(3))) for vector in vectors]
    gold = {f"de-{row}": (f"en-{row}",) for row in range(rows)}
    return RetrievalSet(sentences("de", *words, "-4 9 1"), sentences("en", *others), gold)


def test_the_threshold_is_tuned_on_dev_and_applied_to_test():
    task = get_task("bucc")
    dev, test = ({"de": make_pool(40, 0.05, seed)} for seed in (0, 1))
    (tuned,) = evaluate_retrieval(task, dev, embed)
    threshold = tuned.thresholds["de"]
    assert threshold > 0
    both = [{"de": threshold}, {"de": 0.0}]  # of two layers
    found, everything = evaluate_retrieval(
        task, test, lambda texts: np.stack([embed(texts)] * 2, axis=1), thresholds=both, layers=2
    )
    assert found.thresholds == {"de": threshold}
    assert set(found.predictions["de"]) <= set(everything.predictions["de"])
    gold = {(query, right) for query, (right,) in test["de"].gold.items()}
    right = len(gold & set(found.predictions["de"]))
    assert found.scores["f1"]["de"] == pytest.approx(200 * right / (len(found.predictions["de"]) + 40))
    blanked = {"de": replace(test["de"], gold=None)}
    (submitted,) = evaluate_retrieval(task, blanked, embed, thresholds=both[:1])
    assert submitted.predictions == found.predictions and submitted.results == {}
    # Nothing is tuned on the gold of test, and there is nothing to tune on where dev is blanked.
    for sets, thresholds in (({"fr": test["de"]}, both[:1]), (blanked, None)):
        (empty,) = evaluate_retrieval(task, sets, embed, thresholds=thresholds)
        assert empty.results == {} and empty.predictions == {}


@pytest.fixture(scope="module")
def embedder(model, params, tokenizer):
    only = {"encoder": params["encoder"]}
    return Embedder(replace(model, heads=()), only, tokenizer, tokens_per_batch=2048)


def test_embedder_and_layers(embedder, make_text):
    texts = [make_text(seed) for seed in range(12)]
    part = RetrievalSet(sentences("en", *texts), sentences("de", *reversed(texts)), None)
    layers = evaluate_retrieval(
        get_task("tatoeba"), {"de": part}, replace(embedder, layer=(0, 1, 2, 3)), layers=4
    )
    # The very same sentences: the nearest is itself at every layer.
    assert [found.predictions["de"] for found in layers] == [list(range(11, -1, -1))] * 4
    vectors = embedder([*texts, texts[3]])
    assert vectors.shape == (13, 32)
    np.testing.assert_array_equal(vectors[12], vectors[3])  # embedded once
    np.testing.assert_allclose(replace(embedder, layer=(1, 2))(texts)[:, 1], vectors[:12], atol=2e-5)
    assert embedder([]).shape == (0, 32)


TILE = (32, 64)


def brute_force(source, target, k):
    """Indices by falling similarity, then by rising index; and the similarities."""
    similar = np.asarray(source, np.float64) @ np.asarray(target, np.float64).T
    order = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similar, order, axis=1)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 4),
    st.sampled_from([1, 4, 20]),
    st.integers(0, 2),
)
def test_small_whole_numbers_are_exact_with_their_ties(seed, rows, columns, dimension, k, largest):
    # Products of small whole numbers are exact in float32: every tie is a tie, and most entries tie.
    generator = np.random.default_rng(seed)
    source = generator.integers(-largest, largest + 1, (rows, dimension)).astype(np.float32)
    target = generator.integers(-largest, largest + 1, (columns, dimension)).astype(np.float32)
    forward, backward = find_neighbours(source, target, k, tile=TILE)
    for found, (index, values) in (
        (forward, brute_force(source, target, k)),
        (backward, brute_force(target, source, k)),
    ):
        np.testing.assert_array_equal(found.index, index)
        np.testing.assert_array_equal(found.values, values)


@pytest.mark.parametrize("tile", [TILE, (64, 2048), None])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_unit_vectors_equal_float64_where_the_gap_is_wider_than_the_precision(tile, precision):
    generator = np.random.default_rng(1)
    source, target = (normalise(generator.standard_normal((count, 48))) for count in (700, 1500))
    found = find_neighbours(source, target, 4, tile=tile, precision=precision)
    for side, (x, y) in zip(found, ((source, target), (target, source))):
        index, values = brute_force(x, y, 5)
        gaps = values[:, :-1] - values[:, 1:]
        # An entry is certain if it is clear of the one before it and the one behind it.
        certain = (gaps > 1e-6) & np.concatenate([np.full((len(x), 1), True), gaps[:, :-1] > 1e-6], axis=1)
        assert certain.mean() > 0.99
        np.testing.assert_array_equal(side.index[certain], index[:, :4][certain])
        np.testing.assert_allclose(side.values, values[:, :4], atol=1e-6)


def test_empty_sets_and_k_beyond_the_set():
    none, three = np.zeros((0, 5), np.float32), np.eye(3, 5, dtype=np.float32)
    for forward, backward in (find_neighbours(none, three, 4), find_neighbours(three, none, 4)[::-1]):
        assert forward.index.shape == (0, 3) and backward.index.shape == (3, 0)
    forward, backward = find_neighbours(three, three[:2], 4)
    (alone,) = find_neighbours(three, three[:2], 4, both=False)
    np.testing.assert_array_equal(alone.index, forward.index)
    assert forward.index.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert backward.index.tolist() == [[0, 1, 2], [1, 0, 2]]
    np.testing.assert_allclose(normalise(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]], atol=1e-7)
    with pytest.raises(DataError, match="1 of 2 embeddings"):
        normalise(np.array([[1.0], [np.nan]]))
