"""One run in two processes that find each other on this machine, beside the same run in one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

STEPS = 8


def _train(folder, place):
    """Run by the test in processes of their own, with two devices altogether."""
    import jax
    import tiny_world

    from stilts_jax.distributed import initialize
    from stilts_jax.errors import RunAgain
    from stilts_jax.sharding import MeshConfig, make_mesh

    if place:
        address, number = place
        place = {"COORDINATOR_ADDRESS": address, "NUM_PROCESSES": "2", "PROCESS_ID": number}
        os.environ.update({f"JAX_{name}": value for name, value in place.items()})
        initialize()
    mesh = make_mesh(MeshConfig(), jax.devices()[:2])

    def batch_at(step):
        return tiny_world.batch_at(step - step % 2, rows=12)

    try:
        tiny_world.run(folder, steps=STEPS, mesh=mesh, batch=batch_at)
    except RunAgain as error:
        raise SystemExit(error.exit_code) from error


def _start(folder, devices, *place):
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, __file__, str(folder), *place]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _finish(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def _metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return np.array([[line.get("loss", 0), line.get("grad_norm", 0), line.get("score", 0)] for line in lines])


@pytest.mark.slow
def test_two_processes_are_one_run(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    _finish(_start(tmp_path / "one", 2))
    _finish(*(_start(tmp_path / "two", 1, address, str(number)) for number in range(2)))
    metrics = _metrics(tmp_path / "two")
    assert len(metrics) == STEPS + 2
    np.testing.assert_allclose(metrics, _metrics(tmp_path / "one"), rtol=1e-5)
    # What two processes saved, one goes on with.
    (tmp_path / "two" / "checkpoints" / "8").rename(tmp_path / "two" / "away")
    _finish(_start(tmp_path / "two", 2))
    np.testing.assert_allclose(_metrics(tmp_path / "two"), metrics, rtol=1e-5)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _train(Path(sys.argv[1]), sys.argv[2:])
