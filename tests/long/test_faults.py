"""Files of a finished grid are damaged, one kind after the other, and the same command is run again.

It must give the same scores, or end with an error that names the file and leaves the other scores alone; and then, with
the file back in its place, give the same scores again. Never a traceback.
"""

import builtins
import errno
import io
import os
import random
import resource
import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest

from stilts_jax.checkpoint import Checkpoints
from stilts_jax.errors import CheckpointError
from tests.long import damage
from tests.long.damage import Workdir, run

pytestmark = pytest.mark.slow

# What is removed before, so that the damaged file is needed.
STATES = {"done": (), "unscored": ("result.json",), "untrained": ("result.json", "trained.json", "final")}
PHASE = "phases/none+udpos.s0-*"
FILES = {
    "done": (*("result.json", "trained.json", "device.json", "run.holder"), "../mnli.s0-*/trained.json"),
    "unscored": (
        *("trained.json", "final/*/_CHECKPOINT_METADATA", "final/*/record/metadata"),
        *("final/*/params/_METADATA", "final/*/params/manifest.ocdbt", "final/*/params/ocdbt.process_0/d/*"),
    ),
    "untrained": (
        *("checkpoints/*/record/metadata", "checkpoints/*/params/ocdbt.process_0/d/*"),
        *("checkpoints/*/moments/_METADATA", "metrics.jsonl", "timings.jsonl"),
        *("../../features/*.arrow", "../../features/*.json", "../../../encoder/config.json"),
        *("../../../encoder/model.safetensors", "../../../encoder/tokenizer.json"),
        "../../../encoder/tokenizer_config.json",
    ),
}


@pytest.fixture(scope="module")
def finished(demo, tmp_path_factory) -> Workdir:
    """A finished grid with all its models and checkpoints."""
    workdir = Workdir(tmp_path_factory.mktemp("whole"), demo[0] / "world/data", demo[0] / "encoder")
    code, text = workdir.grid()
    assert code == 0, text
    return workdir


def copy(finished: Workdir, folder: Path, state: str = "done") -> Workdir:
    shutil.rmtree(folder, ignore_errors=True)
    workdir = finished.copy(folder)
    (phase,) = workdir.path.glob(PHASE)
    for name in STATES[state]:
        remove(phase / name)
    return workdir


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def find(workdir: Workdir, pattern: str) -> Path:
    """Returns the largest file of a kind: in a checkpoint, that is the one with the arrays."""
    (phase,) = workdir.path.glob(PHASE)
    return max(phase.glob(pattern), key=lambda path: path.stat().st_size).resolve()


def check(workdir: Workdir, finished: Workdir, case: str, named: Path) -> int:
    """Runs the grid: it gives the same scores, or names the file and leaves other scores alone."""
    before = {path: path.read_bytes() for path in workdir.path.glob("phases/*/result.json") if path != named}
    code, text = workdir.grid()
    assert code in (0, 1, 2), f"{case}: {code}\n{text}"
    if code == 0:
        there, expected = workdir.scores(), finished.scores()
        if named.parent.name == "encoder":  # another value in it makes another encoder, with keys of its own
            assert there == expected or "they are damaged" in text, f"{case}:\n{text}"
            expected = {phase: expected.get(phase, scores) for phase, scores in there.items()}
        assert there == expected, f"{case}: other scores\n{text}"
    else:
        assert named.name in text or str(named.parent) in text or PHASE[7:-2] in text, f"{case}:\n{text}"
        assert before.items() <= {path: path.read_bytes() for path in before if path.is_file()}.items(), case
    return code


CASES = [(state, pattern) for state, patterns in FILES.items() for pattern in patterns]


@pytest.mark.parametrize(("state", "pattern"), CASES, ids=lambda value: value.replace("/", "."))
def test_a_damaged_file_is_made_again_or_named(finished, tmp_path, state, pattern):
    """Each kind of damage in its turn; tests/long/fuzz_workdir.py does any to any."""
    function = damage.DAMAGES[CASES.index((state, pattern)) % len(damage.DAMAGES)]
    workdir = copy(finished, tmp_path / "copy", state)
    path = find(workdir, pattern)
    content = path.read_bytes()
    function(path, random.Random(1))
    if check(workdir, finished, f"{function.__name__} {pattern}", path):
        if path.parent.is_dir():  # damaged steps were moved out of the way
            remove(path)
            path.write_bytes(content)
        code, text = workdir.grid()
        assert (code, workdir.scores()) == (0, finished.scores()), f"{function.__name__}, back: {text}"


