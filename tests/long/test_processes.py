"""One run over several processes: killed and typed again, and what comes out beside one process."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from stilts_jax.errors import EXIT_ERROR, EXIT_RUN_AGAIN
from tests.typed import results

pytestmark = pytest.mark.slow

PATIENCE = 500  # seconds; far more than a quiet machine needs
DEVICES = 4
# Unoptimised code compiles in half the time; what is tested is who does what.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# Parameters are cut over processes; the batch of 6 gets filler rows, and with tensor=2 hosts share rows.
OPTIONS = {
    "experiment.targets": "udpos+tatoeba",
    **{"train.batch_size": 6, "train.max_steps": 6, "train.eval_every": 3, "train.checkpoint_every": 2},
    **{"train.log_every": 1, "train.buckets": 1, "mesh.data": 1, "mesh.fsdp": 2, "mesh.tensor": 2},
}


@pytest.fixture
def start(world):
    """Returns a function that starts one command in some processes, with four devices in all."""
    started = []

    def run(workdir, hosts, *options, host_options=((),) * 4):
        workdir.mkdir(exist_ok=True)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "stilts_jax.main", "grid", "--config=toy:size=test"]
        command += [f"--data_root={world / 'data'}", f"--workdir={workdir}"]
        command += [f"--config.encoder=random:{world / 'encoder'}"]
        command += [f"--config.{name}={value}" for name, value in OPTIONS.items()]
        for number in range(hosts):
            environment = os.environ | {
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // hosts} {FLAGS}",
                "JAX_COMPILATION_CACHE_DIR": str(world / "compiled"),
                "OMP_NUM_THREADS": "1",
                "STILTS_HEARTBEAT": "10",
            }
            if hosts > 1:
                place = {"COORDINATOR_ADDRESS": address, "NUM_PROCESSES": hosts, "PROCESS_ID": number}
                environment |= {f"JAX_{name}": str(value) for name, value in place.items()}
            with (workdir / f"log{number}").open("w") as log:
                whole = [*command, *options, *host_options[number]]
                process = subprocess.Popen(whole, env=environment, stdout=log, stderr=subprocess.STDOUT)
            started.append(process)
        return started[-hosts:]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def finish(workdir, processes, codes):
    for number, (process, code) in enumerate(zip(processes, codes, strict=True)):
        assert process.wait(timeout=PATIENCE) == code, (workdir / f"log{number}").read_text()[-3000:]


def test_processes_that_were_killed_end_as_one_process_does(start, tmp_path):
    """Process 0, which the others meet at, is the worst to lose."""
    one, some, hosts = tmp_path / "one", tmp_path / "some", 4
    grid = "--config.experiment.intermediates=mnli"
    finish(one, start(one, 1, grid), [0])
    processes = start(some, hosts, grid)
    deadline = time.monotonic() + PATIENCE
    while not list(some.glob("phases/*/checkpoints/2/_CHECKPOINT_METADATA")):
        assert time.monotonic() < deadline and processes[0].poll() is None, (some / "log0").read_text()
        time.sleep(0.02)
    processes[0].kill()
    finish(some, processes, [-9] + [EXIT_RUN_AGAIN] * (hosts - 1))
    assert not list(some.glob("phases/*/trained.json"))
    finish(some, start(some, hosts, grid), [0] * hosts)
    log = (some / "log0").read_text()
    assert "going on after step" in log and "The whole report" in log
    assert "The whole report" not in (some / "log1").read_text()
    found, expected = results(some), results(one)
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        result = found[name]
        assert result["error"] is None and result["environment"]["device_count"] == DEVICES
        for part in ("scores", "items", "phase", "thresholds"):
            assert result[part] == wanted[part]
        assert result["selection"]["best_step"] == wanted["selection"]["best_step"]
        if (wanted["folder"] / "metrics.jsonl").exists():
            both = [(item["folder"] / "metrics.jsonl").read_text().splitlines() for item in (result, wanted)]
            for line, other in zip(*(map(json.loads, lines) for lines in both), strict=True):
                assert line.pop("task", None) == other.pop("task", None)
                assert line == pytest.approx(other, rel=1e-5)
    # What is done is done, also for another number of processes.
    finish(some, start(some, 1, grid), [0])
    assert (some / "log0").read_text().count("done before") == len(expected)


def test_a_host_that_lacks_data_ends_all_before_the_first_phase(start, tmp_path):
    """The others would wait for it until JAX gives up, and then say that the command is to be run again."""
    whole, bare = tmp_path / "run", tmp_path / "bare"
    bare.mkdir()
    processes = start(whole, 2, host_options=[[], [f"--data_root={bare}"]])
    finish(whole, processes, [EXIT_ERROR] * 2)
    assert "Data are missing" in (whole / "log1").read_text()
