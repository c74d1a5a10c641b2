"""The same global batches on 1, 2, 4 and 8 devices and in two processes, each in processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
MESHES = {"1": (1, 1, 1), "2": (2, 1, 1), "4": (4, 1, 1), "8": (8, 1, 1), "2x2x2": (2, 2, 2)}
STEPS = 8


def train(folder, names):
    """Run by the tests in processes of their own."""
    import jax

    from stilts_jax.distributed import initialize
    from stilts_jax.errors import RunAgain
    from stilts_jax.sharding import MeshConfig, make_mesh
    from tests.train import tiny_world

    initialize()  # joins the other process where the environment names one

    def batch_at(step):
        # 12 rows: two microbatches on eight devices need four more.
        return tiny_world.batch_at(step - step % 2, rows=12)

    def stopping(step):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)
        return batch_at(step)

    def run(name, shape, batch=batch_at):
        mesh = make_mesh(MeshConfig(*shape), jax.devices()[: int(np.prod(shape))])
        return tiny_world.run(folder / name, steps=STEPS, mesh=mesh, batch=batch)

    for name in names:
        if name == "8 then 2":
            try:
                run(name, MESHES["8"], stopping)
            except RunAgain:
                run(name, MESHES["2"])
        else:
            result = run(name, MESHES.get(name, MESHES["2"]))
            print(name, sorted({str(leaf.sharding.spec) for leaf in jax.tree.leaves(result.params)}))


def start(folder, names, devices, **place):
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment |= {f"JAX_{name}": value for name, value in place.items()}
    command = [sys.executable, __file__, str(folder), "+".join(names)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(*processes):
    said = [process.communicate(timeout=300) for process in processes]
    assert not any(process.returncode for process in processes), said
    return said[0][0]


def metrics_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(STEPS))
    names = ("loss", "grad_norm", "weight", "score")
    return np.array([[line.get(name, 0) for name in names] for line in lines])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    said = finish(start(folder, [*MESHES, "8 then 2"], 8))
    assert "'tensor'" in said  # something was cut in three ways
    return folder


@pytest.mark.parametrize("name", [*list(MESHES)[1:], "8 then 2"])
def test_losses_and_gradients_do_not_depend_on_the_devices(folder, name):
    np.testing.assert_allclose(metrics_of(folder / name), metrics_of(folder / "1"), rtol=1e-5)


def test_two_processes_are_one_run(folder, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"COORDINATOR_ADDRESS": f"localhost:{free.getsockname()[1]}", "NUM_PROCESSES": "2"}
    finish(*(start(tmp_path, ["two"], 1, **place, PROCESS_ID=number) for number in ("0", "1")))
    metrics = metrics_of(tmp_path / "two")
    np.testing.assert_allclose(metrics, metrics_of(folder / "2"), rtol=1e-5)
    # What two processes saved, one goes on with.
    (tmp_path / "two" / "checkpoints" / "8").rename(tmp_path / "two" / "away")
    finish(start(tmp_path, ["two"], 2))
    np.testing.assert_allclose(metrics_of(tmp_path / "two"), metrics, rtol=1e-5)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    train(Path(sys.argv[1]), sys.argv[2].split("+"))
