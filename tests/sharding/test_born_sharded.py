"""Nothing of a state is ever whole on one device: from the first array to the export (defect A6)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("born_sharded.py")


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["tiny", "xxl"])
def test_no_device_holds_more_than_its_share(shape, environment):
    path = f"{PROGRAM.parents[2]}:{environment.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), shape],
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    stages = json.loads(done.stdout.splitlines()[-1])
    assert set(stages) == {
        *("initialise", "export", "load", "step", "save", "restore", "vocabulary", "evaluate")
    }
    for name, found in stages.items():
        assert not found.get("wrong"), name
        assert found["peak"] <= 1.1 * found["share"] + 2**20, name
