"""A shrunken XXL on eight devices against one; the rules against the model's real trees."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from stilts_jax import sharding
from stilts_jax.model.config import SHAPES, HeadConfig, Model
from stilts_jax.model.heads import abstract_params

PROGRAM = Path(__file__).with_name("sharded_step.py")
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.mark.slow
def test_eight_devices_agree_with_one() -> None:
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {FAST_COMPILATION}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = json.loads(done.stdout)
    assert len(runs) == 3
    for name, errors in runs.items():
        for path, error in errors.items():
            assert error < 1e-4, f"{name}: {path}"


def test_rules_and_the_models_trees_match_both_ways() -> None:
    heads = {
        "nli": HeadConfig(kind="classify", num_labels=3, form="jiant"),
        "copa": HeadConfig(kind="choice"),
        "ner": HeadConfig(kind="tag", num_labels=7),
        "squad": HeadConfig(kind="span"),
        "pairs": HeadConfig(kind="embed", pooling="pooler"),
        "mean": HeadConfig(kind="embed"),
        "mlm": HeadConfig(kind="mlm"),
        "vqa": HeadConfig(kind="classify", num_labels=3, patches=4, patch_width=12),
    }
    encoders = [SHAPES["tiny"], replace(SHAPES["tiny"], family="xlm-roberta-xl")]
    trees = [abstract_params(Model(encoder, tuple(heads.items()))) for encoder in encoders]
    paths = [item for tree in trees for item in sharding.parameter_paths(tree)]
    used = {sharding.find_rule(path, leaf.shape) for path, leaf in paths}  # raises where there is none
    assert used == set(sharding.RULES)


def test_every_matrix_of_the_published_shapes_is_cut() -> None:
    shapes = [name for name in SHAPES if name != "tiny"]
    mesh = jax.sharding.AbstractMesh((1, 16, 4), sharding.AXES)
    for name in shapes:
        params = abstract_params(Model(SHAPES[name], (("nli", HeadConfig(kind="classify", num_labels=3)),)))
        assert sharding.sharding_notes(params, mesh) == []
