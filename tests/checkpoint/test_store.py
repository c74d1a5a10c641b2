import io
import logging
import os
import re
import resource
import shutil
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from stilts_jax.checkpoint import Checkpoints, digest_leaves
from stilts_jax.errors import CheckpointError
from stilts_jax.progress import Progress


def _items(seed):
    random = np.random.default_rng(seed)
    word, low, kernel = (jnp.asarray(random.normal(size=size)) for size in ((64, 32), 5, (32, 3)))
    params = {"encoder": {"word": word, "low": low.astype(jnp.bfloat16)}, "heads": {"a": {"kernel": kernel}}}
    return {"params": params, "moments": jnp.asarray(seed, jnp.int32), "empty": optax.EmptyState()}


def _abstract(items):
    return jax.eval_shape(lambda: items)


def _equal(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), one, other))


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints of steps 1 and 2."""
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, _items(step), {"history": [[step, 0.5]]})
    return tmp_path / "run" / "checkpoints"


def _array_file(folder):
    """The largest data file of the parameters."""
    return max((folder / "params").rglob("d/*"), key=lambda path: path.stat().st_size)


def test_the_newest_step_comes_back_bit_for_bit(saved):
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        step, items, record = checkpoints.restore_newest(_abstract(_items(0)))
        assert int(checkpoints.load("moments")) == 2
        with pytest.raises(CheckpointError, match="another name"):
            checkpoints.save(3, {"record": items["params"]}, {})  # the record would take its place
        checkpoints.save(3, {"listed": [items["moments"]]}, {})
        with pytest.raises(CheckpointError, match="has lists or tuples"):  # which is no damage
            checkpoints.load("listed")
        with pytest.raises(CheckpointError, match="no checkpoint of step 7"):  # which is none either
            checkpoints.restore(7, {})
    assert step == 2 and _equal(items, _items(2)) and record == {"history": [[2, 0.5]]}


def _flip(folder, everywhere=False):
    """Flips a bit in the middle of the largest data file, or near the end of each, compressed ones too."""
    for path in (folder / "params").rglob("d/*") if everywhere else [_array_file(folder)]:
        data = bytearray(path.read_bytes())
        data[-3 if everywhere else len(data) // 2] ^= 64
        path.write_bytes(data)


def _exchange(folder, part=""):
    """Puts there what the other step has: every file is sound."""
    shutil.rmtree(folder / part)
    shutil.copytree(folder.parent / "1" / part, folder / part)


def _edit_record(folder):
    (path,) = (path for path in (folder / "record").iterdir() if '"payload"' in path.read_text())
    path.write_text(path.read_text().replace("[[2, 0.5", "[[2, 0.7"))


FAULTS = {
    "flip": _flip,
    "flip anywhere": lambda folder: _flip(folder, everywhere=True),
    "cut": lambda folder: os.truncate(_array_file(folder), _array_file(folder).stat().st_size // 2),
    "no array": lambda folder: _array_file(folder).unlink(),
    "no moments": lambda folder: shutil.rmtree(folder / "moments"),
    "empty": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "other arrays": lambda folder: _exchange(folder, "params"),
    "another step": _exchange,
    "edited record": _edit_record,
    "cut record": lambda folder: [os.truncate(path, 7) for path in (folder / "record").iterdir()],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_step_is_named_and_passed_over(saved, fault):
    FAULTS[fault](saved / "2")
    with Checkpoints(saved, progress=Progress(heard := io.StringIO())) as checkpoints:
        step, items, _ = checkpoints.restore_newest(_abstract(_items(0)))
        assert step == 1 and _equal(items, _items(1))
        assert "checkpoints/2 is passed over" in heard.getvalue() and "bound method" not in heard.getvalue()
        # The run comes by step 2 once more, and it must be possible to save it.
        checkpoints.save(2, _items(7), {})
        checkpoints.wait()
        assert _equal(checkpoints.restore(2, _abstract(_items(0)))[0], _items(7))
    assert (saved.parent / "damaged" / "2").is_dir()


def test_nothing_good_left_is_an_error(saved):
    for step in ("1", "2"):
        _flip(saved / step, everywhere=True)
    with Checkpoints(saved, read_only=True) as checkpoints, pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load("params")
    assert (saved / "2").exists()  # a reader moves nothing
    with Checkpoints(saved) as checkpoints, pytest.raises(CheckpointError, match="None of the checkpoints"):
        checkpoints.restore_newest(_abstract(_items(0)))
    (saved.parent / "file").touch()  # told now, and not by the first save
    with pytest.raises(CheckpointError, match="no folder"), Checkpoints(saved.parent / "file") as checkpoints:
        checkpoints.restore_newest(_abstract(_items(0)))


def test_another_shape_dtype_or_tree_is_an_error_that_names_it(saved):
    cases = {
        "encoder/word: float32 (64, 32) saved, float32 (65, 32) wanted": ("word", ((65, 32), jnp.float32)),
        "encoder/word: float32 (64, 32) saved, bfloat16 (64, 32) wanted": ("word", ((64, 32), jnp.bfloat16)),
        "encoder/more: nothing saved, float32 (2,) wanted": ("more", ((2,), jnp.float32)),
        "encoder/low: bfloat16 (5,) saved, nothing wanted": ("low", None),
    }
    with Checkpoints(saved) as checkpoints:
        for message, (name, form) in cases.items():
            wanted = _abstract(_items(0))
            del wanted["params"]["encoder"]["low" if form is None else "word"]
            wanted["params"]["encoder"]["word"] = jax.ShapeDtypeStruct((64, 32), jnp.float32)
            if form:
                wanted["params"]["encoder"][name] = jax.ShapeDtypeStruct(*form)
            with pytest.raises(CheckpointError, match=re.escape(message)):
                checkpoints.restore_newest(wanted)
        assert checkpoints.steps() == [1, 2]  # nothing was taken for damage


def test_the_newest_and_the_protected_steps_stay(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for step in range(1, 7):
            checkpoints.save(step, _items(step), {}, protect=[min(step, 2)])
        checkpoints.wait()
        assert checkpoints.steps() == [2, 5, 6]
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.restore_newest(_abstract(_items(0)))
    assert Checkpoints(tmp_path / "c").steps() == [2, 5, 6]  # opening deletes nothing


def test_a_step_can_be_saved_again_and_its_record_is_that_of_the_call(tmp_path):
    history = []
    with Checkpoints(tmp_path / "c") as checkpoints:
        for seed in (1, 2):
            checkpoints.save(np.int64(3), _items(seed), {"history": history, "loss": jnp.float32(0.5)})
            history.append([seed, 0.5])  # while orbax is still writing
        checkpoints.wait()
        step, items, record = checkpoints.restore_newest(_abstract(_items(0)))
        with pytest.raises(TypeError, match="'float'"):
            checkpoints.save(4.0, items, {})  # which orbax saves, and never finds
    assert step == 3 and _equal(items, _items(2)) and record == {"history": [[1, 0.5]], "loss": 0.5}


def test_a_save_that_fails_half_way_leaves_the_older_step(tmp_path, monkeypatch):
    big = _items(2)
    big["params"]["encoder"]["word"] = jax.random.normal(jax.random.key(0), (512, 512))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, _items(1), {})
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.close", lambda manager: [][0])  # raises twice
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    try:
        with pytest.raises(CheckpointError, match="could not be"), Checkpoints(tmp_path / "c") as checkpoints:
            checkpoints.save(2, big, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.undo()
    with Checkpoints(tmp_path / "c") as checkpoints:
        step, items, _ = checkpoints.restore_newest(_abstract(_items(0)))
    assert step == 1 and _equal(items, _items(1))


def test_a_read_that_ends_after_another_failed_prints_nothing(saved, capsys):
    """Tensorstore's threads find orbax's loop closed then, and asyncio has failures that nobody asked for."""
    with Checkpoints(saved, read_only=True) as checkpoints:
        checkpoints.load("params")
    closed = RuntimeError("Event loop is closed")
    late = SimpleNamespace(exc_type=RuntimeError, exc_value=closed, exc_traceback=None, object=None)
    sys.unraisablehook(late)
    for kind in ("Future", "Task"):
        logging.getLogger("asyncio").error(f"{kind} exception was never retrieved")
    said = capsys.readouterr().err
    assert "closed" not in said and "never retrieved" not in said


def _reference(array):
    """The same number, written with Python's big integers."""
    words = np.frombuffer(np.ascontiguousarray(array).tobytes(), f"<u{min(array.dtype.itemsize, 4)}")
    total = 0
    for place, word in enumerate(words):
        factor = place * 0x9E3779B1 % 2**32
        factor = (factor ^ (factor >> 15)) * 0x85EBCA77 % 2**32
        total += int(word) * (factor | 1)
    return total % 2**32


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32, np.uint8, bool, np.float16])
def test_digests_are_those_of_a_plain_loop(dtype):
    array = np.random.default_rng(0).normal(0, 50, (5, 7, 3)).astype(dtype)
    assert digest_leaves({"a": {"b": jnp.asarray(array)}}) == {"a/b": _reference(array)}
