"""What is in a phase's key and what is not."""

import pytest

from stilts_jax.config import load_config, to_settings
from stilts_jax.experiment.keys import evaluation_record, hash_record, training_record
from stilts_jax.experiment.phases import list_phases
from stilts_jax.tasks import get_task


def fingerprint(task, split, language):
    return f"{task.name}/{split}/{language}"


def keys_of(overrides=None, *, data=fingerprint, languages=("de", "ru"), start="encoder"):
    settings = to_settings(load_config("target:task=panx", overrides or {}))
    (phase,) = list_phases(settings, get_task)
    trained = training_record(phase, settings, get_task, start, data)
    scored = evaluation_record(phase, settings, get_task, data, lambda task, split: languages)
    return hash_record(trained), hash_record(scored)


BEFORE = keys_of()


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.learning_rate": "3e-5"},
        {"train.window": "1"},
        {"train.max_steps": "10"},
        {"train.phase_vocabulary": "false"},
        {"compute.dtype": "float32"},
        {"model.head_form": "jiant"},
        {"experiment.first_seed": "7"},
        {"experiment.source_language": "de"},
        {"data.limit": "5"},
    ],
)
def test_what_defines_training_changes_its_key(overrides):
    assert keys_of(overrides)[0] != BEFORE[0]


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.accumulation": "2"},
        {"train.checkpoint_every": "7"},
        {"train.log_every": "7"},
        {"mesh.fsdp": "4"},
        {"compute.remat": "full"},
        {"compute.attention": "xla"},
        {"evaluation.tokens_per_batch": "128"},
        {"experiment.keep": "all"},
        {"title": "another"},
        {"experiment.target_seeds": "1"},
    ],
)
def test_how_a_run_is_computed_does_not(overrides):
    assert keys_of(overrides) == BEFORE


def test_test_data_and_languages_only_change_the_evaluation():
    more = keys_of(languages=("de", "ru", "sw"))
    assert more[0] == BEFORE[0]
    assert more[1] != BEFORE[1]
    changed = keys_of(data=lambda task, split, language: f"{task.name}/{split}/{language}{split == 'test'}")
    only_test = keys_of(
        data=lambda task, split, language: f"{task.name}/{split}/{language}" + "!" * (split == "test")
    )
    assert only_test[0] == BEFORE[0]
    assert only_test[1] != BEFORE[1]
    assert changed[0] != BEFORE[0]  # every split's data looks different there, the training data too


def test_training_in_another_language_depends_on_that_languages_data():
    german = {"experiment.source_language": "de"}
    before = keys_of(german)[0]
    assert keys_of(german, data=lambda *names: fingerprint(*names) + "!" * (names[2] == "de"))[0] != before
    assert keys_of(german, data=lambda *names: fingerprint(*names) + "!" * (names[2] == "en"))[0] == before


def test_another_encoder_or_parent_is_another_key():
    assert keys_of(start="another")[0] != BEFORE[0]


def test_the_mixture_counts_only_where_tasks_are_mixed():
    assert keys_of({"mixture.cap": "5"}) == BEFORE
