import io

import jax.numpy as jnp
import pytest

from stilts_jax.experiment.trace import Traced
from stilts_jax.progress import Progress


@pytest.mark.parametrize(("steps", "profiled"), [(4, 2), (30, 10)])
def test_a_profile_that_viewers_open(steps, profiled, tmp_path):
    said = io.StringIO()
    with Traced(lambda step: jnp.ones(step + 1).sum(), tmp_path / "trace", steps, Progress(said)) as traced:
        assert [float(traced(step)) for step in range(steps)] == [step + 1 for step in range(steps)]
    assert f"a profile of {profiled} steps is in {tmp_path / 'trace'}" in said.getvalue()
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))  # what TensorBoard reads
    assert list((tmp_path / "trace").rglob("*.trace.json.gz"))  # what Perfetto reads


def test_a_run_that_was_done_before_says_that_there_is_no_profile(tmp_path):
    said = io.StringIO()
    with Traced(str, tmp_path / "trace", 30, Progress(said)):
        pass
    assert "no profile was written" in said.getvalue()
    assert not (tmp_path / "trace").exists()


def test_nothing_is_profiled_unasked():
    said = io.StringIO()
    with Traced(str, None, 4, Progress(said)) as traced:
        assert [traced(step) for step in range(4)] == ["0", "1", "2", "3"]
    assert not said.getvalue()
