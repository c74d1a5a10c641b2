"""Mining and thresholds against brute force; retrieval tasks over vectors that are known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.evaluation.retrieval import (
    Embedder,
    evaluate_retrieval,
    mine_pairs,
    mine_sentences,
    sweep_layers,
    tune_threshold,
)
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
    st.floats(0.1, 2) | st.sampled_from([0.5, 1.0]),
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
        kept = {score for score in scores.values() if score >= threshold}
        others = set(scores.values()) - kept
        # Midway to the next score, or the last score itself.
        assert threshold == pytest.approx((min(kept) + max(others)) / 2 if others else min(kept))


def test_threshold_at_the_last_candidate():
    scores = {("a", "x"): 1.5, ("b", "y"): 1.25}
    assert tune_threshold(scores, scores) == (1.25, 100.0)
    assert tune_threshold(scores, [("a", "x")]) == (1.375, 100.0)
    assert tune_threshold({}, [("a", "x")]) == (0.0, 0.0)
    assert tune_threshold(scores, [("c", "z")]) == (0.0, 0.0)


def embed(texts):
    """A text is a direction: its numbers."""
    return np.array([[float(number) for number in text.split()] for text in texts], np.float32).reshape(-1, 3)


def sentences(prefix, *texts):
    return [EmbedExample(f"{prefix}-{line}", text) for line, text in enumerate(texts)]


def test_nearest_neighbours_are_line_numbers():
    task = get_task("tatoeba")
    german = sentences("de", "0 2 0", "0 0 1", "3 1 0")
    gold = {"en-0": ("de-2",), "en-1": ("de-1",)}
    part = RetrievalSet(sentences("en", "1 0 0", "0 1 0"), german, gold)
    blank = replace(part, gold=None)
    found = evaluate_retrieval(task, {"de": part, "fr": blank}, embed)
    assert found.predictions == {"de": [2, 0], "fr": [2, 0]}
    assert found.scores == {"accuracy": {"de": 50.0}}


def test_all_languages_are_embedded_together():
    calls = []

    def counting(texts):
        calls.append(len(texts))
        return embed(texts)

    part = RetrievalSet(sentences("en", "1 0 0"), sentences("de", "0 2 0"), None)
    evaluate_retrieval(get_task("tatoeba"), {"de": part, "fr": part}, counting)
    assert calls == [2, 2]
    shared = sentences("c", "1 0 0", "0 1 0")
    sets = {lang: RetrievalSet(sentences(lang, "1 0 0"), shared, None) for lang in ("de", "fr", "zh")}
    calls.clear()
    evaluate_retrieval(get_task("lareqa"), sets, counting)
    assert calls == [3, 2]


def test_rankings_hold_each_name_once():
    task = get_task("mewslix")
    pool = [EmbedExample("Q1", "0 1 0"), EmbedExample("Q2", "1 0.5 0"), EmbedExample("Q1", "1 0 0")]
    sets = {"de": RetrievalSet(sentences("m", "1 0 0"), pool, {"m-0": ("Q2",)})}
    found = evaluate_retrieval(task, sets, embed)
    assert found.predictions == {"de": {"m-0": ["Q1", "Q2"]}}
    assert found.scores == {"mrr": {"de": 50.0}}


def test_queries_may_be_embedded_their_own_way():
    part = RetrievalSet(sentences("en", "1 0 0"), sentences("de", "1 0 0", "0 1 0"), None)
    found = evaluate_retrieval(
        get_task("tatoeba"), {"de": part}, embed, embed_queries=lambda texts: embed(texts)[:, [1, 0, 2]]
    )
    assert found.predictions == {"de": [1]}


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
    tuned = evaluate_retrieval(task, dev, embed)
    threshold = tuned.results["de"].settings["threshold"]
    assert threshold > 0
    found = evaluate_retrieval(task, test, embed, thresholds={"de": threshold})
    everything = evaluate_retrieval(task, test, embed, thresholds={"de": 0.0})
    assert found.results["de"].settings == {"threshold": threshold}
    assert set(found.predictions["de"]) <= set(everything.predictions["de"])
    gold = {(query, right) for query, (right,) in test["de"].gold.items()}
    right = len(gold & set(found.predictions["de"]))
    assert found.scores["f1"]["de"] == pytest.approx(200 * right / (len(found.predictions["de"]) + 40))
    blanked = {"de": replace(test["de"], gold=None)}
    submitted = evaluate_retrieval(task, blanked, embed, thresholds={"de": threshold})
    assert submitted.predictions == found.predictions and submitted.results == {}
    # Nothing is tuned on the gold of test, and there is nothing to tune on where dev is blanked.
    for sets, thresholds in (({"fr": test["de"]}, {"de": threshold}), (blanked, None)):
        empty = evaluate_retrieval(task, sets, embed, thresholds=thresholds)
        assert empty.results == {} and empty.predictions == {}


@pytest.fixture(scope="module")
def embedder(model, params, tokenizer):
    only = {"encoder": params["encoder"]}
    return Embedder(replace(model, heads=()), only, tokenizer, tokens_per_batch=2048)


def test_embedder_and_layers(embedder, make_text):
    texts = [make_text(seed) for seed in range(12)]
    part = RetrievalSet(sentences("en", *texts), sentences("de", *reversed(texts)), None)
    task = get_task("tatoeba")
    layers = sweep_layers(task, {"de": part}, embedder)
    # The very same sentences: the nearest is itself at every layer.
    assert [found.predictions["de"] for found in layers] == [list(range(11, -1, -1))] * 4
    vectors = embedder([*texts, texts[3]])
    assert vectors.shape == (13, 32)
    np.testing.assert_array_equal(vectors[12], vectors[3])  # embedded once
    everything = replace(embedder, layer="all")(texts)
    np.testing.assert_allclose(everything[:, 2], vectors[:12], atol=2e-5)
    assert embedder([]).shape == (0, 32)


def test_fingerprint_names_what_decides_the_vectors(embedder, params):
    moved = {"encoder": {**params["encoder"], "embeddings": {**params["encoder"]["embeddings"]}}}
    moved["encoder"]["embeddings"]["type"] = moved["encoder"]["embeddings"]["type"] + 1e-3
    others = [replace(embedder, layer=1), replace(embedder, max_length=9), replace(embedder, params=moved)]
    found = {one.fingerprint for one in (embedder, *others)}
    assert len(found) == 4
    assert replace(embedder, tokens_per_batch=4096).fingerprint == embedder.fingerprint


def test_dual_encoder(model, head_params, tokenizer, make_text):
    options = {"max_length": 24, "head": "embed", "tokens_per_batch": 2048}
    dual = Embedder(model, head_params("embed"), tokenizer, **options)
    vectors = dual([make_text(seed) for seed in range(5)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
