import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from stilts_jax.errors import DataError
from stilts_jax.features.build import FeatureSettings, build_features, load_or_build
from stilts_jax.features.records import Features, Ragged, keep_examples
from stilts_jax.files import this_machine
from stilts_jax.progress import Progress
from stilts_jax.tasks import spec

EXAMPLES = {
    "classify": [spec.ClassifyExample("1", "a b", "中国", 0), spec.ClassifyExample("2", "b", None, 1)],
    "choice": [spec.ChoiceExample("1", "a", ("b", "c", "d"), 0), spec.ChoiceExample("2", "a", ("b", "c"), 1)],
    "tag": [spec.TagExample("1", ("a", "b"), (0, 1)), spec.TagExample("2", (), ())],
    "span": [spec.SpanExample("1", "a", "b c " * 40, (("b", 0),))],
    "embed": [spec.EmbedExample("1", "a", "b"), spec.EmbedExample("2", "a b c", "b")],
    "mlm": [spec.TextExample("1", "a b c " * 30)],
}
KEY = {"task": "t", "version": 1}


def tiny() -> Features:
    tokens = Ragged.from_list([[0, 5, 2], [0, 2]])
    columns = {"example": np.arange(2), "language": np.zeros(2, np.int32), "tokens": tokens}
    return Features("embed", {**columns}, ("en",), 2)


def assert_same(first, second):
    assert (first.kind, first.languages) == (second.kind, second.languages)
    assert first.num_examples == second.num_examples and set(first.columns) == set(second.columns)
    for name, column in first.columns.items():
        pairs = [(column, second.columns[name])]
        if isinstance(column, Ragged):
            pairs = list(zip(vars(column).values(), vars(second.columns[name]).values()))
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype, name


@pytest.mark.parametrize("kind", spec.KINDS)
def test_rows_come_back_with_their_gold_and_texts(tokenizer, tmp_path, kind):
    told = spec.ClassifyExample("3", "?", None, 1, ("a/b.png",), ("yes",) * 10, (1, 0))
    examples = {"en": EXAMPLES[kind], "de": [told] if kind == "classify" else [], "th": EXAMPLES[kind][:1]}
    features = build_features(kind, examples, tokenizer, FeatureSettings(20, 8, 5), training=False)
    kept = kind != "mlm"  # running text has no gold
    if kept:
        features = keep_examples(features, examples, {"de": ["line 3: no text"]})
    load_or_build(tmp_path, KEY, lambda: features)
    found = load_or_build(tmp_path, KEY, lambda: pytest.fail("it was built already"))
    assert_same(features, found)
    assert not kept or (found.examples == examples and found.skipped == features.skipped)
    empty = build_features(kind, {"en": []}, tokenizer, FeatureSettings(), training=True)
    assert_same(empty, load_or_build(tmp_path, {"empty": True}, lambda: empty))


def test_the_second_time_reads_a_mapped_file(tmp_path):
    build = Mock(side_effect=tiny)
    load_or_build(tmp_path, KEY, build)
    features = load_or_build(tmp_path, dict(reversed(KEY.items())), build)
    assert build.call_count == 1
    tokens = features.columns["tokens"]
    for array in (tokens.values, tokens.offsets, features.columns["example"]):
        assert not array.flags.owndata and not array.flags.writeable
    load_or_build(tmp_path, {**KEY, "version": 2}, build)
    assert build.call_count == 2


def test_a_killed_build_leaves_nothing_that_is_used(tmp_path):
    code = f"""
import os, pathlib, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_store import KEY, tiny
from stilts_jax.features.build import load_or_build
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
load_or_build(pathlib.Path({str(tmp_path)!r}), KEY, tiny)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".tmp")
    build = Mock(side_effect=tiny)
    assert_same(tiny(), load_or_build(tmp_path, KEY, build))
    assert build.call_count == 1
    assert not list(tmp_path.glob(".*"))  # what the dead process left is gone


def test_temporary_files_of_the_living_stay(tmp_path):
    tmp_path.joinpath(f".x.arrow.{this_machine()}.{os.getpid()}-0.tmp").touch()
    tmp_path.joinpath(".x.arrow.elsewhere.1-0.tmp").touch()
    # What another process moves into place meanwhile is listed and then gone.
    tmp_path.joinpath(".z.arrow.elsewhere.1-0.tmp").symlink_to("gone")
    old = tmp_path / ".y.arrow.elsewhere.1-0.tmp"
    old.touch()
    os.utime(old, (time.time() - 2e5,) * 2)
    load_or_build(tmp_path, KEY, tiny)
    assert len(list(tmp_path.glob(".x*"))) == 2 and not old.exists()


DAMAGES = {
    "flip": (".arrow", lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:]),
    "cut": (".arrow", lambda content: content[:-8]),
    "gone": (".arrow", None),
    "manifest": (".json", lambda content: b"{}"),
    "not json": (".json", lambda content: b"no"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_built_again_and_said(tmp_path, damage, capsys):
    build = Mock(side_effect=tiny)
    load_or_build(tmp_path, KEY, build)
    suffix, change = DAMAGES[damage]
    (path,) = tmp_path.glob(f"*{suffix}")
    path.write_bytes(change(path.read_bytes())) if change else path.unlink()
    assert_same(tiny(), load_or_build(tmp_path, KEY, build, Progress(sys.stderr)))
    assert build.call_count == 2 and "built again" in capsys.readouterr().err
    load_or_build(tmp_path, KEY, build)
    assert build.call_count == 2


def test_a_table_of_pictures_that_is_cut_to_nothing_is_made_again(tmp_path):
    def build():
        np.save(tmp_path / "seen.npy", np.zeros((1, 2, 3)))
        return replace(tiny(), pictures=str(tmp_path / "seen.npy"))

    load_or_build(tmp_path, KEY, build)
    (tmp_path / "seen.npy").write_bytes(b"")
    assert load_or_build(tmp_path, KEY, build).table.shape == (1, 2, 3)


def test_a_cache_that_cannot_be_written_is_an_error_with_the_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(DataError) as caught:
        load_or_build(tmp_path / "file", KEY, tiny)
    assert "file" in caught.value.where and caught.value.fix

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError, match="No space left"):
        load_or_build(tmp_path / "cache", KEY, tiny)
    monkeypatch.undo()
    assert not list((tmp_path / "cache").iterdir())
    assert_same(tiny(), load_or_build(tmp_path / "cache", KEY, tiny))
