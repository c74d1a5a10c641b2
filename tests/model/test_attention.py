"""Backends agree, packed rows equal the rows they were packed from, and what can't be done says why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.errors import ConfigError
from stilts_jax.model import Compute, choose_backend
from stilts_jax.model.layers import attention


def heads(shape, count=3, seed=0, dtype=np.float32):
    draw = np.random.default_rng(seed)
    return [draw.normal(size=shape).astype(dtype) for _ in range(count)]


def by_hand(query, key, value, visible):
    """Row by row and head by head, in float64."""
    out = np.zeros(query.shape)
    for row in range(query.shape[0]):
        for head in range(query.shape[2]):
            for place in range(query.shape[1]):
                seen = np.flatnonzero(visible[row, place])
                scores = key[row, seen, head].astype(np.float64) @ query[row, place, head]
                shares = np.exp((scores - scores.max()) / np.sqrt(query.shape[-1]))
                out[row, place, head] = shares / shares.sum() @ value[row, seen, head]
    return out


def test_plain_attention_equals_attention_by_hand():
    query, key, value = heads((3, 6, 2, 4))
    mask = np.arange(6) < np.array([6, 2, 1])[:, None]
    segments = np.array([[1, 1, 2, 2, 2, 0], [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1]], np.int32)
    together = segments[:, :, None] == segments[:, None]
    for given, visible in ((mask, np.repeat(mask[:, None], 6, 1)), (segments, together)):
        found = attention(query, key, value, jnp.asarray(given))
        np.testing.assert_allclose(found, by_hand(query, key, value, visible), rtol=0, atol=1e-6)


def test_splash_equals_plain_attention_with_gradients():
    query, key, value = heads((1, 256, 2, 16))
    segments = jnp.asarray(np.repeat([[1, 2, 3, 0]], 64, axis=1).reshape(1, 256))
    weights = heads((1, 256, 2, 16), 1, seed=1)[0] * (np.asarray(segments) > 0)[..., None, None]

    def loss(arrays, backend):
        found = attention(*arrays, segments, backend=backend)
        return (found * weights).sum(), found

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (_, plain), plain_gradients = run((query, key, value), "xla")
    (_, fast), fast_gradients = run((query, key, value), "splash-interpret")
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-5)
    for ours, theirs in zip(fast_gradients, plain_gradients):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "platform", "changes", "name", "because"),
    [
        ("auto", "cpu", {}, "xla", "cpu has no other"),
        ("auto", "gpu", {}, "cudnn", "fastest"),
        ("auto", "gpu", {"dropout": 0.1}, "xla", "attention dropout"),
        ("auto", "gpu", {"packed": True}, "xla", "segments"),
        ("auto", "gpu", {"head_dim": 136}, "xla", "at most 128"),
        ("auto", "tpu", {"packed": True}, "splash", "fastest"),
        ("auto", "tpu", {"dropout": 0.1}, "xla", "attention dropout"),
        ("auto", "tpu", {"seq_len": 96}, "xla", "multiple of 128"),
        ("cudnn", "cpu", {}, None, "NVIDIA"),
        ("cudnn", "gpu", {"dtype": "float32"}, None, "bfloat16"),
        ("cudnn", "gpu", {"dropout": 0.1}, None, "leave out attention dropout"),
        ("cudnn", "gpu", {"head_dim": 20}, None, "multiple of 8"),
        ("splash", "gpu", {}, None, "TPU kernel"),
        ("splash", "tpu", {"seq_len": 200}, None, "multiple of 128"),
    ],
)
def test_a_backend_says_why_it_was_taken_or_cannot_be(asked, platform, changes, name, because):
    options = {"seq_len": 256, "head_dim": 64, "dropout": 0.0, "packed": False, "gaps": False} | changes
    compute = Compute(dtype=options.pop("dtype", "bfloat16"), attention=asked)
    if name is None:
        with pytest.raises(ConfigError, match=because):
            choose_backend(compute, platform, **options)
    else:
        found = choose_backend(compute, platform, **options)
        assert found.name == name and because in found.reason


def test_cudnn_lowers_for_padded_rows(monkeypatch):
    """Nothing runs here: what is lowered is cuDNN's own call, with lengths and without a dense bias."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91900)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda _: False)
    shape = jax.ShapeDtypeStruct((2, 128, 4, 64), jnp.bfloat16)
    mask = jax.ShapeDtypeStruct((2, 128), bool)

    def loss(query, key, value, mask):
        return attention(query, key, value, mask, backend="cudnn").astype(jnp.float32).sum()

    lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(shape, shape, shape, mask)
    text = lowered.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmaxBackward" in text and "PADDING" in text and "ScaleBias" not in text


def test_attention_dropout_is_on_the_probabilities():
    """With values of one, an output is the sum of the probabilities that were kept, scaled up."""
    query, key, _ = heads((2, 8, 2, 4))
    ones, mask = jnp.ones((2, 8, 2, 4)), jnp.ones((2, 8), bool)
    found = attention(query, key, ones, mask, dropout=0.5, dropout_key=jax.random.key(0))
    assert np.ptp(np.asarray(found), axis=(0, 1)).min() > 0.1
    np.testing.assert_allclose(found, np.broadcast_to(found[..., :1], found.shape))