def test_a_damaged_model_of_a_parent_is_named_and_made_again_as_the_error_says(finished, tmp_path):
    workdir = copy(finished, tmp_path / "copy")
    (child,) = workdir.path.glob("phases/mnli.s0+udpos.s0-*")
    remove(child)
    arrays = find(workdir, "../mnli.s0-*/final/*/params/ocdbt.process_0/d/*")
    damage.flip(arrays, random.Random(0))
    code, text = workdir.grid()
    (trained,) = workdir.path.glob("phases/mnli.s0-*/trained.json")
    assert code == 1 and str(trained) in text
    remove(trained)
    remove(trained.with_name("checkpoints"))  # as experiment.keep=models leaves it
    code, text = workdir.grid()
    assert (code, workdir.scores()) == (0, finished.scores()), text


def test_scores_outlive_the_models_that_made_them(finished, tmp_path):
    workdir = copy(finished, tmp_path / "copy")
    assert workdir.grid("--config.experiment.keep=none")[0] == 0
    assert not list(workdir.path.glob("phases/*/final"))
    code, text = workdir.grid("--config.experiment.keep=none", "--config.evaluation.limit=5")
    assert code == 1 and "experiment.keep" in text and "trained.json" in text
    assert workdir.scores() == finished.scores()
    assert run("report", str(workdir.path))[0] == 0
    assert workdir.grid("--config.experiment.keep=none")[0] == 0
    assert workdir.scores() == finished.scores() and not list(workdir.path.glob("phases/*/failure.json"))


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_full_disk_is_named_and_the_same_command_goes_on(finished, tmp_path, size):
    """Every file that grows beyond a size fails to: the work directory is that of a grid that has not begun."""
    workdir = copy(finished, tmp_path / "copy")
    for name in ("phases", "features"):
        remove(workdir.path / name)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        code, text = workdir.grid()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1 and str(workdir.path) in text, text
    code, text = workdir.grid()
    assert (code, workdir.scores()) == (0, finished.scores()), text


@pytest.mark.parametrize("state", STATES)
def test_a_read_only_disk_shows_what_is_finished_and_names_what_is_not(
    finished, tmp_path, monkeypatch, state
):
    workdir = copy(finished, tmp_path / "copy", state)

    def guarded(function, *, writes=lambda arguments: True):
        def call(path, *arguments, **options):
            inside = not isinstance(path, int) and str(path).startswith(str(workdir.path))
            if inside and writes([*arguments, *options.values()]):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return function(path, *arguments, **options)

        return call

    def writing(arguments):
        return any(isinstance(one, str) and set(one) & set("wax+") for one in arguments[:1])

    with monkeypatch.context() as patch:
        for name in ("mkdir", "unlink", "replace", "rename", "rmdir", "link", "symlink"):
            patch.setattr(os, name, guarded(getattr(os, name)))
        patch.setattr(os, "open", guarded(os.open, writes=lambda found: found[0] & (os.O_RDWR | os.O_WRONLY)))
        for module in (builtins, io):
            patch.setattr(module, "open", guarded(module.open, writes=writing))
        code, text = workdir.grid()
    assert code == (0 if state == "done" else 1), text
    assert "| Intermediate |" in text and (state == "done" or os.strerror(errno.EROFS) in text), text
    code, text = workdir.grid()
    assert (code, workdir.scores()) == (0, finished.scores()), text


def test_a_bad_moment_of_the_storage_is_no_damage(tmp_path, monkeypatch):
    items = {"params": jnp.ones(3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, items, {})
        checkpoints.wait()
        read = checkpoints._manager.restore

        def restore(*step, args):
            if "record" not in args:  # as orbax tells it
                raise Exception("See full TensorStore details") from ValueError("UNAVAILABLE: 503")
            return read(*step, args=args)

        monkeypatch.setattr(checkpoints._manager, "restore", restore)
        with pytest.raises(CheckpointError, match=r"can't be read now: .*503"):
            checkpoints.restore_newest(items)
    assert (tmp_path / "2").is_dir()
