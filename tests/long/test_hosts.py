"""Two processes over the loopback: no survivor hangs. test_processes.py trains and kills."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stilts_jax.errors import EXIT_ERROR, EXIT_RUN_AGAIN

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("host_program.py")
ROOT = Path(__file__).parents[2]
PATIENCE = 500  # seconds; far more than a quiet machine needs


@pytest.fixture
def start() -> Iterator:
    """Returns a function that starts a run of two hosts, of which the second comes to an end in some way."""
    started: list[subprocess.Popen] = []

    def run(folder: Path, how: str) -> list[subprocess.Popen]:
        folder.mkdir()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        for number in range(2):
            environment = {
                **os.environ,
                **{"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"},
                **{"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"},
                **{"JAX_PROCESS_ID": str(number), "STILTS_HEARTBEAT": "10"},
            }
            with (folder / f"log{number}").open("w") as log:
                command = [sys.executable, str(PROGRAM), how, str(folder)]
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            started.append(process)
        return started

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_survivor_that_waits_in_a_collective_does_not_hang(start, tmp_path: Path) -> None:
    processes = start(tmp_path / "run", "stuck")
    with pytest.raises(subprocess.TimeoutExpired):
        processes[0].wait(timeout=15)  # waits for host 1, which still breathes
    processes[1].kill()
    assert processes[0].wait(timeout=PATIENCE) == EXIT_RUN_AGAIN


def test_a_hosts_own_failure_ends_all(start, tmp_path: Path) -> None:
    processes = start(tmp_path / "run", "failed")
    assert processes[1].wait(timeout=PATIENCE) == EXIT_ERROR
    assert "something else" in (tmp_path / "run/log1").read_text()
    assert processes[0].wait(timeout=PATIENCE) == EXIT_ERROR  # and not "run again" on one host only


def test_a_host_that_looks_after_the_other_as_it_ends_ends_well(start, tmp_path: Path) -> None:
    processes = start(tmp_path / "run", "looking")
    assert [process.wait(timeout=PATIENCE) for process in processes] == [0, 0]


def test_hosts_go_on_from_the_checkpoints_that_the_main_one_sees(start, tmp_path: Path) -> None:
    processes = start(tmp_path / "run", "listing")
    assert [process.wait(timeout=PATIENCE) for process in processes] == [0, 0]
    for number in range(2):
        assert "steps [7]\n" in (tmp_path / f"run/log{number}").read_text()
