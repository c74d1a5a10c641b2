"""The parts in other people's code: transformations with random keys, layers that are none, rows that are none."""

import jax
import numpy as np
import optax
import pytest

import stilts_jax as sj
from stilts_jax.errors import ConfigError
from stilts_jax.experiment import evaluate
from stilts_jax.features.records import Features, Ragged
from stilts_jax.tasks.spec import EmbedExample, RetrievalSet

pytestmark = pytest.mark.slow
KEY = jax.random.key(0)


def make_model(**head):
    return sj.Model(
        sj.SHAPES["tiny"], (("mine", sj.HeadConfig(**{"kind": "classify", "num_labels": 2} | head)),)
    )


@pytest.mark.parametrize("skip", [False, True])
def test_noise_of_optax_keeps_its_random_key(skip):
    model, tx = make_model(), optax.chain(optax.add_noise(0.01, 0.5, 0), optax.sgd(0.1))
    state, loss = sj.init_state(model, tx, KEY), sj.make_loss(model, "mine")
    batch = {"tokens": np.full((2, 8), 5), "label": np.zeros(2, int)}
    keys = [jax.random.key_data(state.moments[0].rng_key)]
    for _ in range(2):
        state, _ = sj.train_step(state, batch, loss_fn=loss, tx=tx, key=KEY, skip_non_finite=skip)
        keys.append(jax.random.key_data(state.moments[0].rng_key))
    assert len({key.tobytes() for key in map(np.asarray, keys)}) == 3


def make_features(rows, kind="embed"):
    columns = {"tokens": Ragged.from_list(rows), "example": np.arange(len(rows))}
    return Features(kind, columns | {"language": np.zeros(len(rows), int)}, ("en",), len(rows))


@pytest.mark.parametrize("layer", [(), [0, 1], "all"])
def test_what_is_no_layer_is_named(layer):
    model = make_model()
    params = sj.init_params(model, KEY)
    with pytest.raises(ConfigError, match="a tuple of one or more"):
        sj.predict(model, params, make_features([[0, 7, 2]]), head=None, layer=layer)


@pytest.mark.parametrize("head", [None, "mine"])
def test_features_without_rows_are_refused(head):
    """They gave a dict without the arrays that are promised."""
    model = make_model()
    params = sj.init_params(model, KEY)
    with pytest.raises(ConfigError, match="There are no rows"):
        sj.predict(model, params, make_features([], "classify" if head else "embed"), head=head)


def test_all_hosts_sweep_over_the_layers_alike(monkeypatch):
    """Each would go by its own memory, and so run other programs than the rest."""
    monkeypatch.setattr(evaluate, "total_memory", lambda: 2**40)
    monkeypatch.setattr(evaluate, "from_main", lambda read: 64)
    texts = [EmbedExample("1", "a")]
    sets = {"de": RetrievalSet(texts, texts, {"1": ("1",)})}
    assert evaluate._cut_sweep(2, 4, sets) == [(0,), (1,), (2,)]


@pytest.mark.parametrize("dtype", ["int8", "float16", "nope"])
def test_an_export_in_other_numbers_is_refused(tmp_path, dtype):
    """In int8 it wrote weights that were all cut to zero."""
    model = make_model()
    params = sj.init_params(model, KEY)
    with pytest.raises(ConfigError, match="float32"):
        sj.export_encoder(tmp_path / "made", model.encoder, params["encoder"], dtype=dtype)
    assert not (tmp_path / "made").exists()
