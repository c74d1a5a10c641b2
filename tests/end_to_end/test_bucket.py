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
OPTIONS = (
    "--config.experiment.intermediates=none",
    "--config.experiment.targets=udpos+tatoeba",
    "--config.train.max_steps=8",
    "--config.train.eval_every=4",
    "--config.train.checkpoint_every=2",
    "--config.train.log_every=1",
    "--config.train.buckets=1",
)


@pytest.fixture
def start(world: Path, tmp_path: Path):
    """Returns a function that starts a command in an empty folder, with the buckets in another."""
    place, buckets = tmp_path / "here", tmp_path / "buckets"
    place.mkdir()
    shutil.copytree(world / "encoder", buckets / "b" / "encoder")

    def run(*arguments: str) -> subprocess.Popen:
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(world / "compiled"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "BUCKET_ROOT": str(buckets),
        }
        command = [sys.executable, str(PROGRAM), *arguments]
        return subprocess.Popen(
            command, env=environment, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    yield run
    assert not list(place.iterdir())  # nobody took a URL for a relative path


def finish(process: subprocess.Popen) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output + errors


def test_a_bucket_is_as_good_as_a_folder(world: Path, start, tmp_path: Path) -> None:
    def grid(workdir: str, encoder: str) -> subprocess.Popen:
        return start(
            "grid",
            "--config=toy:size=test",
            f"--data_root={world / 'data'}",
            f"--workdir={workdir}",
            f"--config.encoder=random:{encoder}",
            *OPTIONS,
        )

    finish(grid(str(tmp_path / "local"), str(world / "encoder")))
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
    phase = f"gs://b/work/phases/{found.parent.name}"
    finish(start("export", phase, f"--out={tmp_path / 'exported'}", "--head=udpos"))
    assert {"model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "exported").iterdir()
    }
    finish(start("report", "gs://b/work"))
    assert "POS" in (remote / "report" / "report.md").read_text()
