"""Losses by hand in float64; the chunked cross-entropy equals the plain one and never holds all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.train.losses import LOSSES, chunked_cross_entropy, class_loss

RANDOM = np.random.default_rng(0)


def _log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _check(kind, outputs, batch, loss, weight):
    total, weights, _ = jax.jit(LOSSES[kind][0])(*jax.tree.map(jnp.asarray, (outputs, batch)))
    assert total.dtype == weights.dtype == jnp.float32
    np.testing.assert_allclose(total, loss, rtol=1e-5)
    np.testing.assert_allclose(weights, weight, rtol=1e-6)


def test_classes():
    logits = RANDOM.normal(size=(4, 3)).astype(np.float32)
    label, weight = np.array([2, 0, -1, 1]), np.array([1, 1, 1, 0], np.float32)
    logits[3] = np.inf  # a filler row does not spoil the sum
    scores, batch = _log_softmax(logits[:2]), {"label": label, "weight": weight}
    _check("classify", {"logits": logits}, batch, -scores[0, 2] - scores[1, 0], 2)


def test_votes_are_targets_of_all_classes():
    logits = np.array([[0.0, 2.0, -1.0], [1.0, 0.0, 0.0]])
    votes = np.array([[1, 1, 0, -1], [2, 2, 2, 2]])  # targets 1/3, 2/3, 0 and 0, 0, 1
    targets, chance = np.array([[1 / 3, 2 / 3, 0], [0, 0, 1]]), 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(chance) + (1 - targets) * np.log(1 - chance)).sum(1)
    weight = np.array([1.0, 0.5])
    batch = {"votes": votes, "label": np.array([1, 2]), "weight": weight}
    loss, total, report = class_loss({"logits": jnp.asarray(logits)}, batch)
    assert float(loss) == pytest.approx(float((expected * weight).sum()), rel=1e-6)
    assert (float(total), float(report["accuracy"])) == (1.5, pytest.approx(2 / 3))


def test_choices_that_are_masked():
    logits = RANDOM.normal(size=(2, 5)).astype(np.float32)
    logits[1, 4] = -1e30
    expected = -_log_softmax(logits)[0, 3] - _log_softmax(logits[1:, :4])[0, 1]
    batch = {"label": np.array([3, 1]), "weight": np.ones(2, np.float32)}
    _check("choice", {"logits": logits}, batch, expected, 2)


def test_every_tagged_word_counts_as_much():
    logits = RANDOM.normal(size=(3, 4, 6)).astype(np.float32)
    tags = np.array([[-1, 2, -1, 0], [-1, 5, 1, 1], [-1, 3, -1, -1]])
    scores = _log_softmax(logits)
    places = [(0, 1), (0, 3), (1, 1), (1, 2), (1, 3)]
    expected = -sum(scores[row, place, tags[row, place]] for row, place in places)
    _check("tag", {"logits": logits}, {"tags": tags, "weight": np.array([1, 1, 0], np.float32)}, expected, 5)


def test_spans_out_of_range_are_not_scored():
    start, end = RANDOM.normal(size=(2, 3, 7)).astype(np.float32)
    batch = {"start": np.array([0, 2, 3]), "end": np.array([0, 6, 7]), "weight": np.ones(3, np.float32)}
    one, other = _log_softmax(start), _log_softmax(end)
    expected = -(one[0, 0] + other[0, 0] + one[1, 2] + other[1, 6]) / 2
    _check("span", {"start_logits": start, "end_logits": end}, batch, expected, 2)


def test_partners_of_other_rows_are_the_negatives_and_filler_rows_are_none():
    vectors, pairs = RANDOM.normal(size=(2, 4, 5)).astype(np.float32)
    scores = _log_softmax(3.0 * vectors[:3].astype(np.float64) @ pairs[:3].T)
    outputs = {"vectors": vectors, "pair_vectors": pairs, "logit_scale": np.float32(3.0)}
    _check("embed", outputs, {"weight": np.array([1, 1, 1, 0], np.float32)}, -np.trace(scores), 3)


def test_only_masked_positions_are_predicted():
    features = RANDOM.normal(size=(2, 3, 8)).astype(np.float32)
    table, bias = RANDOM.normal(size=(50, 8)).astype(np.float32), RANDOM.normal(size=50).astype(np.float32)
    targets, weight = RANDOM.integers(0, 50, (2, 3)), np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    scores = _log_softmax(features.astype(np.float64) @ table.T + bias)
    expected = -scores[0, 0, targets[0, 0]] - scores[0, 1, targets[0, 1]] - scores[1, 0, targets[1, 0]]
    batch = {"masked_targets": targets, "masked_weights": weight, "weight": np.ones(2, np.float32)}
    _check("mlm", {"features": features, "table": table, "bias": bias}, batch, expected, 3)


def inputs(dtype, vocabulary=53):
    draw = np.random.default_rng(0)
    features = draw.normal(size=(2, 5, 8)).astype(dtype)
    table = draw.normal(size=(vocabulary, 8)).astype(dtype)
    bias = draw.normal(size=vocabulary).astype(dtype)
    targets = draw.integers(0, vocabulary, (2, 5)).astype(np.int32)
    targets[0, :2] = 0, vocabulary - 1
    return features, table, bias, targets, draw.normal(size=(2, 5)).astype(dtype)


def plain(features, table, bias, targets):
    logits = features @ table.T + bias
    return jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]


@pytest.mark.parametrize("chunk", [10, 53, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
def test_equal_to_the_plain_loss(chunk, dtype, tolerance):
    *arrays, targets, weights = inputs(np.dtype(dtype))
    with jax.enable_x64(dtype == "float64"):

        def run(loss):
            return jax.value_and_grad(lambda a: (loss(*a) * weights).sum())(tuple(arrays))

        value, gradients = jax.jit(run, static_argnums=0)(
            lambda f, t, b: chunked_cross_entropy(f, t, b, targets, chunk)
        )
        expected, expected_gradients = run(lambda f, t, b: plain(f, t, b, targets))
        assert value.dtype == dtype
        np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance)
        for ours, theirs in zip(gradients, expected_gradients):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def test_all_logits_never_exist():
    """No array of the compiled program, forwards or backwards, is as large as [positions, vocabulary]."""
    positions, vocabulary, width, chunk = 600, 5003, 16, 512
    shapes = [(positions, width), (vocabulary, width), (vocabulary,)]
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    shapes.append(jax.ShapeDtypeStruct((positions,), jnp.int32))

    def loss(features, table, bias, targets):
        return chunked_cross_entropy(features, table, bias, targets, chunk).sum()

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < positions * vocabulary * 4
    assert f"[{positions},{vocabulary}]" not in compiled.as_text()
