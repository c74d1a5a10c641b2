"""A shrunken XXL on eight devices against one; the rules against the model's real trees."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from stilts_jax import sharding
from stilts_jax.model.config import SHAPES, HeadConfig, Model
from stilts_jax.model.heads import abstract_params

HERE = Path(__file__).parent


def run(program, environment, *arguments):
    """What a program of this folder prints, in a process of its own with eight devices."""
    path = f"{HERE.parents[1]}:{environment.get('PYTHONPATH', '')}"
    command = [sys.executable, str(HERE / program), *arguments]
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_eight_devices_agree_with_one(environment) -> None:
    fast = " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    runs = run("sharded_step.py", environment | {"XLA_FLAGS": environment["XLA_FLAGS"] + fast})
    assert len(runs) == 3
    for name, errors in runs.items():
        assert max(errors.values()) < 1e-4, (name, errors)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["tiny", "xxl"])
def test_no_device_holds_more_than_its_share(shape, environment):
    """Nothing of a state is ever whole on one device: from the first array to the export (defect A6)."""
    stages = run("born_sharded.py", environment, shape)
    assert set(stages) == {
        *("initialise", "export", "load", "step", "save", "restore", "vocabulary", "evaluate")
    }
    for name, found in stages.items():
        assert not found.get("wrong"), name
        assert found["peak"] <= 1.1 * found["share"] + 2**20, name


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
