"""Which phases a grid has: counted by hand from the paper's recipe."""

import sys
from itertools import pairwise

import pytest

from stilts_jax.config import load_config, to_settings
from stilts_jax.errors import ConfigError
from stilts_jax.experiment.phases import list_phases, select_part
from stilts_jax.experiment.results import make_seen_notes, phase_record
from stilts_jax.tasks import get_task

NINE = "xnli+pawsx+udpos+panx+xquad+mlqa+tydiqa+bucc+tatoeba"


def phases_of(**experiment):
    overrides = {f"experiment.{name}": str(value) for name, value in experiment.items()}
    return list_phases(to_settings(load_config("xstilts", overrides)), get_task)


def test_nine_targets_are_six_trainings_and_one_evaluation():
    phases = phases_of(intermediates="none", targets=NINE)
    assert sum(bool(phase.train) for phase in phases) == 6
    assert [phase.evaluate for phase in phases if not phase.train] == [("bucc", "tatoeba")]
    shared = [phase for phase in phases if "xquad" in phase.evaluate]
    assert [phase.evaluate for phase in shared] == [("xquad", "mlqa")]


def test_parents_come_first_and_are_shared():
    phases = phases_of(intermediates="mnli", targets=NINE, intermediate_seeds=2, target_seeds=3)
    assert len(phases) == 2 * (1 + 6 * 3 + 1)
    seen = set()
    for phase in phases:
        assert phase.parent is None or phase.parent.name in seen
        seen.add(phase.name)
    parents = {phase.parent.name for phase in phases if phase.parent}
    assert parents == {"mnli.s0", "mnli.s1"}


def test_the_row_without_an_intermediate_has_no_intermediate_seed():
    phases = phases_of(intermediates="none", targets="panx+tatoeba", intermediate_seeds=5, target_seeds=2)
    assert [phase.name for phase in phases] == ["none+panx.s0", "none+panx.s1", "none+retrieval"]
    assert {phase.intermediate_seed for phase in phases} == {None}


def test_a_target_in_the_language_of_its_training_is_few_shot():
    settings = to_settings(load_config("xstilts", {"experiment.targets": "xcopa+masakhaner_x@ha+panx+bucc"}))
    phases = list_phases(settings, get_task)
    few_shot = [phase.evaluate for phase in phases if make_seen_notes(phase, settings)]
    assert {*few_shot} == {("masakhaner_x@ha",)}


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ({"targets": "xcopa"}, [(("siqa",), (), False), (("copa",), ("xcopa",), True)]),
        (
            {"targets": "xcopa+xnli", "train_on": "xcopa=copa,xnli=snli/mnli"},
            [(("copa",), ("xcopa",), False), (("snli",), (), False), (("mnli",), ("xnli",), True)],
        ),
        (
            {"intermediates": "mnli/mlm", "targets": "panx", "source_language": "de"},
            [(("mnli", "mlm"), ("mnli",), False), (("panx@de",), ("panx",), False)],
        ),
        ({"intermediates": "hub:some/encoder", "targets": "tatoeba"}, [((), ("tatoeba",), False)]),
    ],
)
def test_what_is_trained_scored_and_carried_on(experiment, expected):
    phases = phases_of(**{"intermediates": "none", **experiment})
    assert [(phase.train, phase.evaluate, phase.carry_head) for phase in phases] == expected
    assert all(phase.parent is before for before, phase in pairwise(phases) if phase.carry_head)
    assert phases[0].parent is None and phases[0].encoder.startswith("some/encoder") == (len(phases) == 1)


def test_the_xtreme_preset_changes_the_hyperparameters():
    paper = phases_of(intermediates="none", targets="xnli")[0]
    settings = to_settings(load_config("xstilts:preset=xtreme,targets=xnli,intermediates=none"))
    xtreme = list_phases(settings, get_task)[0]
    assert (paper.hyperparameters.learning_rate, paper.hyperparameters.epochs) == (1e-5, 2)
    assert (xtreme.hyperparameters.learning_rate, xtreme.hyperparameters.epochs) == (3e-5, 5)


def test_parts_are_disjoint_whole_and_keep_families_together():
    phases = phases_of(intermediates="none+mnli+squad_v1", targets=NINE, intermediate_seeds=2)
    parts = [select_part(phases, part, 3) for part in (1, 2, 3)]
    assert sorted(phase.name for part in parts for phase in part) == sorted(phase.name for phase in phases)
    for part in parts:
        names = {phase.name for phase in part}
        assert all(phase.parent is None or phase.parent.name in names for phase in part)


