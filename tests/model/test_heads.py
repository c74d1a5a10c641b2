"""Heads: both forms and both initialisations, by hand; dropout; what training with them needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.errors import ConfigError
from stilts_jax.model import (
    Compute,
    HeadConfig,
    Model,
    abstract_params,
    apply_model,
    encode,
    init_head,
    init_params,
    normalise,
    pool_mean,
)

KINDS = ["classify", "classify-jiant", "choice", "choice-jiant", "tag", "span", "embed", "mlm"]
ALL = tuple(
    (name, HeadConfig(kind=name.split("-")[0], num_labels=3, pooling="pooler"))
    if "-" not in name
    else (name, HeadConfig(kind=name.split("-")[0], num_labels=3, form="jiant"))
    for name in KINDS
)


def dense(inputs, layer):
    return inputs @ layer["kernel"] + layer["bias"]


@pytest.fixture(scope="module")
def setup(maker, exact):
    config = maker.config()
    model = Model(config, ALL, exact)
    encoder = {**maker.encoder(config), "pooler": maker.pooler(config)}
    heads = {name: maker.head(config, head) for name, head in ALL}
    tokens = maker.tokens(config)
    hidden = np.asarray(encode(encoder, tokens, config=config, compute=exact))
    return model, encoder, heads, tokens, hidden


def run(setup, name, batch, **options):
    model, encoder, heads, _, _ = setup
    return apply_model(model, {"encoder": encoder, "head": heads[name]}, batch, head=name, **options)


@pytest.mark.parametrize("name", KINDS[:4])
def test_heads_on_the_first_token(setup, name):
    _, encoder, heads, tokens, hidden = setup
    first = hidden[:, 0]
    if name.endswith("jiant"):
        first = np.tanh(dense(first, encoder["pooler"]))
    expected = dense(np.tanh(dense(first, heads[name]["dense"])), heads[name]["out"])
    if name.startswith("classify"):
        found = run(setup, name, {"tokens": tokens})["logits"]
    else:
        mask = np.array([[1, 1], [1, 0]], np.float32)
        expected = np.where(mask > 0, expected.reshape(2, 2), -1e30)
        found = run(setup, name, {"tokens": tokens.reshape(2, 2, -1), "choice_mask": mask})["logits"]
        found = np.where(np.asarray(found) < -1e30, -1e30, found)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_mean_of_a_layer(maker, exact, setup):
    model, encoder, _, tokens, _ = setup
    head = HeadConfig(kind="embed", layer=2)
    found = apply_model(
        Model(model.encoder, (("sentences", head),), exact),
        {"encoder": encoder, "head": {}},
        {"tokens": tokens},
        head="sentences",
    )
    states = encode(encoder, tokens, config=model.encoder, compute=exact, all_hidden=True)[2]
    means = np.stack([np.asarray(state)[row != 1].mean(0) for state, row in zip(states, tokens)])
    np.testing.assert_allclose(
        found["vectors"], means / np.linalg.norm(means, axis=-1, keepdims=True), rtol=0, atol=1e-6
    )
    assert set(found) == {"vectors"}


def test_dual_encoders(setup):
    _, _, heads, tokens, hidden = setup
    head = heads["embed"]
    found = run(setup, "embed", {"tokens": tokens, "pair_tokens": tokens[::-1]})
    vectors = np.tanh(dense(hidden[:, 0], head["pooler"]))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    np.testing.assert_allclose(found["vectors"], vectors, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["pair_vectors"], vectors[::-1], rtol=0, atol=1e-5)
    assert found["logit_scale"] == head["logit_scale"]


def test_pairs_need_something_to_train(setup):
    model, encoder, _, tokens, _ = setup
    model = Model(model.encoder, (("mean", HeadConfig(kind="embed")),), model.compute)
    pairs = {"tokens": tokens, "pair_tokens": tokens}
    with pytest.raises(ConfigError, match="nothing to train"):
        apply_model(model, {"encoder": encoder, "head": {}}, pairs, head="mean")


def test_nothing_but_pads_has_the_vector_zero_and_a_finite_gradient():
    hidden, tokens = jnp.ones((1, 4, 3)), jnp.ones((1, 4), jnp.int32)
    value, gradient = jax.value_and_grad(lambda h: normalise(pool_mean(h, tokens)).sum())(hidden)
    assert value == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["classify", "choice-jiant", "embed", "mlm"])
def test_dropout_changes_with_the_key_and_only_with_it(maker, setup, name):
    model, encoder, heads, tokens, _ = setup
    wet = ((name, maker.replace(model.head(name), dropout=0.5)),)
    config = maker.replace(model.encoder, hidden_dropout=0.2, attention_dropout=0.2)
    model, params = Model(config, wet, model.compute), {"encoder": encoder, "head": heads[name]}
    batch = maker.batch(name.split("-")[0], tokens)
    output = {"embed": "vectors", "mlm": "features"}.get(name, "logits")
    call = jax.jit(lambda key: apply_model(model, params, batch, head=name, dropout_key=key)[output])
    one, again, other = (np.asarray(call(jax.random.key(seed, impl="unsafe_rbg"))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    assert np.isfinite(one).all()


@pytest.mark.parametrize("kind", ["classify", "choice"])
def test_only_multiple_choice_has_no_dropout_in_front(setup, kind):
    """One unit alone reaches the output: it is dropped or doubled, and nothing else if nothing before it was."""
    model, encoder, heads, tokens, hidden = setup
    head = HeadConfig(kind=kind, num_labels=1, dropout=0.5)
    params = {
        "dense": heads["choice"]["dense"],
        "out": {"kernel": np.eye(24, 1), "bias": np.zeros(1)},
    }
    unit = np.tanh(dense(hidden[:, 0], params["dense"]))[:, 0].reshape(-1, 1)
    batch = {"tokens": tokens, "choice_mask": np.ones((4, 1), np.float32)}
    if kind == "choice":
        batch["tokens"] = tokens[:, None]
    model = Model(model.encoder, ((kind, head),), model.compute)
    run = jax.jit(
        lambda key: apply_model(
            model, {"encoder": encoder, "head": params}, batch, head=kind, dropout_key=key
        )["logits"]
    )
    found = np.concatenate([run(jax.random.key(seed)) for seed in range(5)], 1)
    kept = found != 0
    assert 4 <= kept.sum() <= 16
    same = np.isclose(found[kept], np.broadcast_to(2 * unit, found.shape)[kept], rtol=0, atol=1e-5)
    assert same.all() if kind == "choice" else not same.any()


@pytest.mark.parametrize("head", [head for _, head in ALL], ids=KINDS)
def test_initial_values(maker, head):
    config = maker.config(hidden_size=120, num_heads=4, vocab_size=300)
    modern = init_head(head, config, jax.random.key(0))
    for path, leaf in jax.tree_util.tree_flatten_with_path(modern)[0]:
        name = path[-1].key
        if name == "kernel":
            assert np.std(leaf) == pytest.approx(0.02, rel=0.25)
        elif name == "scale":
            assert (leaf == 1).all()
        elif name == "logit_scale":
            assert leaf == 100
        else:
            assert (leaf == 0).all()
    authors = init_head(maker.replace(head, init="jiant"), config, jax.random.key(0))
    bound = 1 / np.sqrt(120)
    for part in {"dense", "out", "pooler"} & authors.keys():
        for leaf in authors[part].values():
            assert np.abs(leaf).max() <= bound, part
            assert leaf.size < 100 or np.std(leaf) == pytest.approx(bound / np.sqrt(3), rel=0.2)


def test_parameters_of_a_model(maker):
    config = maker.config()
    model = Model(config, ALL)
    params = init_params(model, jax.random.key(0))
    assert jax.tree.map(jnp.shape, abstract_params(model)) == jax.tree.map(jnp.shape, params)
    # A head starts the same whatever stands beside it; and no two start equal.
    alone = init_params(Model(config, ALL[:1]), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, alone["heads"], {ALL[0][0]: params["heads"][ALL[0][0]]})
    first, second = (params["heads"][name]["dense"]["kernel"] for name in ("classify", "choice-jiant"))
    assert not np.array_equal(first, second)
    assert (params["encoder"]["embeddings"]["word"][1] == 0).all()
    # The pooler is there where a head reads it, and taken from the encoder where that has one.
    assert "pooler" in params["encoder"] and "pooler" not in alone["encoder"]
    trained = {**maker.encoder(config), "pooler": maker.pooler(config)}
    kept = init_params(model, jax.random.key(0), trained)["encoder"]
    jax.tree.map(np.testing.assert_array_equal, kept, trained)
    assert "pooler" not in init_params(Model(config, ALL[:1]), jax.random.key(0), trained)["encoder"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_computed_in_bfloat16_comes_close(setup, dtype):
    model, encoder, heads, tokens, _ = setup
    compute = Compute(dtype="bfloat16", param_dtype=dtype)
    params = {"encoder": encoder, "head": heads["tag"]}
    expected = apply_model(model, params, {"tokens": tokens}, head="tag")["logits"]
    model = Model(model.encoder, model.heads, compute)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    found = apply_model(model, params, {"tokens": tokens}, head="tag")["logits"]
    assert found.dtype == jnp.float32
    real = tokens != 1
    assert np.abs(np.asarray(found - expected))[real].max() < 0.15
    assert np.abs(np.asarray(found - expected))[real].mean() < 0.02
