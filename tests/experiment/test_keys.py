"""What is in a phase's key and what is not."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from stilts_jax.config import load_config, to_settings
from stilts_jax.experiment import context
from stilts_jax.experiment.context import Context, Part, PhaseData
from stilts_jax.experiment.phases import Phase, list_phases
from stilts_jax.experiment.results import find_kept
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import classify_task
from stilts_jax.tasks.sources.read import DataSource
from stilts_jax.tasks.sources.read import fingerprint as fingerprint_of
from stilts_jax.tasks.spec import Hyperparameters


def fingerprint(task, split, language, source):
    return f"{task.name}/{split}/{language}"


def data_of(phase, languages):
    """What a phase reads where all files are there."""
    trained, scored, chosen = get_task(phase.train[0]), get_task(phase.evaluate[0]), Hyperparameters()
    dev = Part(trained, "dev", (trained.source_language,), chosen)
    return PhaseData(
        (replace(dev, split="train"),),
        {trained.name: (dev,)},
        {scored.name: (Part(scored, "test", tuple(languages), chosen),)},
    )


class Experiment(Context):
    """One that reads what it is told to, from no file."""

    def __init__(self, overrides, read, data=fingerprint, start="encoder"):
        super().__init__(to_settings(load_config("target:task=panx", overrides)), DataSource(Path()), Path())
        self.data, self.told = read, {"fingerprint": data, "encoder_fingerprint": lambda *_: start}

    def training_record(self, phase):
        with patch.multiple(context, **self.told):
            return super().training_record(phase)

    def evaluation_record(self, phase):
        with patch.multiple(context, **self.told):
            return super().evaluation_record(phase)


def keys_of(overrides=None, *, languages=("de", "ru"), **told):
    experiment = Experiment(overrides or {}, lambda phase: data_of(phase, languages), **told)
    (phase,) = list_phases(experiment.settings)
    return experiment.key(phase), experiment.evaluation_key(phase)


BEFORE = keys_of()
DEFINING = {
    **{"train.learning_rate": "3e-5", "train.window": "1", "train.max_steps": "10", "data.limit": "5"},
    **{"train.phase_vocabulary": "false", "compute.dtype": "float32", "model.head_form": "jiant"},
    **{"experiment.first_seed": "7", "experiment.source_language": "de", "model.attention_dropout": "0"},
    **{"model.hidden_dropout": "0", "train.by_task": "panx.head_rate=3", "train.epochs": "7"},
}
COMPUTING = {
    **{"train.accumulation": "2", "train.checkpoint_every": "7", "train.log_every": "7", "mesh.fsdp": "4"},
    **{"compute.remat": "full", "compute.layers": "loop", "compute.attention": "xla", "train.buckets": "3"},
    **{"experiment.keep": "all", "title": "another", "experiment.target_seeds": "1"},
    "mixture.cap": "5",  # as nothing is mixed
}


def test_the_order_of_tasks_that_are_mixed_defines_training():
    """The first one's rate is that of the run."""

    def key_of(row):
        experiment = Experiment({"experiment.intermediates": row, "experiment.targets": ""}, None)
        (phase,) = list_phases(experiment.settings)
        parts = tuple(Part(get_task(name), "train", ("en",), Hyperparameters()) for name in phase.train)
        experiment.data = lambda _: PhaseData(parts, dict.fromkeys(phase.train, ()))
        return experiment.key(phase)

    assert key_of("mnli/mlm") != key_of("mlm/mnli")


@pytest.mark.parametrize("option", [*DEFINING, *COMPUTING])
def test_what_defines_training_changes_its_key_and_how_it_is_computed_does_not(option):
    found = keys_of({option: (DEFINING | COMPUTING)[option]})
    assert found[0] != BEFORE[0] if option in DEFINING else found == BEFORE


def test_test_data_and_languages_only_change_the_evaluation():
    for changed in (
        keys_of(languages=("de", "ru", "sw")),
        keys_of(data=lambda *names: fingerprint(*names) + "!" * (names[1] == "test")),
    ):
        assert changed[0] == BEFORE[0] and changed[1] != BEFORE[1]
    assert keys_of(start="another encoder")[0] != BEFORE[0]


def test_scores_stand_where_no_more_is_asked_for():
    """Another command in the work directory may ask for fewer languages or other tasks, and loses none."""

    def ask(*languages, **overrides):
        experiment = Experiment(overrides, lambda phase: data_of(phase, languages))
        (phase,) = list_phases(experiment.settings)
        return phase, experiment

    phase, wide = ask("de", "ru")
    before = {"phase": {"key": wide.key(phase)}, "evaluation": wide.evaluation_record(phase)}
    assert find_kept(before, *ask("ru")) == find_kept(before, *ask("de", "ru")) == ["panx"]
    limited = ask("de", **{"evaluation.limit": "5"})
    assert find_kept(before, *ask("de", "sw")) == find_kept(before, *limited) == []
    other = Experiment({}, lambda phase: replace(data_of(phase, ()), scored={}))
    assert find_kept(before, phase, other) == ["panx"]
    assert find_kept(None, phase, wide) == find_kept(before | {"phase": {"key": ""}}, phase, wide) == []


def made(name="reviews", **words):
    columns = {"labels": ("bad", "good"), "text": "review", "label": "verdict", **words}
    return classify_task(name, files={"train": "train.csv", "test": "test.csv"}, **columns)


DECLARATIONS = {
    "another column": made(text="sentence"),
    "labels the other way round": made(labels=("good", "bad")),
    "a second text": made(pair="reply"),
    "another version": made(version=2),
}


@pytest.mark.parametrize("change", DECLARATIONS)
def test_another_declaration_is_another_key_of_features_and_of_phases(change, tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("review,verdict\nFine.,good\n")
    source = DataSource(tmp_path)

    def both(task):
        prints = [fingerprint_of(task, split, "en", source) for split in ("train", "test")]
        phase = Phase("reviews", "target", "none", (task.name,), (task.name,), "encoder")
        read = PhaseData((Part(task, "train", ("en",), Hyperparameters()),), {task.name: ()})
        told = Experiment({}, lambda phase: read, lambda *what: fingerprint_of(*what[:3], source))
        return [*prints, told.key(phase)]

    before, after = both(made()), both(DECLARATIONS[change])
    assert both(made()) == before and not set(before) & set(after)


def test_a_test_file_or_language_more_keeps_what_was_trained(tmp_path):
    (tmp_path / "train.csv").write_text("review,verdict\nFine.,good\n")
    more = replace(made(languages=("en", "de")), reported="dev", metric="accuracy_f1", title="Reviews")
    assert len({fingerprint_of(task, "train", "en", DataSource(tmp_path)) for task in (made(), more)}) == 1


VERSIONS = {"experiment.context.FEATURE_VERSION": 99, "evaluation.metrics.VERSIONS": {"chunk_f1": 99}}


@pytest.mark.parametrize("name", VERSIONS)
def test_a_changed_featurizer_or_metric_is_another_key(monkeypatch, name):
    monkeypatch.setattr(f"stilts_jax.{name}", VERSIONS[name])
    trained, scored = keys_of()
    assert scored != BEFORE[1]
    assert (trained != BEFORE[0]) == ("metrics" not in name)  # a mended metric scores again, retrains nothing
