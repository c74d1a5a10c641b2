"""The command line over several processes: killed, started again, and what comes out beside one process."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stilts_jax.errors import EXIT_RUN_AGAIN

pytestmark = pytest.mark.slow

PATIENCE = 500  # seconds; far more than a quiet machine needs
DEVICES = 4
# Unoptimised code compiles in half the time; what is tested is who does what.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# Parameters are cut over processes; the batch of 6 gets filler rows, and with tensor=2 hosts share rows.
OPTIONS = (
    "--config.experiment.targets=udpos+tatoeba",
    "--config.train.batch_size=6",
    "--config.train.max_steps=6",
    "--config.train.eval_every=3",
    "--config.train.checkpoint_every=2",
    "--config.train.log_every=1",
    "--config.train.buckets=1",
    "--config.mesh.data=1",
    "--config.mesh.fsdp=2",
    "--config.mesh.tensor=2",
)


@pytest.fixture
def start(world: Path) -> Iterator:
    """Returns a function that starts one command in some processes, with four devices in all."""
    started: list[subprocess.Popen] = []

    def run(workdir: Path, hosts: int, *options: str) -> list[subprocess.Popen]:
        workdir.mkdir(exist_ok=True)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        for number in range(hosts):
            environment = {
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // hosts} {FLAGS}",
                "JAX_COMPILATION_CACHE_DIR": str(world / "compiled"),
                "OMP_NUM_THREADS": "1",
                "STILTS_HEARTBEAT": "10",
            }
            if hosts > 1:
                environment |= {
                    "JAX_COORDINATOR_ADDRESS": address,
                    "JAX_NUM_PROCESSES": str(hosts),
                    "JAX_PROCESS_ID": str(number),
                }
            command = [sys.executable, "-m", "stilts_jax.main", "grid", "--config=toy:size=test"]
            command += [f"--data_root={world / 'data'}", f"--workdir={workdir}"]
            command += [f"--config.encoder=random:{world / 'encoder'}", *OPTIONS, *options]
            with (workdir / f"log{number}").open("w") as log:
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            started.append(process)
        return started[-hosts:]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def finish(workdir: Path, processes: list[subprocess.Popen], codes: list[int]) -> None:
    for number, (process, code) in enumerate(zip(processes, codes, strict=True)):
        assert process.wait(timeout=PATIENCE) == code, (workdir / f"log{number}").read_text()[-3000:]


def kill_in_training(workdir: Path, processes: list[subprocess.Popen], victim: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(workdir.glob("phases/*/checkpoints/2/_CHECKPOINT_METADATA")):
        assert time.monotonic() < deadline and processes[victim].poll() is None, (
            workdir / "log0"
        ).read_text()
        time.sleep(0.02)
    processes[victim].kill()


def read(workdir: Path) -> dict[str, dict]:
    """Returns results by phase, with the lines of metrics.jsonl."""
    found = {}
    for path in [*workdir.glob("phases/*/result.json"), *workdir.glob("phases/*/failure.json")]:
        result = json.loads(path.read_text())
        metrics = path.with_name("metrics.jsonl")
        result["lines"] = list(map(json.loads, metrics.read_text().splitlines())) if metrics.exists() else []
        found[result["phase"]["name"]] = result
    return found


def assert_same(found: dict[str, dict], expected: dict[str, dict]) -> None:
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        some = found[name]
        assert some["error"] is None
        assert some["environment"]["device_count"] == DEVICES
        for exact in ("scores", "items", "phase", "thresholds"):
            assert some[exact] == one[exact]
        assert some["selection"]["best_step"] == one["selection"]["best_step"]
        assert [line.keys() for line in some["lines"]] == [line.keys() for line in one["lines"]]
        for line, wanted in zip(some["lines"], one["lines"]):
            assert line.pop("task", None) == wanted.pop("task", None)
            assert line == pytest.approx(wanted, rel=1e-5)


def test_processes_that_were_killed_end_as_one_process_does(start, tmp_path: Path) -> None:
    """Process 0, which the others meet at, is the worst to lose."""
    one, some, hosts = tmp_path / "one", tmp_path / "some", 4
    grid = "--config.experiment.intermediates=mnli"
    finish(one, start(one, 1, grid), [0])
    processes = start(some, hosts, grid)
    kill_in_training(some, processes, victim=0)
    finish(some, processes, [-9] + [EXIT_RUN_AGAIN] * (hosts - 1))
    assert not list(some.glob("phases/*/trained.json"))
    finish(some, start(some, hosts, grid), [0] * hosts)
    assert "going on after step" in (some / "log0").read_text()
    assert_same(read(some), read(one))
    report = (some / "log0").read_text()
    assert "The whole report" in report
    assert "The whole report" not in (some / "log1").read_text()
    # What is done is done, also for another number of processes.
    finish(some, start(some, 1, grid), [0])
    assert (some / "log0").read_text().count("done before") == len(read(one))


def test_damaged_data_are_refused_by_all_hosts_before_anything_is_trained(
    start, world: Path, tmp_path: Path
) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    shutil.copytree(world / "data", data)
    damaged = sorted((data / "tatoeba").glob("*-en.en"))[0]
    damaged.write_text("\n".join(damaged.read_text().splitlines()[:-1]) + "\n")
    finish(work, start(work, 2, "--config.experiment.intermediates=none", f"--data_root={data}"), [1, 1])
    assert damaged.name in (work / "log0").read_text() and not read(work)
