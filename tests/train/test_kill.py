import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "long" / "kill_training.py"


@pytest.mark.slow
def test_killed_at_three_points_is_the_run_in_peace():
    command = [sys.executable, str(SCRIPT), "--points", "3", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills in" in done.stdout and "equal byte for byte" in done.stdout
