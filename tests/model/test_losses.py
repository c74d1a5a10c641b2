"""The chunked cross-entropy equals the plain one, gradients included, and never holds all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.model import chunked_cross_entropy


def inputs(dtype=np.float32, vocabulary=53):
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


@pytest.mark.parametrize("chunk", [1, 7, 10, 26, 52, 53, 1000])
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


def test_huge_logits_stay_finite():
    features, table, bias, targets, _ = inputs()
    loss = chunked_cross_entropy(1000 * features, table, bias, targets, 8)
    np.testing.assert_allclose(
        loss, plain(1000 * features.astype(np.float64), table, bias, targets), rtol=1e-5
    )
    gradient = jax.grad(lambda f: chunked_cross_entropy(f, table, bias, targets, 8).sum())(1000 * features)
    assert np.isfinite(gradient).all()


def test_half_precision_sums_in_float32():
    features, table, bias, targets, _ = inputs()
    loss = chunked_cross_entropy(features.astype(jnp.bfloat16), table, bias, targets, 8)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, plain(features, table, bias, targets), rtol=0.05, atol=0.05)


def test_all_logits_never_exist():
    """No array of the compiled program, forwards or backwards, is as large as [positions, vocabulary]."""
    positions, vocabulary, width, chunk = 600, 5003, 16, 512
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in [
            ((positions, width), jnp.float32),
            ((vocabulary, width), jnp.float32),
            ((vocabulary,), jnp.float32),
            ((positions,), jnp.int32),
        ]
    ]

    def loss(features, table, bias, targets):
        return chunked_cross_entropy(features, table, bias, targets, chunk).sum()

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < positions * vocabulary * 4
    assert f"[{positions},{vocabulary}]" not in compiled.as_text()
