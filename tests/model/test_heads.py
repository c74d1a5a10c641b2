"""Heads: both forms and both initialisations, by hand; dropout; what training with them needs."""

import jax
import numpy as np
import pytest

from stilts_jax.model import HeadConfig, Model, apply_model, encode, init_head

FORMS = dict.fromkeys(("classify", "choice", "tag", "span", "embed", "mlm"), "transformers")
FORMS |= {"classify-jiant": "jiant", "choice-jiant": "jiant"}
ALL = tuple(
    (name, HeadConfig(kind=name.split("-")[0], num_labels=3, pooling="pooler", form=form))
    for name, form in FORMS.items()
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


@pytest.mark.parametrize("kind", ["classify", "choice"])
def test_the_authors_own_heads(setup, kind):
    """The form of jiant; tests/model/test_golden.py has that of transformers."""
    _, encoder, heads, tokens, hidden = setup
    pooled, head = np.tanh(dense(hidden[:, 0], encoder["pooler"])), heads[f"{kind}-jiant"]
    expected = dense(np.tanh(dense(pooled, head["dense"])), head["out"])
    batch = {"tokens": tokens}
    if kind == "choice":
        batch = {"tokens": tokens.reshape(2, 2, -1), "choice_mask": np.array([[1, 1], [1, 0]], np.float32)}
        expected = np.where(batch["choice_mask"] > 0, expected.reshape(2, 2), -1e30)
    found = np.asarray(run(setup, f"{kind}-jiant", batch)["logits"])
    np.testing.assert_allclose(np.maximum(found, -1e30), expected, rtol=0, atol=1e-5)


def test_the_mean_of_a_layer(maker, exact, setup):
    model, encoder, _, tokens, _ = setup
    head = HeadConfig(kind="embed", layer=2)
    model = Model(model.encoder, (("sentences", head),), exact)
    found = apply_model(model, {"encoder": encoder, "head": {}}, {"tokens": tokens}, head="sentences")
    states = encode(encoder, tokens, config=model.encoder, compute=exact, all_hidden=True)[2]
    means = np.stack([np.asarray(state)[row != 1].mean(0) for state, row in zip(states, tokens)])
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    np.testing.assert_allclose(found["vectors"], means, rtol=0, atol=1e-6)


def test_dual_encoders(setup):
    _, _, heads, tokens, hidden = setup
    head = heads["embed"]
    found = run(setup, "embed", {"tokens": tokens, "pair_tokens": tokens[::-1]})
    vectors = np.tanh(dense(hidden[:, 0], head["pooler"]))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    np.testing.assert_allclose(found["vectors"], vectors, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["pair_vectors"], vectors[::-1], rtol=0, atol=1e-5)
    assert found["logit_scale"] == head["logit_scale"]


@pytest.mark.parametrize("head", [head for _, head in ALL], ids=list(FORMS))
def test_initial_values(maker, head):
    config = maker.config(hidden_size=120, num_heads=4, vocab_size=300)
    modern = init_head(head, config, jax.random.key(0))
    for path, leaf in jax.tree_util.tree_flatten_with_path(modern)[0]:
        name = path[-1].key
        if name == "kernel":
            assert np.std(leaf) == pytest.approx(0.02, rel=0.25)
        else:
            assert (leaf == {"scale": 1, "logit_scale": 100}.get(name, 0)).all()
    authors = init_head(maker.replace(head, init="jiant"), config, jax.random.key(0))
    bound = 1 / np.sqrt(120)
    for part in {"dense", "out", "pooler"} & authors.keys():
        for leaf in authors[part].values():
            assert np.abs(leaf).max() <= bound, part
            assert leaf.size < 100 or np.std(leaf) == pytest.approx(bound / np.sqrt(3), rel=0.2)
