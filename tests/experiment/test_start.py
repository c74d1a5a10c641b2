"""The fingerprint of an encoder: remembered while its files are as they were."""

import os

import pytest

from stilts_jax.experiment import start
from stilts_jax.experiment.start import encoder_fingerprint


class Settings:
    debug = False


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """The names of the files that were read, in order."""
    names, whole = [], start.hash_files
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(start, "read_shape", lambda folder: None)  # these files hold no encoder
    monkeypatch.setattr(start, "_WORTH_REMEMBERING", 4)
    monkeypatch.setattr(start, "hash_files", lambda paths: names.append(paths[0].name) or whole(paths))
    return names


def test_a_large_file_is_read_once_until_it_changes(tmp_path, hashed):
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = folder / "model.safetensors"

    def write(text, changed):
        weights.write_text(text)
        os.utime(weights, (changed, changed))
        return encoder_fingerprint(str(folder), Settings())

    first = write("weights", 1000)
    assert [encoder_fingerprint(str(folder), Settings()) for _ in range(2)] == [first] * 2
    assert hashed.count("model.safetensors") == 1
    assert write("WEIGHTS", 2000) != first
    assert write("weights", 3000) == first
    assert hashed.count("model.safetensors") == 3
    (memory,) = (tmp_path / "cache").rglob("hashes/*.json")
    memory.write_text(memory.read_text().replace('"hash": "', '"hash": "0'))
    assert encoder_fingerprint(str(folder), Settings()) == first  # what is remembered has a digest too
    assert hashed.count("config.json") == 6
