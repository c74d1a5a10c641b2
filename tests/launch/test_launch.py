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
LOOPS = ("tpu_vm.sh", "local_gpu.sh", "slurm.sbatch")  # scripts that run a command again
TPU = {"NAME": "run", "ZONE": "us-east5-b", "TYPE": "v6e-64", "LIBTPU_INIT_ARGS": "-a='b c'"}


@pytest.fixture
def call(tmp_path: Path):
    """Returns a function that runs a script where only stand-ins of outside commands are found first."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()

    def run(script: str, *arguments: str, stubs: dict[str, str] | None = None, **environment: str):
        for name, body in (stubs or {}).items():
            (programs / name).write_text(f'#!/usr/bin/env bash\necho {name} "$@" >> {calls}\n{body}\n')
            (programs / name).chmod(0o755)
        done = subprocess.run(
            [shutil.which("bash"), str(LAUNCH / script), *arguments],
            env={"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


@pytest.mark.parametrize("name", ["tpu_vm.sh", "slurm.sbatch", "local_gpu.sh", "grid.sh"])
def test_a_script_is_short_clean_and_explains_itself(name, call):
    assert len((LAUNCH / name).read_text().splitlines()) < 80
    checks = ["shellcheck"] if shutil.which("shellcheck") else ["bash", "-n"]  # else at least the grammar
    done = subprocess.run([*checks, str(LAUNCH / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    done, _ = call(name)
    assert done.returncode == 2 and f"launch/{name}" in done.stderr


STUBS = dict.fromkeys(("stilts", "srun", "scontrol", "gcloud"), "")
GRID_LINES = [f"CUDA_VISIBLE_DEVICES={n} stilts grid --part={n + 1}/3 -x" for n in range(3)]
SLURM_LINES = [r"_IDS=0\,1", "srun --kill-on-bad-exit=1 --export=ALL stilts train", "scontrol requeue 7"]
TPU_LINES = [
    *("gcloud compute tpus queued-resources create", "--spot", "gcloud compute tpus tpu-vm scp"),
    *("gcloud compute tpus tpu-vm ssh", r"bash -c \'cd x # there;\' && touch"),
    r"LIBTPU_INIT_ARGS=\'-a=\'\\\'\'b\ c\'\\\'\'\'\ venv/bin/stilts\ grid\ --workdir",
    "gcloud storage rsync --recursive gs://b/w/report results",
]


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "lines"),
    [
        ("local_gpu.sh", "--dry_run train", {"GPUS": "1"}, ["CUDA_VISIBLE_DEVICES=1 stilts train"]),
        *(("grid.sh", *one) for one in (("--help", {}, ["all/8 "]), ("--dry_run all/3 -x", {}, GRID_LINES))),
        ("slurm.sbatch", "--dry_run train", {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "a:2"}, SLURM_LINES),
        ("tpu_vm.sh", "--dry_run grid --workdir gs://b/w", TPU | {"SETUP": "cd x # there;"}, TPU_LINES),
        ("tpu_vm.sh", "--dry_run grid --workdir=gs://b/w/", TPU, TPU_LINES[-2:]),
        ("tpu_vm.sh", "--delete --dry_run", TPU, ["queued-resources delete run"]),
    ],
)
def test_a_dry_run_prints_the_commands_and_types_none(script, arguments, environment, lines, call):
    done, calls = call(script, *arguments.split(), stubs=STUBS, **environment)
    places = [done.stdout.index(line) for line in lines]
    assert (calls, places) == ([], sorted(places))


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "word"),
    [
        ("tpu_vm.sh", "grid", {"NAME": "run", "ZONE": "z"}, "TYPE"),
        ("tpu_vm.sh", "--delete", {"ZONE": "z"}, "NAME"),
        ("tpu_vm.sh", "grid", TPU | {"PATH": "/nowhere"}, "gcloud"),
        *((name, "--dry_run", TPU, "command") for name in LOOPS),
        ("tpu_vm.sh", "grid --help", TPU, "command"),  # no slice is rented to print that
        *(("grid.sh", part, {}, "part") for part in ("all/0", "5/4", "0/4", "--config=xstilts")),
        *((name, "train", TPU | {"TRIES": "0"}, "TRIES") for name in LOOPS),
        ("slurm.sbatch", "train", {"SLURM_GPUS_ON_NODE": "many"}, "SLURM_GPUS_ON_NODE"),
    ],
)
def test_what_is_missing_or_wrong_is_said(script, arguments, environment, word, call):
    done, calls = call(script, *arguments.split(), stubs=STUBS, **environment)
    assert (done.returncode, calls) == (2, []) and word in done.stderr.splitlines()[0]


# Ends as the first line of the file `codes` says, and takes that line away.
NEXT_CODE = 'code=$(head -n1 "$TMPDIR/codes"); sed -i 1d "$TMPDIR/codes"'


@pytest.mark.parametrize(
    ("codes", "end", "runs"),
    [("75\n137\n0\n", 0, 3), ("75\n1\n0\n", 1, 2), ("75\n75\n75\n", 75, 3), ("130\n", 130, 1)],
)
def test_a_machine_runs_again_what_asks_for_it(codes, end, runs, call, tmp_path):
    (tmp_path / "codes").write_text(codes)
    done, calls = call("local_gpu.sh", "train", stubs={"stilts": f"{NEXT_CODE}; exit $code"}, TRIES="3")
    assert (done.returncode, len(calls), done.stderr.count("again")) == (end, runs, runs - 1)


# Saves and ends as stilts does.
STOPPABLE = """echo stilts >> "$TMPDIR/calls"
trap 'exit 130' INT
trap 'exit 75' TERM
while true; do sleep 0.1; done"""


@pytest.mark.parametrize(
    ("script", "processes", "number", "code", "to_all"),
    [
        (("local_gpu.sh", "train"), 1, signal.SIGINT, 130, True),
        (("local_gpu.sh", "train"), 1, signal.SIGTERM, 75, False),
        (("grid.sh", "all/2"), 2, signal.SIGINT, 130, False),
        (("grid.sh", "all/2"), 2, signal.SIGTERM, 75, True),
    ],
)
def test_a_signal_stops_for_good(script, processes, number, code, to_all, tmp_path):
    """A terminal sends Ctrl-C to all processes of the foreground, ``kill`` a signal to the script alone."""
    stub, calls = tmp_path / "stilts", tmp_path / "calls"
    stub.write_text(f"#!/usr/bin/env bash\n{STOPPABLE}\n")
    stub.chmod(0o755)
    started = subprocess.Popen(
        ["bash", str(LAUNCH / script[0]), *script[1:]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not calls.exists() or len(calls.read_text().splitlines()) < processes:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)  # the stand-in sets its traps
    (os.killpg if to_all else os.kill)(started.pid, number)
    assert started.wait(timeout=30) == code
    assert len(calls.read_text().splitlines()) == processes


@pytest.mark.parametrize(("codes", "end", "runs"), [("75\n134\n0\n", 0, 3), ("2\n", 2, 1), ("130\n", 130, 1)])
def test_a_tpu_runs_again_what_asks_for_it(codes, end, runs, call, tmp_path):
    (tmp_path / "codes").write_text(codes)
    # One host of two always says 75: what the other says must decide, unless that is a success.
    other = 'echo "stilts-exit=75"; ' if end else ""
    gcloud = f"""case "$*" in
      *describe*) echo ACTIVE ;;
      *stilts-exit*) {NEXT_CODE}; {other}echo "stilts-exit=$code" ;;
    esac"""
    done, calls = call("tpu_vm.sh", "grid", stubs={"gcloud": gcloud, "git": "echo c0ffee"}, **TPU)
    assert (done.returncode, sum("stilts-exit" in line for line in calls)) == (end, runs)


@pytest.mark.parametrize(
    ("fails", "end", "tries"),
    [("queued-resources create", 1, 5), ("scp", 1, 3), ("none of them", 0, 1), ("once", 0, 2)],
)
def test_a_tpu_without_machine_or_installation_is_no_success(fails, end, tries, call, tmp_path):
    """A lost connection while the package is installed is tried again, but not for ever on a machine that is there."""
    gcloud = f"""case "$*" in
      *describe*) test -e "$TMPDIR/created" && echo ACTIVE ;;
      *"{fails}"*) exit 1 ;;
      *scp*) if test "{fails}" = once && ! test -e "$TMPDIR/again"; then touch "$TMPDIR/again"; exit 1; fi ;;
      *create*) touch "$TMPDIR/created" ;;
      *stilts-exit*) echo "stilts-exit=0" ;;
    esac"""
    stubs = {"gcloud": gcloud, "git": "echo c0ffee"}
    done, calls = call("tpu_vm.sh", "grid", stubs=stubs, TRIES="5", PAUSE="0", **TPU)
    word = "create" if "create" in fails else "scp"
    assert (done.returncode, sum(f" {word} " in f"{line} " for line in calls)) == (end, tries)
    assert any("venv/c0ffee" in line for line in calls) == (end == 0)
    assert sum("stilts-exit" in line for line in calls) == (end == 0)


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (137, True), (130, False), (1, False)])
def test_slurm_takes_back_what_was_preempted(code, requeued, call):
    stubs = {"srun": f"exit {code}", "scontrol": ""}
    done, calls = call("slurm.sbatch", "train", stubs=stubs, SLURM_JOB_ID="7")
    assert (done.returncode, "scontrol requeue 7" in calls) == (code, requeued)


def test_the_managed_job_is_whole():
    job = yaml.safe_load(text := (LAUNCH / "skypilot.yaml").read_text())
    assert len(text.splitlines()) < 70 and job["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    done = subprocess.run(["bash", "-nu"], input=job["setup"] + job["run"], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
