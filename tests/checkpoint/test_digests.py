import os
import subprocess
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from stilts_jax.checkpoint import digest_leaves


def _reference(array):
    """The same number, written with Python's big integers."""
    words = np.frombuffer(np.ascontiguousarray(array).tobytes(), f"<u{min(array.dtype.itemsize, 4)}")
    total = 0
    for place, word in enumerate(words):
        factor = place * 0x9E3779B1 % 2**32
        factor = (factor ^ (factor >> 15)) * 0x85EBCA77 % 2**32
        total += int(word) * (factor | 1)
    return total % 2**32


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32, np.uint8, bool, np.float16])
def test_digests_are_those_of_a_plain_loop(dtype):
    array = np.random.default_rng(0).normal(0, 50, (5, 7, 3)).astype(dtype)
    assert digest_leaves({"a": {"b": jnp.asarray(array)}}) == {"a/b": _reference(array)}


def test_any_change_of_one_element_shows():
    assert digest_leaves({"a": {}}) == {}
    array = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    digest = digest_leaves([array])["0"]
    assert digest_leaves([array[::-1].copy()])["0"] != digest
    for place in [(0, 0), (39, 29), (7, 11)]:
        changed = array.copy()
        changed[place] = np.nextafter(changed[place], np.float32(9))
        assert digest_leaves([changed])["0"] != digest
    for bit in range(32):
        changed = array.copy()
        changed.view(np.uint32)[20, 3] ^= np.uint32(1 << bit)
        assert digest_leaves([changed])["0"] != digest


def test_digests_do_not_depend_on_how_an_array_is_cut():
    code = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from stilts_jax.checkpoint import digest_leaves
array = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
cuts = [P(), P("a"), P("b", "a"), P(None, ("a", "b"))]
print({digest_leaves([jax.device_put(array, NamedSharding(mesh, cut))])["0"] for cut in cuts})
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | flags, capture_output=True, text=True
    )
    array = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    assert done.stdout.strip() == str({digest_leaves([array])["0"]}), done.stderr
