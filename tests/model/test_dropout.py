"""What dropout depends on, and what it does not: microbatches, devices and the length that rows are padded to."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from stilts_jax.model import SHAPES, HeadConfig, Model, init_params
from stilts_jax.model.config import Compute
from stilts_jax.model.dropout import drop, row_keys, split
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
@pytest.mark.parametrize("kind", ["classify", "choice", "tag", "mlm"])
def test_rows_lose_the_same_in_any_company_and_at_any_length(kind):
    """Each row's loss alone, with its own key, is its loss in the batch; pads behind it change nothing."""
    head = HeadConfig(kind=kind, num_labels=3)
    compute = Compute(matmul_precision="highest")
    model = Model(SHAPE, (("task", head),), compute)
    params = init_params(model, jax.random.key(0))
    params = {"encoder": params["encoder"], "head": params["heads"]["task"]}
    draw = np.random.default_rng(0)
    tokens = draw.integers(4, 64, (4, 2, 10) if kind == "choice" else (4, 10)).astype(np.int32)
    batch = {"tokens": tokens, "weight": np.ones(4, np.float32), "label": np.array([0, 1, 1, 0], np.int32)}
    batch |= {
        "choice_mask": np.ones((4, 2), np.float32),
        "tags": draw.integers(0, 3, (4, 10)).astype(np.int32),
    }
    batch |= {
        "segments": np.ones((4, 10), np.int32),
        "positions": np.tile(np.arange(10, dtype=np.int32), (4, 1)),
    }
    batch |= {
        "masked_positions": np.full((4, 1), 3, np.int32),
        "masked_targets": tokens.reshape(4, -1)[:, :1],
    }
    batch["masked_weights"] = np.ones((4, 1), np.float32)
    loss, keys = make_loss(model, "task"), row_keys(jax.random.key(5), 4)
    whole = float(loss(params, batch, keys)[0])
    dry = float(loss(params, batch, None)[0])
    rows = [{name: array[row : row + 1] for name, array in batch.items()} for row in range(4)]
    alone = [float(loss(params, one, keys[row : row + 1])[0]) for row, one in enumerate(rows)]
    assert whole == pytest.approx(sum(alone), rel=1e-5) and abs(whole - dry) > 1e-4
    fill = {"tokens": 1, "tags": -1, "segments": 0, "positions": 0}
    longer = {
        name: np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, 6)], constant_values=fill[name])
        if name in fill
        else array
        for name, array in batch.items()
    }
    assert whole == pytest.approx(float(loss(params, longer, keys)[0]), rel=1e-5)


def test_a_mesh_needs_no_communication_for_it():
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("data",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    values = jax.device_put(np.ones((16, 4, 8), np.float32), place)
    compiled = (
        jax.jit(partial(drop, rate=0.5, keys=jax.random.key(0)), out_shardings=place).lower(values).compile()
    )
    assert not any(word in compiled.as_text() for word in ("all-gather", "all-reduce", "collective-permute"))
