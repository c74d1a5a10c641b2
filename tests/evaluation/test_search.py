"""Tiled search against brute force in float64."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.errors import DataError
from stilts_jax.evaluation.search import find_neighbours, normalise

TILE = (32, 64)


def brute_force(source, target, k):
    """Indices by falling similarity, then by rising index; and the similarities."""
    similar = np.asarray(source, np.float64) @ np.asarray(target, np.float64).T
    order = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similar, order, axis=1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 4),
    st.sampled_from([1, 4, 20]),
    st.integers(0, 2),
)
def test_small_whole_numbers_are_exact_with_their_ties(seed, rows, columns, dimension, k, largest):
    # Products of small whole numbers are exact in float32: every tie is a tie, and most entries tie.
    generator = np.random.default_rng(seed)
    source = generator.integers(-largest, largest + 1, (rows, dimension)).astype(np.float32)
    target = generator.integers(-largest, largest + 1, (columns, dimension)).astype(np.float32)
    forward, backward = find_neighbours(source, target, k, tile=TILE)
    for found, (index, values) in (
        (forward, brute_force(source, target, k)),
        (backward, brute_force(target, source, k)),
    ):
        np.testing.assert_array_equal(found.index, index)
        np.testing.assert_array_equal(found.values, values)


@pytest.mark.parametrize("tile", [TILE, (64, 2048), None])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_unit_vectors_equal_float64_where_the_gap_is_wider_than_the_precision(tile, precision):
    generator = np.random.default_rng(1)
    source, target = (normalise(generator.standard_normal((count, 48))) for count in (700, 1500))
    found = find_neighbours(source, target, 4, tile=tile, precision=precision)
    for side, (x, y) in zip(found, ((source, target), (target, source))):
        index, values = brute_force(x, y, 5)
        gaps = values[:, :-1] - values[:, 1:]
        # An entry is certain if it is clear of the one before it and the one behind it.
        certain = (gaps > 1e-6) & np.concatenate([np.full((len(x), 1), True), gaps[:, :-1] > 1e-6], axis=1)
        assert certain.mean() > 0.99
        np.testing.assert_array_equal(side.index[certain], index[:, :4][certain])
        np.testing.assert_allclose(side.values, values[:, :4], atol=1e-6)


def test_empty_sets_and_k_beyond_the_set():
    none, three = np.zeros((0, 5), np.float32), np.eye(3, 5, dtype=np.float32)
    for forward, backward in (find_neighbours(none, three, 4), find_neighbours(three, none, 4)[::-1]):
        assert forward.index.shape == (0, 3)
        assert backward.index.shape == (3, 0)
    forward, backward = find_neighbours(three, three[:2], 4)
    assert forward.index.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert backward.index.tolist() == [[0, 1, 2], [1, 0, 2]]


def test_normalise():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]])
    np.testing.assert_allclose(normalise(vectors), [[0.6, 0.8], [0, 0], [1, 0]], atol=1e-7)
    with pytest.raises(DataError, match="1 of 2 embeddings") as caught:
        normalise(np.array([[1.0], [np.nan]]))
    assert "number 1" in caught.value.where


_ON_DEVICES = """
import numpy as np, jax
from jax.sharding import Mesh
from stilts_jax.evaluation.search import find_neighbours
assert jax.device_count() == 4
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "fsdp"))
generator = np.random.default_rng(0)
for largest in (1, 1000):
    source = generator.integers(-largest, largest + 1, (300, 3)).astype(np.float32)
    target = generator.integers(-largest, largest + 1, (170, 3)).astype(np.float32)
    for precision in ("float32", "bfloat16"):
        one = find_neighbours(source, target, 4, tile=(128, 64), precision=precision)
        four = find_neighbours(source, target, 4, tile=(128, 64), precision=precision, mesh=mesh)
        for a, b in zip(one, four):
            np.testing.assert_array_equal(a.index, b.index)
            np.testing.assert_array_equal(a.values, b.values)
"""


@pytest.mark.slow
def test_devices_share_the_rows():
    flags = "--xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _ON_DEVICES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
