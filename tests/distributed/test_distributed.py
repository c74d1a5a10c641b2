"""Several processes over the loopback: the same run as one process, and no survivor that hangs."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stilts_jax.distributed import _explicit_place, _is_cluster, _read_heartbeat
from stilts_jax.errors import EXIT_ERROR, EXIT_RUN_AGAIN, ConfigError

PROGRAM = Path(__file__).with_name("host_program.py")
ROOT = Path(__file__).parents[2]
STEPS = 3
PATIENCE = 500  # seconds; far more than a quiet machine needs
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def start() -> Iterator:
    """Returns a function that starts a run of some hosts, with four devices in all."""
    started: list[subprocess.Popen] = []

    def run(folder: Path, hosts: int, *, end: tuple[str, str, str] = ("", "", "")) -> list[subprocess.Popen]:
        folder.mkdir()
        address = f"127.0.0.1:{free_port()}"
        processes = []
        for number in range(hosts):
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "JAX_PLATFORMS": "cpu",
                # Unoptimised code compiles in half the time; what is tested is how it is cut.
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // hosts} {FAST_COMPILATION}",
                "OMP_NUM_THREADS": "1",
            }
            if hosts > 1:
                environment |= {
                    "JAX_COORDINATOR_ADDRESS": address,
                    "JAX_NUM_PROCESSES": str(hosts),
                    "JAX_PROCESS_ID": str(number),
                }
            log = (folder / f"log{number}").open("w")
            processes.append(
                subprocess.Popen(
                    [sys.executable, str(PROGRAM), str(folder), str(STEPS), *end],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
            log.close()
        started.extend(processes)
        return processes

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def read(folder: Path, processes: list[subprocess.Popen]) -> list[dict]:
    for number, process in enumerate(processes):
        assert process.wait(timeout=PATIENCE) == 0, (folder / f"log{number}").read_text()[-3000:]
    return [json.loads((folder / f"host{number}.json").read_text()) for number in range(len(processes))]


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_train_as_one_process_does(hosts: int, start, tmp_path: Path) -> None:
    (one,) = read(tmp_path / "one", start(tmp_path / "one", 1))
    records = read(tmp_path / "some", start(tmp_path / "some", hosts))
    for record in records:
        assert record["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert record["norms"] == pytest.approx(one["norms"], rel=1e-5)
    digests = [record["digests"] for record in records]
    assert {key: value for part in digests for key, value in part.items()} == one["digests"]
    assert sum(map(len, digests)) == len(one["digests"])  # no row twice
    assert [record["main"] for record in records] == [True] + [False] * (hosts - 1)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_survivors_of_a_lost_host_ask_to_be_run_again(victim: int, start, tmp_path: Path) -> None:
    processes = start(tmp_path / "run", 2, end=(str(victim), "2", "killed"))
    assert processes[victim].wait(timeout=PATIENCE) == -9
    survivor = processes[1 - victim]
    assert survivor.wait(timeout=PATIENCE) == EXIT_RUN_AGAIN, (tmp_path / f"run/log{1 - victim}").read_text()[
        -3000:
    ]


@pytest.mark.slow
def test_a_survivor_that_waits_in_a_collective_does_not_hang(start, tmp_path: Path) -> None:
    processes = start(tmp_path / "run", 2, end=("1", "2", "stuck"))
    with pytest.raises(subprocess.TimeoutExpired):
        processes[0].wait(timeout=15)  # waits for host 1, which still breathes
    processes[1].kill()
    assert processes[0].wait(timeout=PATIENCE) == EXIT_RUN_AGAIN


@pytest.mark.slow
def test_a_hosts_own_failure_ends_all(start, tmp_path: Path) -> None:
    processes = start(tmp_path / "run", 2, end=("1", "2", "failed"))
    assert processes[1].wait(timeout=PATIENCE) == EXIT_ERROR
    assert "something else" in (tmp_path / "run/log1").read_text()
    assert processes[0].wait(timeout=PATIENCE) == EXIT_RUN_AGAIN


def test_the_place_of_a_process() -> None:
    environment = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert _explicit_place(None, None, None, environment) == ("a:1", 4, 3)
    assert _explicit_place("b:2", 2, 0, environment) == ("b:2", 2, 0)
    assert _explicit_place(None, None, None, {}) is None


@pytest.mark.parametrize(
    ("address", "count", "number"), [("a", 4, 0), ("a:1", 4, 4), ("a:1", None, 0), (None, 2, 1)]
)
def test_half_a_place_is_refused(address: str | None, count: int | None, number: int) -> None:
    with pytest.raises(ConfigError, match="needs all three"):
        _explicit_place(address, count, number, {})


def test_slurm_is_found_where_there_are_several_tasks() -> None:
    assert _is_cluster({"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2"})
    assert not _is_cluster({"SLURM_STEP_NODELIST": "node1", "SLURM_NTASKS": "1"})
    assert not _is_cluster({"JAX_PLATFORMS": "cpu"})


@pytest.mark.parametrize("text", ["soon", "-1", "0", "1.5", "٣"])
def test_a_heartbeat_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("STILTS_HEARTBEAT", text)
    with pytest.raises(ConfigError, match="STILTS_HEARTBEAT"):
        _read_heartbeat()
