"""What the encoder promises beside being right: policies change nothing, depth costs no compile, misuse says so."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stilts_jax.errors import ConfigError
from stilts_jax.model import SHAPES, Compute, HeadConfig, Model, apply_model, encode, encoder
from stilts_jax.model.layers import Norm, drop


@pytest.mark.parametrize("family", ["xlm-roberta", "xlm-roberta-xl"])
def test_layers_written_out_are_those_of_the_loop(maker, exact, family):
    """On a CPU wide layers are written out, and of the last one only what a sentence head reads is computed."""
    config = maker.config(family, hidden_size=encoder._WIDE, num_heads=4)
    head = HeadConfig(kind="classify", num_labels=3)
    params = {"encoder": maker.encoder(config), "head": maker.head(config, head)}
    batch = {"tokens": maker.tokens(config)}

    def run(remat):
        model = Model(config, (("h", head),), maker.replace(exact, remat=remat))

        def loss(params):
            logits = apply_model(model, params, batch, head="h")["logits"]
            return (logits * jnp.arange(logits.size).reshape(logits.shape)).sum(), logits

        (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return logits, gradients

    found, looped = run("none"), run("attention")
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(looped)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * max(1, np.abs(theirs).max()))


def test_a_fused_kernel_takes_all_queries_though_only_the_first_token_is_read(maker, exact):
    """The last of layers that are written out is cut to its first token under plain attention alone."""
    config = maker.config(max_positions=130)
    tokens = np.random.default_rng(0).integers(5, config.vocab_size - 1, (2, 128), np.int32)
    params, options = maker.encoder(config), {"config": config, "first_only": True}
    plain = encode(params, tokens, compute=exact, **options)
    fused = encode(params, tokens, compute=maker.replace(exact, attention="splash-interpret"), **options)
    assert plain.shape[1] == 1
    np.testing.assert_allclose(fused[:, :1], plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["xlm-roberta", "xlm-roberta-xl"])
def test_hidden_dropout_is_where_transformers_has_it(maker, exact, family):
    """With a rate near one, all that is dropped is zero in most rows; what is left shows what is not dropped."""
    config = maker.config(family, hidden_dropout=0.9999, num_layers=1)
    tokens, params = maker.tokens(config), maker.encoder(config)
    last = params["layers"]["ffn"]["norm"] if config.post_norm else params["final_norm"]
    last["scale"][:], last["bias"][:] = 1, 0
    if config.post_norm:
        params["layers"]["attention"]["norm"]["bias"][:] = 0
    run = partial(encode, config=config, compute=exact, all_hidden=True)
    embedded, state = np.asarray(jax.jit(run)(params, tokens, dropout_key=jax.random.key(0)))
    assert (embedded == 0).mean() > 0.99
    # Behind XL's second dense layer nothing is dropped: its last norm sees all of that layer's output.
    np.testing.assert_allclose(np.median(state.std(-1)), 0 if config.post_norm else 1, rtol=0, atol=1e-2)


def test_a_large_mean_does_not_spoil_the_norm(maker):
    config = maker.config()
    norm = Norm(config, Compute(), nnx.Rngs(0))
    values = np.random.default_rng(0).normal(size=(4, config.hidden_size)).astype(np.float32)
    expected = (values - values.mean(-1, keepdims=True)) / np.sqrt(values.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(values + 300)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({"num_layers": 4}, "Layer 4 of an encoder of 3"),
        ({"num_layers": -1}, "Layer -1"),
        ({"segments": np.ones((4, 9), np.int32)}, "segments and positions"),
        ({"tokens": np.full((1, 19), 5, np.int32)}, "positions for 18"),
        ({"compute": Compute(attention="splash")}, "TPU kernel"),
        ({"config": SHAPES["tiny"]}, "of 3 layers; the model has 2"),
    ],
    ids=["too deep", "negative", "segments alone", "too long", "no such chip", "another's layers"],
)
def test_misuse_says_what_is_wrong(maker, exact, options, because):
    config = maker.config()
    call = {"tokens": maker.tokens(config), "config": config, "compute": exact, **options}
    with pytest.raises(ConfigError, match=because):
        encode(maker.encoder(config), **call)


def test_a_share_of_the_values_is_dropped_and_the_mean_stays():
    values = np.ones((300, 7, 501), np.float32)
    found = np.asarray(drop(values, 0.2, jax.random.key(3)))
    np.testing.assert_allclose(np.unique(found), [0.0, 1.25], rtol=1e-5)
    dropped = found == 0
    assert abs(dropped.mean() - 0.2) < 0.002
    # As binomial as independent draws are, along each axis; and neighbours do not go together.
    for axis in range(3):
        assert 0.9 < dropped.mean(axis).std() / np.sqrt(0.16 / dropped.shape[axis]) < 1.1
        first, second = (np.take(dropped, range(a, dropped.shape[axis] - 1 + a), axis) for a in (0, 1))
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.01
    assert drop(values, 0.2, None) is values
