"""A shrunken XXL on eight devices against one, and what a state takes on each of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def run(program, environment, *arguments):
    """What a program of this folder prints, in a process of its own with eight devices."""
    path = f"{HERE.parents[1]}:{environment.get('PYTHONPATH', '')}"
    command = [sys.executable, str(HERE / program), *arguments]
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # XLA says so where it can't change how an array is cut but by gathering it whole on every device.
    assert "full rematerialization" not in done.stderr, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_agree_with_one(environment) -> None:
    fast = " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    runs = run("sharded_step.py", environment | {"XLA_FLAGS": environment["XLA_FLAGS"] + fast})
    assert len(runs) == 3
    for name, errors in runs.items():
        assert max(errors.values()) < 1e-4, (name, errors)


@pytest.mark.parametrize("shape", ["tiny", "xxl"])
def test_no_device_holds_more_than_its_share(shape, environment):
    """Nothing of a state is ever whole on one device: from the first array to the export (defect A6)."""
    stages = run("born_sharded.py", environment, shape)
    assert set(stages) == {
        *("initialise", "export", "load", "step", "save", "restore", "vocabulary", "evaluate", "select")
    }
    for name, found in stages.items():
        assert not found.get("wrong"), name
        assert len(found["peak"]) == 8 and max(found["peak"]) <= 1.1 * found["share"] + 2**20, name
