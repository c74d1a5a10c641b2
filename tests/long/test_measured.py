"""The bench measures what it says, and digests of checkpoints do not depend on where an array lies."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from stilts_jax.checkpoint import digest_leaves
from stilts_jax.main import main


@pytest.mark.slow
def test_training_and_prediction_are_measured(capsys):
    arguments = "--shape=tiny --lengths=tagging --max_length=12 --batch_size=4 --rounds=2 --rows=16 --json"
    assert main(["bench", *arguments.split(), "--config.train.buckets=1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["dtype"] == "float32" and record["train"]["shapes"] == 1
    for part in ("train", "predict"):
        assert record[part]["examples_per_second"] > 0 and 0 <= record[part]["padding_share"] < 1
        assert 0 < record[part]["utilisation"] <= record[part]["utilisation_padded"]
    assert "phase vocabulary of" in record["train"]["settings"]


@pytest.mark.slow
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
