"""What the encoder promises beside being right: policies change nothing, depth costs no compile, misuse says so."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stilts_jax.errors import ConfigError
from stilts_jax.model import Compute, HeadConfig, Model, apply_model, encode, encoder, init_encoder
from stilts_jax.model.encoder import take_layers_apart, writes_layers_out
from stilts_jax.model.layers import Norm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "policies"), [("xlm-roberta", ("attention", "dots", "full")), ("xlm-roberta-xl", ("full",))]
)
def test_computing_again_changes_nothing(maker, exact, family, policies):
    """With dropout on: what is computed again must draw the same numbers again."""
    config = maker.config(family, hidden_dropout=0.2, attention_dropout=0.2)
    tokens, key = (
        maker.tokens(config),
        jax.random.key(1, impl="unsafe_rbg"),
    )  # compiles faster than the default
    weights = np.random.default_rng(0).normal(size=(*tokens.shape, config.hidden_size)).astype(np.float32)

    def run(remat):
        compute = maker.replace(exact, remat=remat)
        run = partial(encode, tokens=tokens, config=config, compute=compute, dropout_key=key)
        return jax.jit(jax.value_and_grad(lambda p: (run(p) * weights).sum()))(maker.encoder(config))

    expected, expected_gradients = run("none")
    for remat in policies:
        found, gradients = run(remat)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients)):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1, np.abs(theirs).max()))


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


@pytest.mark.parametrize("family", ["xlm-roberta", "xlm-roberta-xl"])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 1}, {"num_layers": 0, "all_hidden": True}, {"all_hidden": True}], ids=str
)
def test_layers_apart_are_those_of_the_stack(maker, exact, family, options):
    config = maker.config(family, hidden_size=encoder._WIDE, num_heads=4)
    assert writes_layers_out(config, exact)
    params = maker.encoder(config)
    apart = params | {"layers": take_layers_apart(params["layers"])}
    run = partial(encode, tokens=maker.tokens(config), config=config, compute=exact, **options)
    np.testing.assert_allclose(run(apart), run(params), rtol=0, atol=1e-6)
    looped = run(params, compute=maker.replace(exact, remat="full"))
    np.testing.assert_allclose(run(apart), looped, rtol=0, atol=1e-5)


def test_the_program_does_not_grow_with_depth(maker, exact):
    def length(layers):
        config = maker.config(num_layers=layers)
        shapes = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0)))
        tokens = jax.ShapeDtypeStruct((2, 8), jnp.int32)
        run = jax.grad(lambda p, t: encode(p, t, config=config, compute=exact).sum())
        return len(jax.jit(run).lower(shapes, tokens).as_text().splitlines())

    assert length(30) == length(40)


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
    size = 0 if config.post_norm else 1
    np.testing.assert_allclose(np.median(state.std(-1)), size, rtol=0, atol=1e-2)


def test_a_large_mean_does_not_spoil_the_norm(maker):
    config = maker.config()
    norm = Norm(config, Compute(), nnx.Rngs(0))
    values = np.random.default_rng(0).normal(size=(4, config.hidden_size)).astype(np.float32)
    expected = (values - values.mean(-1, keepdims=True)) / np.sqrt(values.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(values + 300)), expected, rtol=0, atol=1e-4)


def test_more_pads_change_nothing(maker, exact):
    config = maker.config()
    params = maker.encoder(config)
    short, long = maker.tokens(config, length=9), maker.tokens(config, length=17)
    long[:, :9] = short
    run = jax.jit(partial(encode, config=config, compute=exact))
    expected, found = run(params, short), run(params, long)
    real = short != 1
    np.testing.assert_allclose(found[:, :9][real], expected[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({"num_layers": 4}, "Layer 4 of an encoder of 3"),
        ({"num_layers": -1}, "Layer -1"),
        ({"segments": np.ones((4, 9), np.int32)}, "segments and positions"),
        ({"tokens": np.full((1, 19), 5, np.int32)}, "positions for 18"),
        ({"compute": Compute(attention="splash")}, "TPU kernel"),
    ],
    ids=["too deep", "negative", "segments alone", "too long", "no such chip"],
)
def test_misuse_says_what_is_wrong(maker, exact, options, because):
    config = maker.config()
    call = {"tokens": maker.tokens(config), "config": config, "compute": exact, **options}
    with pytest.raises(ConfigError, match=because):
        encode(maker.encoder(config), **call)
