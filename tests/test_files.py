"""Files that are written whole, records with a digest, and copies of what lies in an object store."""

import importlib
import json
import os
import shutil

import fsspec
import pytest

from stilts_jax.errors import ConfigError, EncoderError, RecordError
from stilts_jax.files import fetch_folder, read_record, replacing, write_record, write_whole
from stilts_jax.model import find_folder

RECORD = {"format": 2, "score": 71.25, "names": ("a", "é"), "inner": {1: None}}


def test_a_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path / "x.json", RECORD)
    found = read_record(tmp_path / "x.json", 2)
    assert found == {"format": 2, "score": 71.25, "names": ["a", "é"], "inner": {"1": None}}
    indented = json.dumps(json.loads((tmp_path / "x.json").read_text()), indent=8, sort_keys=True)
    (tmp_path / "x.json").write_text(indented)
    assert read_record(tmp_path / "x.json", 2) == found  # white space and order are no content
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "y.json")


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda text: "", lambda text: text[:-9], lambda text: "[]", lambda text: "[" * 99999),
        *(lambda text: text.replace("71.25", "71.26"), lambda text: text.replace("null", "0")),
        *(lambda text: text.replace('"format": 2', '"format": 1'), lambda text: "1" * 5000),
        *(lambda text: json.dumps({**json.loads(text), "more": 1}), lambda text: "\x00" * 100),
        lambda text: json.dumps({"format": 2, "score": 71.25}),
    ],
)
def test_a_changed_record_is_refused_with_its_path(tmp_path, damage):
    path = tmp_path / "x.json"
    write_record(path, RECORD)
    path.write_text(damage(path.read_text()))
    with pytest.raises(RecordError) as caught:
        read_record(path, 2)
    assert caught.value.where == str(path) and caught.value.fix


def test_a_file_has_the_rights_of_the_umask_and_leaves_nothing_beside_it(tmp_path):
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "x", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match=r"not empty: '.*/folder'"), replacing(tmp_path / "folder", folder=True):
        write_whole(tmp_path / "folder" / "y", "text")  # as another process does that was faster
    with pytest.raises(OSError) as caught:
        write_whole(tmp_path / "folder", "text")
    assert str(caught.value).endswith(f"directory: '{tmp_path / 'folder'}'")
    with pytest.raises(OSError, match="source"), replacing(tmp_path / "x"):
        (tmp_path / "source").read_bytes()  # it is not the file that is written that is missing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "x"]


def test_a_remote_file_of_the_same_size_with_other_content_is_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BUCKET_ROOT", str(tmp_path))
    buckets = importlib.import_module("tests.long.bucket_program").Buckets
    for name in buckets.protocol:
        fsspec.register_implementation(name, buckets, clobber=True)
    remote = tmp_path / "bucket/encoder"
    remote.mkdir(parents=True)
    for name, content in (("config.json", "{}"), ("model.bin", "first"), ("old.bin", "x")):
        (remote / name).write_text(content)
    copy = fetch_folder("gs://bucket/encoder")
    assert (copy / "model.bin").read_text() == "first"
    config = (copy / "config.json").stat()
    (remote / "model.bin").write_text("other")
    (remote / "old.bin").unlink()
    assert fetch_folder("gs://bucket/encoder") == copy and (copy / "model.bin").read_text() == "other"
    assert not (copy / "old.bin").exists()
    assert (copy / "config.json").stat().st_mtime_ns == config.st_mtime_ns  # as it was: not copied again
    (copy / "model.bin").write_text("cut")
    assert (fetch_folder("gs://bucket/encoder") / "model.bin").read_text() == "other"
    shutil.rmtree(remote)
    with pytest.raises(EncoderError, match="no such folder"):
        find_folder("gs://bucket/encoder")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", str)  # as for a user without a name and without HOME
    with pytest.raises(ConfigError, match="home"):
        find_folder("gs://bucket/encoder")
