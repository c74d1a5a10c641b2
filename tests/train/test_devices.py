"""The same global batches on 1, 2, 4 and 8 devices, in a process with eight forced CPU devices."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MESHES = {"1": (1, 1, 1), "2": (2, 1, 1), "4": (4, 1, 1), "8": (8, 1, 1), "2x2x2": (2, 2, 2)}
STEPS = 8


def _train_everywhere(folder):
    """Run by the fixture in a process of its own."""
    import jax
    import tiny_world

    from stilts_jax.errors import RunAgain
    from stilts_jax.sharding import MeshConfig, make_mesh

    def batch_at(step):
        # 12 rows: two microbatches on eight devices need four more.
        return tiny_world.batch_at(step - step % 2, rows=12)

    def run(name, shape, batch=batch_at, **options):
        mesh = make_mesh(MeshConfig(*shape), jax.devices()[: int(np.prod(shape))])
        return tiny_world.run(folder / name, steps=STEPS, mesh=mesh, batch=batch, **options)

    for name, shape in MESHES.items():
        result = run(name, shape)
        cut = {str(leaf.sharding.spec) for leaf in jax.tree.leaves(result.params)}
        print(name, sorted(cut))

    def stopping(step):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)
        return batch_at(step)

    try:
        run("8 then 2", MESHES["8"], stopping)
    except RunAgain:
        run("8 then 2", MESHES["2"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'tensor'" in done.stdout  # something was cut in three ways
    return folder


def _metrics(folder, name):
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == list(range(STEPS))
    scores = [line["score"] for line in lines if "score" in line]
    return np.array([[line["loss"], line["grad_norm"], line["weight"]] for line in training]), scores


@pytest.mark.slow
@pytest.mark.parametrize("name", [*list(MESHES)[1:], "8 then 2"])
def test_losses_and_gradients_do_not_depend_on_the_devices(folder, name):
    expected, expected_scores = _metrics(folder, "1")
    metrics, scores = _metrics(folder, name)
    np.testing.assert_allclose(metrics, expected, rtol=1e-5)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _train_everywhere(Path(sys.argv[1]))
