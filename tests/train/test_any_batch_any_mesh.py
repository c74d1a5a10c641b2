"""Batches are completed, or refused by name and shape."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

import stilts_jax as sj
from stilts_jax.errors import ConfigError, TrainingError
from stilts_jax.model.layers import row_keys
from stilts_jax.train.losses import LOSSES, complete_batch

MODEL = sj.Model(sj.SHAPES["tiny"], (("nli", sj.HeadConfig(kind="classify", num_labels=3)),))
BATCH = {"tokens": np.full((8, 6), 7), "label": np.arange(8) % 3}
KEY = jax.random.key(0)
TX = optax.sgd(0.1)


def step(state, batch):
    return sj.train_step(state, batch, loss_fn=sj.make_loss(MODEL, "nli"), tx=TX, key=KEY)


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_what_is_missing_is_named(kind):
    sizes, shapes = {"B": 2, "C": 3, "T": 4, "U": 5, "M": 1}, LOSSES[kind][1].items()
    whole = {name: np.zeros([sizes[letter] for letter in letters], np.int32) for name, letters in shapes}
    assert complete_batch(whole, kind, "here")["weight"].tolist() == [1, 1]
    with pytest.raises(TrainingError, match="tokens holds <U1, it must hold integers"):
        complete_batch(whole | {"tokens": whole["tokens"].astype(str).tolist()}, kind, "here")
    for name in whole:
        with pytest.raises(TrainingError, match=f"lacks {name}"):
            complete_batch({key: value for key, value in whole.items() if key != name}, kind, "here")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": np.zeros((8, 1), int)}, "label has the shape"),
        ({"label": np.zeros(7, int)}, "rows"),
        ({"weight": np.ones((8, 6))}, "weight has the shape"),
        ({"tokens": np.full((8, 2, 6), 7)}, "tokens has the shape"),
        ({"label": np.arange(8) > 3}, "label holds bool"),
    ],
)
def test_what_has_a_wrong_shape_is_named_within_a_program(changes, words, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # as users have it: then programs of ours have options
    state = jax.eval_shape(lambda: sj.init_state(MODEL, TX, KEY))
    with pytest.raises(TrainingError, match=words):
        jax.eval_shape(step, state, BATCH | changes)


def test_parameters_that_are_not_the_models_are_named():
    encoder = jax.eval_shape(lambda: sj.init_params(MODEL, KEY))["encoder"]
    wide = replace(MODEL, encoder=replace(MODEL.encoder, hidden_size=64))
    wrong = [(MODEL, {"encoder": one}, "missing") for one in ({"encoder": encoder}, encoder | {"layers": {}})]
    wrong += [(wide, {"encoder": encoder}, r"shape \(32,\); the model wants \(64,\)")]
    wrong += [(MODEL, {"encoder": MODEL}, "Model is no tree of parameters")]  # or what load_encoder returns
    wrong += [(MODEL, {"heads": {"nil": {}}}, "no head 'nil'"), (MODEL, {"heads": {"nli": {}}}, "missing")]
    for model, given, words in wrong:
        with pytest.raises(ConfigError, match=words):
            sj.init_state(model, TX, KEY, **given)
        with pytest.raises(ConfigError, match=words):
            sj.init_params(model, KEY, **given)
    with pytest.raises(ConfigError, match="no head 'nil'"):
        sj.check_batch(BATCH, {"encoder": encoder, "heads": {"nli": {}}}, "nil")


def test_targets_that_do_not_exist_are_named():
    params = jax.eval_shape(lambda: sj.init_params(MODEL, KEY))
    masked = {"masked_targets": np.array([[319, 320]]), "masked_weights": np.ones((1, 2))}
    sj.check_batch(masked | {"masked_weights": np.array([[1, 0]])}, params, "nli")
    wrong = [(masked, "to 320"), (masked | {"masked_weights": np.ones((1, 3))}, "to 320")]
    wrong += [({"votes": [[3, -1]]}, "to 3"), (BATCH | {"label": jax.numpy.zeros(8)}, "holds float32")]
    wrong += [({}, "no rows"), ({"label": np.zeros(0, int)}, "no rows")]
    wrong += [(BATCH | {"weight": np.full(8, weight)}, "no weights") for weight in (np.nan, -1)]
    for batch, words in (*wrong, ({"tokens": BATCH["tokens"]}, "nothing to learn from")):
        with pytest.raises(TrainingError, match=words):
            sj.check_batch(batch, params, "nli")


def test_a_key_of_the_older_form_is_as_good():
    states = [sj.init_state(MODEL, TX, key) for key in (jax.random.PRNGKey(0), KEY)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *(state.params for state in states)))
    old, new = (row_keys(jax.random.fold_in(key, 3), 4) for key in (jax.random.PRNGKey(0), KEY))
    assert (jax.random.key_data(old) == jax.random.key_data(new)).all()
