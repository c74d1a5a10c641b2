"""What a phase reads is chosen once, and a cache hit reads no file of the data."""

import os
import sys

import pytest

from stilts_jax.config import load_config, to_settings
from stilts_jax.experiment import models
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.data import load_selection, load_training, take_first
from stilts_jax.experiment.models import encoder_fingerprint, head_config, load_phase_start
from stilts_jax.experiment.needs import check_data
from stilts_jax.experiment.phases import list_phases
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource

watchers: list[list[str]] = []  # a hook stays for good: it does nothing while nobody watches


def watch(event, arguments):
    if event == "open":
        for names in watchers:
            names.append(str(arguments[0]))


sys.addaudithook(watch)


@pytest.fixture
def opened():
    """The names of the files that are opened."""
    watchers.append([])
    yield watchers[-1]
    watchers.clear()


@pytest.fixture
def start(world, tmp_path):
    """Opens an experiment in one work directory, as often as it is called."""

    def start(targets, **options):
        overrides = {"encoder": f"random:{world / 'encoder'}", **options}
        settings = to_settings(load_config(f"xstilts:intermediates=none,targets={targets}", overrides))
        context = Context(settings, DataSource(world / "data"), tmp_path)
        return context, list_phases(settings)

    return start


def read_all(context, phases):
    """Does what a run does before it trains; returns what scoring would be given."""
    check_data(phases, context)
    found = {}
    for phase in phases:
        for part, features in load_training(phase, context):
            found[part.task.name, part.split] = len(features)
        tokenizer, data = context.tokenizer(phase.encoder), context.data(phase)
        for part in (part for parts in data.scored.values() for part in parts):
            features = context.features(part, tokenizer)
            found[part.task.name, part.split] = (features.examples, features.languages, features.skipped)
        for head, part, features in load_selection(phase, context):
            found[head, part.split, "selection"] = features.examples
    return found


def test_a_second_run_opens_no_file_of_the_data(start, world, opened):
    targets, data = "xnli+xquad+udpos+xcopa", str(world / "data")
    first = read_all(*start(targets))
    assert any(name.startswith(data) for name in opened)
    opened.clear()
    assert read_all(*start(targets)) == first
    assert not [name for name in opened if name.startswith(data)]
    assert {language: len(rows) for language, rows in first["xnli", "test"][0].items()}.keys() > {"en", "de"}


class Settings:
    debug = False


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """The names of the files that were read, in order."""
    names, whole = [], models.hash_files
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "read_shape", lambda folder: None)  # these files hold no encoder
    monkeypatch.setattr(models, "_WORTH_REMEMBERING", 4)
    monkeypatch.setattr(models, "hash_files", lambda paths: names.append(paths[0].name) or whole(paths))
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


@pytest.mark.parametrize("name", ["attention_dropout", "hidden_dropout"])
def test_dropout_is_the_encoders_unless_it_is_set(start, name):
    context, (phase,) = start("udpos")
    assert getattr(load_phase_start(phase, context).config, name) == 0  # so says the toy encoder
    assert head_config(get_task("udpos"), context.settings).dropout == 0.1
    context, (phase,) = start("udpos", **{f"model.{name}": "0.2"})
    assert getattr(load_phase_start(phase, context).config, name) == 0.2
    assert head_config(get_task("udpos"), context.settings).dropout == (
        0.2 if name == "hidden_dropout" else 0.1
    )


def test_a_limit_takes_of_each_part_of_a_task_its_share():
    """ANLI+ lays SNLI, MNLI and three rounds end to end: its first rows would be SNLI's alone."""
    assert take_first(get_task("anli"), range(100), 5) == [0, 20, 40, 60, 80]
    assert list(take_first(get_task("mnli"), range(9), 4)) == [0, 1, 2, 3]
