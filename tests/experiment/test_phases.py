"""Which phases a grid has: counted by hand from the paper's recipe."""

import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from stilts_jax.config import load_config, to_settings
from stilts_jax.errors import ConfigError
from stilts_jax.experiment.models import optimizer_config
from stilts_jax.experiment.phases import hyperparameters_of, list_phases, select_part, unread_exceptions
from stilts_jax.experiment.results import describe_phase, make_seen_notes
from stilts_jax.tasks import get_task

SIQA = ("siqa",)
NINE = "xnli+pawsx+udpos+panx+xquad+mlqa+tydiqa+bucc+tatoeba"


def phases_of(**experiment):
    overrides = {f"experiment.{name}": str(value) for name, value in experiment.items()}
    return list_phases(to_settings(load_config("xstilts", overrides)))


def test_the_papers_grid():
    """Nine targets are six trainings and one evaluation; parents come first and are shared."""
    phases = phases_of(intermediates="mnli", targets=NINE, intermediate_seeds=2, target_seeds=3)
    assert len(phases) == 2 * (1 + 6 * 3 + 1)
    assert all(phase.parent is None or phase.parent in phases[:n] for n, phase in enumerate(phases))
    assert {phase.parent.name for phase in phases if phase.parent} == {"mnli.s0", "mnli.s1"}
    assert {phase.evaluate for phase in phases if "xquad" in phase.evaluate} == {("xquad", "mlqa")}
    assert {phase.evaluate for phase in phases if not phase.train} == {("bucc", "tatoeba")}
    # The row without an intermediate has no intermediate seed.
    phases = phases_of(intermediates="none", targets="panx+tatoeba", intermediate_seeds=5, target_seeds=2)
    assert [phase.name for phase in phases] == ["none+panx.s0", "none+panx.s1", "none+retrieval"]
    assert {phase.intermediate_seed for phase in phases} == {None}


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ({"targets": "siqa+xcopa"}, [(SIQA, SIQA, False), (SIQA, (), False), (("copa",), ("xcopa",), True)]),
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


@pytest.mark.parametrize(
    ("count", "rows", "targets"),
    [(3, "none+mnli+squad_v1", NINE), (5, "none+mnli", "panx+udpos+xcopa+tatoeba")],
)
def test_parts_are_disjoint_and_whole(count, rows, targets):
    """Families stay together where there are as many rows; else parts share a row, and no training in two steps."""
    phases = phases_of(intermediates=rows, targets=targets)
    parts = [{phase.name for phase in select_part(phases, part, count)} for part in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == sorted(phase.name for phase in phases)
    assert all(parts)
    parents = {phase.name: phase.parent.name for phase in phases if phase.parent}
    assert count == 5 or all(parents[name] in part for part in parts for name in part if name in parents)
    assert count == 3 or sum(any("siqa" in name for name in part) for part in parts) == 2


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
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own", None)


@pytest.mark.parametrize(
    ("experiment", "names", "language"),
    [
        ({"targets": "own:A"}, ["none+reviews.s0"], "en"),
        ({"intermediates": "own:A", "targets": "panx"}, ["reviews.s0", "reviews.s0+panx.s0"], "en"),
        ({"intermediates": "mnli/own:A", "targets": ""}, ["mnli+reviews.s0"], "en"),
        (
            {"intermediates": "own:A@de", "targets": "own:B@fr"},
            ["reviews@de.s0", "reviews@de.s0+hotels@fr.s0"],
            "fr",
        ),
        ({"targets": "own:A", "source_language": "de"}, ["none+reviews@de.s0"], "de"),
        ({"targets": "own:B"}, ["none+hotels.s0"], "de"),
        ({"targets": "own:A", "train_on": "own:A=own:B"}, ["none+hotels.s0"], "de"),
        ({"targets": "own:A", "train_on": "reviews=own:B"}, ["none+hotels.s0"], "de"),
        ({"targets": "own:C+tatoeba"}, ["none+faq.s0", "none+retrieval"], None),
        ({"targets": "xnli@de"}, ["none+mnli@de.s0"], "de"),
    ],
)
def test_own_tasks_and_languages_are_named_wherever_a_task_is(own, experiment, names, language):
    phases = phases_of(**{"intermediates": "none", **experiment})
    assert [phase.name for phase in phases] == names
    said = describe_phase(phases[-1], SimpleNamespace(key=lambda phase: phase.name))["phase"]
    assert language is None or said["source_language"] == language


def test_a_target_in_the_language_of_its_training_is_few_shot():
    targets = "xcopa+masakhaner_x@hau+masakhaner_x@yo+panx+bucc"  # "hau" is "ha" here
    settings = to_settings(load_config("xstilts", {"experiment.targets": targets}))
    few_shot = [phase.evaluate for phase in list_phases(settings) if make_seen_notes(phase, settings)]
    assert {*few_shot} == {("masakhaner_x@hau",), ("masakhaner_x@yo",)}


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ({"intermediates": "hub:/W/none+mnly"}, "(whose name has no +); did you mean 'mnli'"),
        ({"intermediates": "nonee"}, "none is the encoder itself"),
        ({"intermediates": "none+/my/encoder"}, "intermediates: /my/encoder"),
        ({"targets": "pank"}, "config.experiment.targets\n  to do: did you mean 'panx'"),
        ({"targets": "mlm"}, "no score"),
        ({"intermediates": "mnli+mnli", "targets": "panx"}, "twice"),
        ({"intermediates": "mnli/mnli", "targets": "panx"}, "twice"),
        ({"intermediates": "none", "targets": "panx+panx"}, "twice"),
        ({"targets": "xnli", "train_on": "xcopo=copa"}, "xcopa"),
        ({"targets": "xcopa", "train_on": "xcopa=copper"}, "config.experiment.train_on"),
        ({"intermediates": "own:A", "targets": "own:LIKE_A"}, "Two tasks are called 'reviews'"),
        ({"targets": "own:A", "train_on": "own:A=own:OTHER_LABELS"}, "same labels in the same order"),
        ({"targets": "xquad", "train_on": "xquad=mnli"}, "span"),
    ],
)
def test_mistakes_are_named_before_anything_runs(own, experiment, words):
    with pytest.raises(ConfigError) as caught:
        phases_of(**{"intermediates": "none", **experiment})
    assert words in str(caught.value)


