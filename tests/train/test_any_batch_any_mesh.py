"""Batches are completed, or refused by name and shape."""

import jax
import numpy as np
import optax
import pytest

import stilts_jax as sj
from stilts_jax.errors import TrainingError
from stilts_jax.train.losses import LOSSES, complete_batch

MODEL = sj.Model(sj.SHAPES["tiny"], (("nli", sj.HeadConfig(kind="classify", num_labels=3)),))
BATCH = {"tokens": np.full((8, 6), 7), "label": np.arange(8) % 3}
KEY = jax.random.key(0)
TX = optax.sgd(0.1)


def step(state, batch):
    return sj.train_step(state, batch, loss_fn=sj.make_loss(MODEL, "nli"), tx=TX, key=KEY)


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_what_is_missing_is_named(kind):
    sizes = {"B": 2, "C": 3, "T": 4, "U": 5, "M": 1}
    shapes = LOSSES[kind][1].items()
    whole = {name: np.zeros([sizes[letter] for letter in letters], np.int32) for name, letters in shapes}
    assert complete_batch(whole, kind, "here")["weight"].tolist() == [1, 1]
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
    ],
)
def test_what_has_a_wrong_shape_is_named(changes, words):
    state = jax.eval_shape(lambda: sj.init_state(MODEL, TX, KEY))
    with pytest.raises(TrainingError, match=words):
        jax.eval_shape(step, state, BATCH | changes)
