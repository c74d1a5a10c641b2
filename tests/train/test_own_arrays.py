import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "train_own_arrays.py"


@pytest.mark.slow
def test_the_example_is_short_and_learns():
    assert len(SCRIPT.read_text("utf-8").splitlines()) < 40
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"held out: accuracy ([\d.]+)", done.stdout)[1]) > 0.8
