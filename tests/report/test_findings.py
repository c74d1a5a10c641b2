"""The sentences that open the page, against numbers by hand: of 400 items so many more are right than before."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stilts_jax.report import summary_text
from stilts_jax.report.names import trained_on
from stilts_jax.report.overview import say
from stilts_jax.report.significance import Comparison
from stilts_jax.report.statistics import Interval
from tests.report.made_up_grid import make_record, write, write_record, write_right, xnli

TARGETS = {"xnli": "mnli", "udpos": "udpos", "xquad": "squad_v1", "tydiqa": "tydiqa", "tatoeba": None}
ONE_SEED = "Each number is of one training run: intervals are over test items only"


def write_more_right(workdir: Path, row: str, more: dict[str, int], seed: int = 0, **changes) -> None:
    """Writes a run of ``row`` in which ``more`` items of each task are right than the 200 of the baseline."""
    for task, count in more.items():
        right = {task: {"sw": np.arange(400) < 200 + count}}
        write_right(workdir, row, (None if row == "none" else 0, seed), right, TARGETS[task], **changes)


def opening(workdir: Path) -> str:
    return " ".join(summary_text(workdir).split("|")[0].split())


def span(more: int) -> str:
    """The interval of the paired t-test."""
    half = stats.t.ppf(0.975, 399) * math.sqrt(more / 400 * (1 - more / 400) / 399)
    return " to ".join(f"{100 * (more / 400 + sign * half):+.1f}" for sign in (-1, 1))


REST = "Nothing else of 3 comparisons with the baseline is beyond noise (Holm's correction, 5 %)."
CASES = {
    # Five items more have p = 0.025 by themselves: one test of three does not hold on that.
    "a gain": (80, "Gains: English NLI before retrieval: +20.0 points (95 % +16.1 to +23.9, 1 language)."),
    "a loss": (-40, "Losses: English NLI before retrieval: −10.0 points (95 % −13.0 to −7.0, 1 language)."),
    "none": (5, "None of 3 comparisons with the baseline shows a difference beyond noise (Holm's correction"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_page_opens_with_what_holds_after_correction(tmp_path, case):
    more, sentence = CASES[case]
    write_more_right(tmp_path, "none", {"xnli": 0, "udpos": 0, "tatoeba": 0})
    write_more_right(tmp_path, "mnli", {"xnli": 5, "udpos": 2, "tatoeba": more})
    found = opening(tmp_path)
    assert found.startswith(sentence) and (f"{sentence} {REST}" in found) == (case != "none")
    assert f", 5 %). {ONE_SEED}" in found and span(80) == "+16.1 to +23.9"


def test_a_gain_and_a_loss_stand_beside_each_other_and_the_unit_is_said_once(tmp_path):
    write_more_right(tmp_path, "none", {"xnli": 0, "tatoeba": 0})
    write_more_right(tmp_path, "mnli", {"xnli": -40, "tatoeba": 80})
    words = "Gains: English NLI before retrieval: +20.0 points (95 % +16.1 to +23.9, 1 language). "
    words += "Losses: English NLI before classification: −10.0 (−13.0 to −7.0, 1 language). "
    assert opening(tmp_path).startswith(words + "Each of 2 comparisons with the baseline is beyond noise")


def test_what_one_seed_shows_need_not_hold_over_three(tmp_path):
    """Differences of -10, 20 and 50 points: the seeds say nothing, however many items there are."""
    for seed, more in enumerate((80, -40, 200)):
        write_more_right(tmp_path, "none", {"xnli": 0}, seed)
        write_more_right(tmp_path, "mnli", {"xnli": more}, seed)
        found = opening(tmp_path)
        assert (ONE_SEED in found) == (seed == 0)
        first = "Gains: English NLI before classification: +20.0" if seed == 0 else "None of 1"
        assert found.startswith(first)
    for row in ("none", "mnli"):
        write_more_right(tmp_path, row, {"tatoeba": 0})
    assert ONE_SEED.replace("number", "number of Tatoeba") in opening(tmp_path)


def test_runs_of_other_target_seeds_are_not_compared(tmp_path):
    write_more_right(tmp_path, "none", {"xnli": 0}, 0)
    write_more_right(tmp_path, "mnli", {"xnli": 80}, 7)
    assert opening(tmp_path).startswith("No per-item scores of the same")
    # A pair, beside a run without one: the mean is of other runs.
    write_more_right(tmp_path, "mnli", {"xnli": 80}, 0)
    write_more_right(tmp_path, "mnli", {"xnli": 120}, 7)
    assert "*" not in opening(tmp_path) and "20.0" in summary_text(tmp_path)


LITTLE = (256, "answering before question answering with little training data: +20.0", "answering: −10.0 (")
MUCH = (3200, "answering before question answering: +5.0 points", "stars): XQuAD −10.0 after SQuAD v1.1.")


@pytest.mark.parametrize(("size", "group", "single"), [LITTLE, MUCH])
def test_targets_with_little_data_of_their_own_are_a_group(tmp_path, size, group, single):
    for row, more in (("none", (0, 0)), ("squad_v1", (-40, 80))):
        for task, count, of in zip(("xquad", "tydiqa"), more, (6388, size)):
            write_more_right(tmp_path, row, {task: count}, data={TARGETS[task]: {"train": {"examples": of}}})
    write(tmp_path, "anli", (0, 0), {"tydiqa": {"f1": {}}}, "tydiqa", error={"type": "E", "message": "lost"})
    assert group in (found := opening(tmp_path)) and single in found and ("stars" in found) == (size == 3200)


def test_trainings_of_one_kind_are_one_comparison(tmp_path):
    """20 and 10 points on the same items: the mean counts them once."""
    for row, more in (("none", 0), ("mnli", 80), ("anli", 40), ("qqp", 0)):
        write_more_right(tmp_path, row, {"xnli": more})
    moved = np.repeat([1.0, 0.5, 0.0], [40, 40, 320])
    half = 100 * stats.t.ppf(0.975, 399) * stats.sem(moved)
    found = opening(tmp_path)
    words = f"English NLI before classification: +15.0 points (95 % +{15 - half:.1f} to +{15 + half:.1f}"
    assert words in found and "Nothing else of 2 comparisons" in found


def test_many_findings_are_counted_by_group_of_targets():
    made = [
        Comparison(f"kind {n}", target, (), Interval(sign * (n + 1.0), *[0] * 5), {}, 0.0 if n < 7 else 1.0)
        for target, sign in (("retrieval", 1), ("tagging", -1))
        for n in range(8)
    ]
    text = say(made[:8] + made[8:10])
    assert "Gains: retrieval after 7 of 8 kinds of training (+1.0 to +7.0 points)." in text
    assert "Losses: kind 0 before tagging: −1.0" in text and "Nothing else of 10 comparisons" in text


def test_what_was_trained_is_named_as_the_field_does():
    names = {
        **{"masakhaner2": "Swahili tagging", "snli@de": "German NLI", "anli+mlm": "English NLI with MLM"},
        **{"mnli+squad_v1": "English NLI and question answering", "hellaswag": "English multiple choice"},
        **{"mnli+squad_v1+ccg": "several English tasks", "easy_vqa.blind": "English easy-VQA, blind"},
        **{"mlm": "MLM", "qqp": "English QQP", "reviews": "reviews", "hub:org/model": "org/model"},
    }
    assert {name: trained_on(name) for name in names} == names


def test_one_seed_of_the_target_is_said_beside_several_of_the_intermediate(tmp_path):
    for seed in (None, 0, 1):
        row = "none" if seed is None else "mnli"
        write_right(tmp_path, row, (seed, 0), {"xnli": {"sw": np.arange(400) < 200 + (seed or 0)}})
    for seed in range(2):  # of rows that are compared with nothing
        german = make_record("mnli", "mnli@de", xnli(sw=50.0), seeds=(seed, seed))
        german["phase"]["source_language"] = "de"
        write_record(tmp_path, german)
    words = "The numbers have one seed of the target training, whose luck is in no interval."
    assert words in opening(tmp_path)
