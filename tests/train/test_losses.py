import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.train.losses import LOSSES, class_loss

RANDOM = np.random.default_rng(0)


def _log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


def _check(kind, outputs, batch, loss, weight):
    outputs = {name: jnp.asarray(array) for name, array in outputs.items()}
    total, weights, _ = jax.jit(LOSSES[kind])(
        outputs, {name: jnp.asarray(array) for name, array in batch.items()}
    )
    assert total.dtype == weights.dtype == jnp.float32
    np.testing.assert_allclose(total, loss, rtol=1e-5)
    np.testing.assert_allclose(weights, weight, rtol=1e-6)


def test_there_is_one_for_each_kind():
    assert set(LOSSES) == {"classify", "choice", "tag", "span", "embed", "mlm"}


def test_classes():
    logits = RANDOM.normal(size=(4, 3)).astype(np.float32)
    label, weight = np.array([2, 0, -1, 1]), np.array([1, 1, 1, 0], np.float32)
    scores = _log_softmax(logits)
    _check(
        "classify", {"logits": logits}, {"label": label, "weight": weight}, -scores[0, 2] - scores[1, 0], 2
    )


def test_votes_are_targets_of_all_classes():
    logits = np.array([[0.0, 2.0, -1.0], [1.0, 0.0, 0.0]])
    votes = np.array([[1, 1, 0, -1], [2, 2, 2, 2]])  # targets 1/3, 2/3, 0 and 0, 0, 1
    targets = np.array([[1 / 3, 2 / 3, 0], [0, 0, 1]])
    chance = 1 / (1 + np.exp(-logits))
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
    expected = -sum(
        scores[row, place, tags[row, place]] for row, place in [(0, 1), (0, 3), (1, 1), (1, 2), (1, 3)]
    )
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


@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_bfloat16_logits_are_summed_in_float32(kind):
    shape = (64, 3) if kind == "classify" else (8, 8, 3)
    logits = jnp.asarray(RANDOM.normal(size=shape), jnp.bfloat16)
    targets = RANDOM.integers(0, 3, shape[:-1])
    batch = {"label": targets, "tags": targets, "weight": np.ones(shape[0], np.float32)}
    scores = _log_softmax(np.asarray(logits, np.float64))
    expected = -np.take_along_axis(scores, targets[..., None], -1).sum()
    _check(kind, {"logits": logits}, batch, expected, 64)


def test_an_infinite_filler_row_does_not_spoil_the_sum():
    logits = np.array([[1.0, 2.0], [np.inf, np.inf]], np.float32)
    batch = {"label": np.array([1, 0]), "weight": np.array([1, 0], np.float32)}
    _check("classify", {"logits": logits}, batch, np.log1p(np.exp(-1.0)), 1)