def test_hyperparameters_by_task(own):
    """What is set for one task holds for its controls and translations, and before what is set for all."""
    names, given = ("easy_vqa", "easy_vqa:blind", "mnli@de", "own:A", "xnli"), {"train.epochs": "4"}
    given |= {"experiment.intermediates": "+".join(names[:4]), "experiment.targets": names[4]}
    more = "easy_vqa:blind.epochs=3,easy_vqa.blind.learning_rate=3e-4,mnli.head_rate=9"
    given["train.by_task"] = f"easy_vqa.learning_rate=4e-4,{more},mnli.epochs=1,own:A.epochs=2"
    settings = to_settings(load_config("xstilts", given | {"data.sources": "own:A=files,mnli@de=hub"}))
    list_phases(settings)
    found = [hyperparameters_of(get_task(name), settings) for name in names]
    chosen = [(one.epochs, one.learning_rate) for one in found]
    assert chosen == [(4, 4e-4), (3, 3e-4), (1, 1e-5), (2, 1e-5), (4, 1e-5)]
    assert [optimizer_config(settings, one, 5).head_rate for one in found] == [1, 1, 9, 1, 1]


@pytest.mark.parametrize(
    ("by_task", "said"),
    [
        ("xnly.epochs=1", "'xnly' is no task."),
        ("xnli.seed=1", "'seed' can't differ by task"),
        ("xnli.epochs=many", "'many' is no number"),
        ("xnli.batch_size=0", "out of range"),
        ("epochs=1", "not of the form TASK.OPTION"),
        ("xnli.epochs", "not of the form name=value"),
        ("easy_vqa:blind.epochs=3,easy_vqa.blind.epochs=4", "'easy_vqa.blind' has two values"),
    ],
)
def test_a_wrong_exception_by_task_is_named(by_task, said):
    with pytest.raises(ConfigError, match=r"config\.train\.by_task") as caught:
        list_phases(to_settings(load_config("xstilts:targets=xnli", {"train.by_task": by_task})))
    assert said in str(caught.value)


def test_an_exception_may_name_a_task_that_a_part_of_an_experiment_leaves_out():
    by_task = "hellaswag.epochs=7,easy_vqa:blind.epochs=7,mnli@de.epochs=7,udpos.epochs=9"
    given = {"experiment.targets": "udpos", "train.by_task": by_task, "experiment.train_on": "xcopa=copa"}
    (phase,) = list_phases(to_settings(load_config("xstilts:intermediates=none,seeds=1", given)))
    assert phase.hyperparameters.epochs == 9


def test_an_exception_for_what_a_target_trains_on_by_its_own_numbers_is_said():
    settings = to_settings(
        load_config("xstilts:targets=xcopa", {"train.by_task": "siqa.epochs=2,mnli.epochs=1"})
    )
    (said,) = unread_exceptions(list_phases(settings), settings)
    assert "siqa.epochs" in said and "xcopa.epochs" in said


def test_the_grids_of_the_small_encoder_are_lists_of_phases():
    counts = {"seeds=1": 89, "size=pictures": 19, "size=gpu,seeds=1": 89, "size=gpu,stage=mlm": 3}
    assert {one: len(list_phases(to_settings(load_config(f"small:{one}", {})))) for one in counts} == counts
