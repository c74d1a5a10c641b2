"""Launch scripts: clean, short, exact in a dry run, back after a preemption; with stand-ins for clouds."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = ("tpu_vm.sh", "slurm.sbatch", "local_gpu.sh", "grid.sh")
TPU = {"NAME": "run", "ZONE": "us-east5-b", "TYPE": "v6e-64"}


@pytest.fixture
def call(tmp_path: Path):
    """Returns a function that runs a script where only stand-ins of outside commands are found first."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def run(script: str, *arguments: str, stubs: dict[str, str] | None = None, **environment: str):
        for name, body in (stubs or {}).items():
            (programs / name).write_text(
                f'#!/usr/bin/env bash\necho {name} "$@" >> {tmp_path}/calls\n{body}\n'
            )
            (programs / name).chmod(0o755)
        done = subprocess.run(
            ["bash", str(LAUNCH / script), *arguments],
            env={"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        calls = tmp_path / "calls"
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


@pytest.mark.parametrize("name", [*SCRIPTS, "skypilot.yaml"])
def test_scripts_are_short(name: str) -> None:
    assert len((LAUNCH / name).read_text().splitlines()) < 70


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_clean(name: str) -> None:
    shellcheck = shutil.which("shellcheck") or "bash"
    arguments = [] if shellcheck != "bash" else ["-n"]  # without shellcheck at least the grammar
    done = subprocess.run([shellcheck, *arguments, str(LAUNCH / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_arguments_a_script_explains_itself(name: str, call) -> None:
    done, _ = call(name)
    assert done.returncode == 2
    assert f"launch/{name}" in done.stderr


def test_dry_run_of_one_machine(call) -> None:
    done, calls = call(
        "local_gpu.sh", "--dry_run", "train", "--title=two words", stubs={"stilts": ""}, GPUS="1"
    )
    assert calls == []
    assert done.stdout.split("CUDA_VISIBLE_DEVICES=1 ")[1] == r"stilts train --title=two\ words " + "\n"


def test_dry_run_of_a_grid(call) -> None:
    done, calls = call("grid.sh", "--dry_run", "all/3", "--config=xstilts", stubs={"stilts": ""})
    assert calls == []
    found = [line.split("CUDA_VISIBLE_DEVICES=")[1].strip() for line in done.stdout.splitlines()]
    assert found == [f"{gpu} stilts grid --part={gpu + 1}/3 --config=xstilts" for gpu in range(3)]


@pytest.mark.parametrize("part", ["0/2", "3/2", "half", "all/0"])
def test_parts_that_do_not_exist_are_refused(part: str, call) -> None:
    done, calls = call("grid.sh", part, stubs={"stilts": ""})
    assert (done.returncode, calls) == (2, [])


def test_dry_run_of_slurm(call) -> None:
    done, calls = call(
        "slurm.sbatch", "--dry_run", "train", stubs={"srun": "", "scontrol": ""}, SLURM_JOB_ID="7"
    )
    assert calls == []
    lines = done.stdout.splitlines()
    assert lines[1].strip() == "srun --kill-on-bad-exit=1 --export=ALL stilts train"
    assert lines[2].strip() == "scontrol requeue 7"


def test_dry_run_of_a_tpu(call) -> None:
    done, calls = call("tpu_vm.sh", "--dry_run", "grid", "--workdir=gs://b/w", stubs={"gcloud": ""}, **TPU)
    assert calls == []
    commands = [line.split()[:5] for line in done.stdout.splitlines()]
    tpus = ["gcloud", "compute", "tpus"]
    assert commands[0] == [*tpus, "queued-resources", "create"]
    assert "--spot" in done.stdout.splitlines()[0]
    assert commands[2] == [*tpus, "tpu-vm", "scp"]
    assert commands[3] == commands[4] == [*tpus, "tpu-vm", "ssh"]
    assert r"stilts\ grid\ --workdir=gs://b/w" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "gcloud storage rsync --recursive gs://b/w/report results"


def test_a_tpu_is_given_back_on_request(call) -> None:
    done, calls = call("tpu_vm.sh", "--delete", stubs={"gcloud": ""}, **TPU)
    assert done.returncode == 0
    assert calls == ["gcloud compute tpus queued-resources delete run --zone=us-east5-b --force --quiet"]


# Ends as the first line of the file `codes` says, and takes that line away.
NEXT_CODE = 'code=$(head -n1 "$TMPDIR/codes"); sed -i 1d "$TMPDIR/codes"'


@pytest.mark.parametrize(
    ("codes", "end", "runs"),
    [("75\n137\n0\n", 0, 3), ("75\n1\n0\n", 1, 2), ("75\n75\n75\n", 75, 3), ("130\n", 130, 1)],
)
def test_a_machine_runs_again_what_asks_for_it(codes: str, end: int, runs: int, call, tmp_path: Path) -> None:
    (tmp_path / "codes").write_text(codes)
    done, calls = call("local_gpu.sh", "train", stubs={"stilts": f"{NEXT_CODE}; exit $code"}, TRIES="3")
    assert (done.returncode, len(calls)) == (end, runs)


# Saves and ends as stilts does.
STOPPABLE = """echo stilts >> "$TMPDIR/calls"
trap 'exit 130' INT
trap 'exit 75' TERM
while true; do sleep 0.1; done"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
@pytest.mark.parametrize(
    ("script", "processes"),
    [(("local_gpu.sh", "train"), 1), (("grid.sh", "1/2"), 1), (("grid.sh", "all/2"), 2)],
)
@pytest.mark.parametrize("to_all", [True, False], ids=["terminal", "kill"])
def test_a_signal_stops_for_good(script, processes, number, code, to_all, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to all processes of the foreground, ``kill`` a signal to the script alone."""
    stub = tmp_path / "stilts"
    stub.write_text(f"#!/usr/bin/env bash\n{STOPPABLE}\n")
    stub.chmod(0o755)
    started = subprocess.Popen(
        ["bash", str(LAUNCH / script[0]), *script[1:]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    calls, deadline = tmp_path / "calls", time.monotonic() + 30
    while not calls.exists() or len(calls.read_text().splitlines()) < processes:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)  # the stand-in sets its traps
    (os.killpg if to_all else os.kill)(started.pid, number)
    assert started.wait(timeout=30) == code
    assert len(calls.read_text().splitlines()) == processes


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "word"),
    [
        ("tpu_vm.sh", ["grid"], {"NAME": "run", "ZONE": "z"}, "TYPE"),
        ("tpu_vm.sh", ["grid"], {"NAME": "run", "TYPE": "v6e-8"}, "ZONE"),
        ("tpu_vm.sh", ["--delete"], {"ZONE": "z"}, "NAME"),
        ("tpu_vm.sh", ["--dry_run"], TPU, "command"),
        ("local_gpu.sh", ["--dry_run"], {}, "command"),
        ("slurm.sbatch", [], {}, "command"),
        ("grid.sh", ["--config=xstilts"], {}, "part"),
    ],
)
def test_what_is_missing_is_said(script, arguments, environment, word, call) -> None:
    done, calls = call(script, *arguments, stubs={"gcloud": "", "stilts": "", "srun": ""}, **environment)
    assert (done.returncode, calls) == (2, [])
    assert word in done.stderr.splitlines()[0]


@pytest.mark.parametrize(("codes", "end", "runs"), [("75\n134\n0\n", 0, 3), ("2\n", 2, 1), ("130\n", 130, 1)])
def test_a_tpu_runs_again_what_asks_for_it(codes: str, end: int, runs: int, call, tmp_path: Path) -> None:
    (tmp_path / "codes").write_text(codes)
    gcloud = f"""case "$*" in
      *describe*) echo ACTIVE ;;
      *stilts-exit*) {NEXT_CODE}; echo "stilts-exit=75"; echo "stilts-exit=$code" ;;
    esac"""
    # One host of two always says 75: what the other says must decide, unless that is a success.
    gcloud = gcloud if end else gcloud.replace('echo "stilts-exit=75"; ', "")
    done, calls = call("tpu_vm.sh", "grid", stubs={"gcloud": gcloud}, **TPU)
    assert done.returncode == end
    assert sum("stilts-exit" in line for line in calls) == runs


def test_a_preempted_tpu_is_asked_for_again(call, tmp_path: Path) -> None:
    (tmp_path / "codes").write_text("SUSPENDED\nSUSPENDED\nACTIVE\nACTIVE\n")
    gcloud = f"""case "$*" in
      *describe*) {NEXT_CODE}; echo "$code" ;;
      *stilts-exit*) echo "stilts-exit=0" ;;
    esac"""
    done, calls = call("tpu_vm.sh", "grid", stubs={"gcloud": gcloud}, **TPU)
    assert done.returncode == 0, done.stderr
    verbs = [word for line in calls for word in line.split() if word in ("delete", "create", "scp")]
    assert verbs == ["delete", "create", "scp"]


@pytest.mark.parametrize(
    ("code", "requeued"), [(75, True), (137, True), (130, False), (1, False), (0, False)]
)
def test_slurm_takes_back_what_was_preempted(code: int, requeued: bool, call) -> None:
    done, calls = call(
        "slurm.sbatch", "train", stubs={"srun": f"exit {code}", "scontrol": ""}, SLURM_JOB_ID="7"
    )
    assert done.returncode == code
    assert ("scontrol requeue 7" in calls) == requeued


def test_the_managed_job_is_whole() -> None:
    job = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert job["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    for part in ("setup", "run"):
        done = subprocess.run(["bash", "-nu"], input=job[part], text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