def test_parts_beyond_the_rows_share_a_row_and_never_a_training_in_two_steps():
    phases = phases_of(intermediates="none+mnli", targets="panx+udpos+xcopa+tatoeba")
    parts = [{phase.name for phase in select_part(phases, part, 5)} for part in (1, 2, 3, 4, 5)]
    assert sorted(name for part in parts for name in part) == sorted(phase.name for phase in phases)
    assert all(parts)
    assert "mnli.s0" in parts[1]
    assert {name.partition("+")[0] for name in parts[3]} == {"mnli.s0"}
    assert sum(any("siqa" in name for name in part) for part in parts) == 2


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ({"intermediates": "mnly", "targets": "panx"}, "mnli"),
        ({"intermediates": "none", "targets": "pank"}, "panx"),
        ({"intermediates": "mnli+mnli", "targets": "panx"}, "twice"),
        ({"intermediates": "none", "targets": "xnli", "train_on": "xcopa=copa"}, "xcopa"),
        ({"intermediates": "none", "targets": "xcopa", "train_on": "xcopa=copper"}, "copper"),
    ],
)
def test_mistakes_are_named_before_anything_runs(experiment, words):
    with pytest.raises(ConfigError, match=words):
        phases_of(**experiment)


OWN = """
from stilts_jax.tasks.custom import classify_task, pair_task

files = {split: f"{split}.csv" for split in ("train", "dev", "test")}
A = classify_task("reviews", labels=("bad", "good"), files=files)
B = classify_task("hotels", labels=("bad", "good"), files=files, source_language="de")
C = pair_task("faq", files=files)
LIKE_A = classify_task("reviews", labels=("bad", "good"), files=files, text="review")
OTHER_LABELS = classify_task("stars", labels=("good", "bad"), files=files)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module ``own`` of tasks in the current directory."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own", None)


@pytest.mark.parametrize(
    ("experiment", "names"),
    [
        ({"intermediates": "none", "targets": "own:A"}, ["none+reviews.s0"]),
        ({"intermediates": "own:A", "targets": "panx"}, ["reviews.s0", "reviews.s0+panx.s0"]),
        ({"intermediates": "mnli/own:A", "targets": ""}, ["mnli+reviews.s0"]),
        (
            {"intermediates": "own:A@de", "targets": "own:B@fr"},
            ["reviews@de.s0", "reviews@de.s0+hotels@fr.s0"],
        ),
        ({"intermediates": "none", "targets": "own:A", "source_language": "de"}, ["none+reviews@de.s0"]),
        ({"intermediates": "none", "targets": "own:A", "train_on": "own:A=own:B"}, ["none+hotels.s0"]),
        ({"intermediates": "none", "targets": "own:C+tatoeba"}, ["none+faq.s0", "none+retrieval"]),
        ({"intermediates": "none", "targets": "panx@de"}, ["none+panx@de.s0"]),
        ({"intermediates": "none", "targets": "xnli@de"}, ["none+mnli@de.s0"]),
    ],
)
def test_own_tasks_and_languages_are_named_wherever_a_task_is(own, experiment, names):
    assert [phase.name for phase in phases_of(**experiment)] == names


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ({"intermediates": "own:A", "targets": "own:LIKE_A"}, "Two tasks are called 'reviews'"),
        ({"targets": "own:A", "train_on": "own:A=own:OTHER_LABELS"}, "same labels in the same order"),
        ({"targets": "panx", "train_on": "panx=udpos"}, "same labels in the same order"),
        ({"targets": "xquad", "train_on": "xquad=mnli"}, "span"),
    ],
)
def test_tasks_that_do_not_fit_each_other_are_refused(own, experiment, words):
    with pytest.raises(ConfigError) as caught:
        phases_of(**{"intermediates": "none", **experiment})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("target", "settings", "language"),
    [
        ("own:A", {}, "en"),
        ("own:B", {}, "de"),
        ("own:A", {"source_language": "ru"}, "ru"),
        ("own:B", {"source_language": "ru"}, "ru"),
        ("xnli@de", {}, "de"),
    ],
)
def test_a_result_says_what_its_phase_was_trained_in(own, target, settings, language):
    (phase,) = phases_of(intermediates="none", targets=target, **settings)
    assert phase_record(phase, "key", None)["source_language"] == language
