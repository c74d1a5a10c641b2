"""What dropout depends on, and what it does not: microbatches, devices and the length that rows are padded to."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from stilts_jax.model import SHAPES, HeadConfig, Model, init_params
from stilts_jax.model.config import Compute
from stilts_jax.model.layers import drop, row_keys, split
from stilts_jax.train.losses import make_loss

SHAPE = replace(
    SHAPES["tiny"], hidden_size=16, num_heads=2, intermediate_size=32, num_layers=2, vocab_size=64
)


def test_a_share_of_the_values_is_dropped_and_the_mean_stays():
    values = np.ones((300, 7, 501), np.float32)
    found = np.asarray(drop(values, 0.2, jax.random.key(3)))
    np.testing.assert_allclose(np.unique(found), [0.0, 1.25], rtol=1e-5)
    dropped = found == 0
    assert abs(dropped.mean() - 0.2) < 0.002
    # As binomial as independent draws are, along each axis; and neighbours do not go together.
    for axis in range(3):
        spread = dropped.mean(axis).std() / np.sqrt(0.16 / dropped.shape[axis])
        assert 0.9 < spread < 1.1
        first, second = (
            np.take(dropped, range(a, dropped.shape[axis] - 1 + a), axis).ravel() for a in (0, 1)
        )
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    assert drop(values, 0.2, None) is values


def test_sites_steps_and_generators():
    values = np.ones((4, 5, 64), np.float32)
    key = jax.random.key(0)
    one, other = (np.asarray(drop(values, 0.5, site)) for site in split(row_keys(key, 4), 2))
    assert 0.4 < (one != other).mean() < 0.6
    # The device's own generator may be named by the key; it makes no bits.
    named = jax.random.key(0, impl="rbg")
    np.testing.assert_array_equal(drop(values, 0.5, key), drop(values, 0.5, named))


@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.9999])
def test_rates_at_the_edges(rate):
    found = np.asarray(drop(np.ones((64, 4096), np.float32), rate, jax.random.key(1)))
    assert abs((found == 0).mean() - rate) < 5e-4


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "answer"), [("classify", "label"), ("tag", "tags")])
def test_rows_lose_the_same_in_any_company_and_at_any_length(kind, answer):
    """Each row's loss alone, with its own key, is its loss in the batch; pads behind it change nothing."""
    model = Model(SHAPE, (("h", HeadConfig(kind=kind, num_labels=3)),), Compute(matmul_precision="highest"))
    params = init_params(model, jax.random.key(0))
    params = {"encoder": params["encoder"], "head": params["heads"]["h"]}
    draw = np.random.default_rng(0)
    tokens = draw.integers(4, 64, (4, 10)).astype(np.int32)
    answers = draw.integers(0, 3, 4 if kind == "classify" else (4, 10)).astype(np.int32)
    loss, keys = make_loss(model, "h"), row_keys(jax.random.key(5), 4)
    sum_of = lambda rows, keys: float(loss(params, rows, keys)[0])  # noqa: E731
    whole = sum_of({"tokens": tokens, answer: answers}, keys)
    alone = [
        sum_of({"tokens": tokens[row : row + 1], answer: answers[row : row + 1]}, keys[row : row + 1])
        for row in range(4)
    ]
    assert whole == pytest.approx(sum(alone), rel=1e-5)
    assert abs(whole - sum_of({"tokens": tokens, answer: answers}, None)) > 1e-4
    longer = np.pad(tokens, [(0, 0), (0, 6)], constant_values=1)
    answers = answers if kind == "classify" else np.pad(answers, [(0, 0), (0, 6)], constant_values=-1)
    assert whole == pytest.approx(sum_of({"tokens": longer, answer: answers}, keys), rel=1e-5)


def test_a_mesh_needs_no_communication_for_it():
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("data",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    values = jax.device_put(np.ones((16, 4, 8), np.float32), place)
    compiled = (
        jax.jit(partial(drop, rate=0.5, keys=jax.random.key(0)), out_shardings=place).lower(values).compile()
    )
    assert not any(word in compiled.as_text() for word in ("all-gather", "all-reduce", "collective-permute"))
