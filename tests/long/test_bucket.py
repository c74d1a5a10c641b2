"""A work directory and an encoder in an object store: killed, gone on with, and the same as in a folder."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("bucket_program.py")
OPTIONS = {
    **{"experiment.intermediates": "none", "experiment.targets": "udpos+tatoeba", "train.max_steps": 8},
    **{"train.eval_every": 4, "train.checkpoint_every": 2, "train.log_every": 1, "train.buckets": 1},
}


@pytest.fixture
def start(world, tmp_path):
    """Returns a function that starts a command in an empty folder, with the buckets in another."""
    place, buckets = tmp_path / "here", tmp_path / "buckets"
    place.mkdir()
    shutil.copytree(world / "encoder", buckets / "b" / "encoder")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(world.with_name("compiled")),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "BUCKET_ROOT": str(buckets),
    }

    def run(*arguments):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments], env=environment, cwd=place, **pipes
        )

    yield run
    assert not list(place.iterdir())  # nobody took a URL for a relative path


def finish(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output + errors


def test_a_bucket_is_as_good_as_a_folder(world, start, tmp_path):
    def grid(workdir, encoder):
        options = [f"--config.{name}={value}" for name, value in OPTIONS.items()]
        places = [f"--data_root={world / 'data'}", f"--workdir={workdir}"]
        return start(
            "grid", "--config=toy:size=test", *places, f"--config.encoder=random:{encoder}", *options
        )

    finish(grid(tmp_path / "local", world / "encoder"))
    remote = tmp_path / "buckets" / "b" / "work"
    process = grid("gs://b/work", "gs://b/encoder")
    deadline = time.monotonic() + 300
    # In a bucket a marker makes a checkpoint whole; a folder would be renamed.
    while not list(remote.glob("phases/*/checkpoints/2/commit_success*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert "going on after step" in finish(grid("gs://b/work", "gs://b/encoder"))
    (expected,), (found,) = (
        folder.glob("phases/*udpos*/metrics.jsonl") for folder in (tmp_path / "local", remote)
    )
    assert found.read_text() == expected.read_text()
    assert not list(remote.rglob("*.lock")) and not (remote / "features").exists()
    assert not (found.parent / "checkpoints").exists()  # no longer needed
    assert finish(grid("gs://b/work", "gs://b/encoder")).count("done before") == 2
    phase, out = f"gs://b/work/phases/{found.parent.name}", tmp_path / "exported"
    finish(start("export", phase, f"--out={out}", "--head=udpos"))
    assert {"model.safetensors", "tokenizer.json"} <= {path.name for path in out.iterdir()}
    finish(start("report", "gs://b/work"))
    assert "POS" in (remote / "report" / "report.md").read_text()
