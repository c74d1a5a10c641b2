"""What a phase reads is chosen once, and a cache hit reads no file of the data."""

import sys
import time
from types import SimpleNamespace

import pytest

from stilts_jax.config import load_config, to_settings
from stilts_jax.experiment import context as shared
from stilts_jax.experiment import models
from stilts_jax.experiment.context import Context, choose_scored, take_first
from stilts_jax.experiment.models import encoder_fingerprint, head_config, load_phase_start
from stilts_jax.experiment.needs import check_data
from stilts_jax.experiment.phases import list_phases
from stilts_jax.experiment.train import load_selection, load_training
from stilts_jax.model import HeadConfig, TaskHead
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import classify_task, span_task
from stilts_jax.tasks.sources.read import DataSource

watchers: list[list[str]] = []  # a hook stays for good: it does nothing while nobody watches


def watch(event, arguments):
    if event == "open":
        for names in watchers:
            names.append(str(arguments[0]))


sys.addaudithook(watch)


@pytest.fixture
def opened():
    watchers.append([])
    yield watchers[-1]
    watchers.clear()


@pytest.fixture
def start(world, tmp_path):
    def start(targets, **options):
        overrides = {"encoder": f"random:{world / 'encoder'}", "train.max_length": 128, **options}
        settings = to_settings(load_config(f"xstilts:intermediates=none,targets={targets}", overrides))
        return Context(settings, DataSource(world / "data"), tmp_path), list_phases(settings)

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
        for part, features in load_selection(phase, context):
            found[part.task.name, part.split, "selection"] = features.examples
    return found


def test_a_second_run_opens_no_file_of_the_data(start, world, opened):
    targets, data = "xnli+xquad+udpos+xcopa", str(world / "data")
    first = read_all(*start(targets))
    assert any(name.startswith(data) for name in opened)
    opened.clear()
    assert read_all(*start(targets)) == first and not [name for name in opened if name.startswith(data)]
    assert {language: len(rows) for language, rows in first["xnli", "test"][0].items()}.keys() > {"en", "de"}


def test_large_weights_are_read_once_until_they_change(tmp_path, monkeypatch):
    read, whole, weights = [], models.hash_files, tmp_path / "model.safetensors"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "read_shape", lambda folder: None)  # these files hold no encoder
    monkeypatch.setattr(models, "_WORTH_REMEMBERING", 4)
    monkeypatch.setattr(models.time, "time_ns", lambda: 2**62)
    monkeypatch.setattr(models, "hash_files", lambda paths: read.append(paths) or whole(paths))
    found = []
    for text in ("weights", "WEIGHTS", "weights"):
        weights.write_text(text)
        time.sleep(0.02)  # the file system's clock ticks
        found += [encoder_fingerprint(str(tmp_path), SimpleNamespace(debug=False)) for _ in range(2)]
    assert found[0] == found[1] == found[4] != found[2] and len(read) == 3
    (memory,) = (tmp_path / "cache").rglob("hashes/*.json")
    memory.write_text(memory.read_text().replace('"hash": "', '"hash": "0'))
    assert encoder_fingerprint(str(tmp_path), SimpleNamespace(debug=False)) == found[0]  # it has a digest too


@pytest.mark.parametrize("name", ["attention_dropout", "hidden_dropout"])
def test_dropout_is_the_encoders_unless_it_is_set(start, name):
    head = 0.2 if name == "hidden_dropout" else 0.1
    for given, ours, of_the_head in (({}, 0, 0.1), ({f"model.{name}": "0.2"}, 0.2, head)):
        context, (phase,) = start("udpos", **given)
        assert getattr(load_phase_start(phase, context).config, name) == ours  # 0, says the toy encoder
        assert head_config(get_task("udpos"), context.settings).dropout == of_the_head


def test_a_threshold_is_tuned_in_a_language_that_is_not_scored(start, tmp_path, monkeypatch):
    files = {"dev": "dev.json", "test": "test-{language}.json"}
    task = span_task("mine", files=files, languages=("de",), metric="squad_v2")
    monkeypatch.setattr(shared, "get_task", lambda name: task)
    context, _ = start("udpos")
    context.source = DataSource(tmp_path)
    for name in ("dev.json", "test-de.json"):
        (tmp_path / name).touch()
    found = {part.split: part.languages for part in choose_scored("mine", context)}
    assert found == {"dev": ("en",), "test": ("de",)}


def test_labels_of_the_form_of_no_names_fit_where_the_task_has_them():
    head = TaskHead(HeadConfig(kind="classify", num_labels=2), {}, ("LABEL_0", "LABEL_1"))
    task = classify_task("mine", files={"train": "a.csv"}, labels=head.labels)
    assert models.fit_head(task, "mine", head) is head


def test_a_limit_takes_of_each_part_of_a_task_its_share():
    """ANLI+ lays SNLI, MNLI and three rounds end to end: its first rows would be SNLI's alone."""
    assert take_first(get_task("anli"), range(100), 5) == [0, 20, 40, 60, 80]
    assert list(take_first(get_task("mnli"), range(9), 4)) == [0, 1, 2, 3]
