"""The frame, the cells and their differences, against hand-computed numbers and the benchmarks' own averages."""

import doctest
import math

import numpy as np
import pandas as pd
import pytest

import stilts_jax
from stilts_jax import files
from stilts_jax.evaluation.benchmarks import BENCHMARKS, summarise
from stilts_jax.evaluation.metrics import MAIN_VALUES
from stilts_jax.report import write_report
from stilts_jax.report.details import best_section
from stilts_jax.report.grid import Grid
from stilts_jax.report.results import read_results
from stilts_jax.report.significance import Comparisons
from tests.report.made_up_grid import make_record, table, write, write_grid, write_record, xnli


def read(workdir, benchmark="xtreme"):
    return Grid(read_results(workdir)[0], benchmark)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    options = {"trainings": ["mnli", "squad_v1", None], "seeds": 2, "languages": 3, "count": 30}
    write_grid(folder, intermediates=["none", "mnli", "qqp"], **options)
    record = make_record("ccg", None, {"bucc": {"f1": {"de": None, "en": 3.0}}}, stage="retrieval")
    record |= {"thresholds": {"bucc": {"de": 0.5}}, "tasks": {"bucc": {"title": "", "group": "retrieval"}}}
    record["config"]["train"]["epochs"] = 7
    write_record(folder, record)
    return folder


def test_the_docstring_makes_the_papers_table(workdir, tmp_path):
    (tmp_path / "grid").symlink_to(workdir)
    found = {"workdir": tmp_path}
    for example in doctest.DocTestParser().get_examples(stilts_jax.load_results.__doc__):
        exec(example.source, found)
    frame, phase = stilts_jax.load_results(workdir), next((tmp_path / "grid" / "phases").iterdir())
    for folder in (tmp_path, phase.parent, phase):  # those around it are given by mistake
        with pytest.raises(stilts_jax.errors.DataError, match=rf"to do: give {tmp_path / 'grid'}$"):
            stilts_jax.load_results(folder)
    for task, metrics in (("xquad", ("f1", "em")), ("xnli", ("accuracy",)), ("tatoeba", ("accuracy",))):
        here = frame[(frame.task == task) & frame.metric.isin(metrics)]
        none, mnli = (here[here.intermediate == name].value.mean() for name in ("none", "mnli"))
        assert found["table"][task]["none"] == pytest.approx(none)
        assert found["table"][task]["mnli"] == pytest.approx(mnli - none)


def test_a_row_is_a_score_and_scores_csv_is_the_frame(workdir):
    frame = stilts_jax.load_results(str(workdir))
    assert not frame.duplicated(["phase", "task", "split", "metric", "language"]).any()
    (row,) = frame[(frame.phase == "mnli.s1+mnli.s0") & (frame.language == "ar")].itertuples()
    assert (row.intermediate, row.target, row.task, row.metric) == ("mnli", "mnli", "xnli", "accuracy")
    assert (row.intermediate_seed, row.target_seed) == (1, 0)
    assert row.reported and row.main and row.zero_shot
    assert not frame[frame.language == "en"].zero_shot.any()
    tuned = frame[frame.intermediate == "ccg"].set_index("language")
    assert not tuned.zero_shot.any() and math.isnan(tuned.value["de"])
    assert tuned.group["de"] == "retrieval" and '"epochs": 7' in tuned.settings["de"]
    read = pd.read_csv(write_report(workdir).scores, keep_default_na=False, na_values=[""])
    assert list(read.columns) == list(frame.columns) and (read.phase == frame.phase).all()
    assert read.value.to_numpy() == pytest.approx(frame.value.to_numpy(), nan_ok=True)


def test_a_cell_is_the_mean_over_languages_then_over_seeds(tmp_path):
    write(tmp_path, "none", (None, 0), xnli(en=90.0, sw=60.0))
    write(tmp_path, "mnli", (0, 0), xnli(en=91.0, sw=65.0))
    write(tmp_path, "mnli", (0, 1), xnli(en=89.0, sw=71.0))
    grid = read(tmp_path)
    assert grid.rows == [("none", "en"), ("mnli", "en")] and grid.number(grid.rows[0], "xnli").percent == 75.0
    found = grid.number(grid.rows[1], "xnli")
    assert (found.percent, found.difference, found.runs) == (79.0, 3.0, 2)
    assert np.isnan(found.difference_sd)  # one pair of equal target seeds
    assert found.percent_sd == pytest.approx(np.std([78, 80], ddof=1))
    assert grid.number(grid.rows[1], "xnli", transfer=True).difference == 5.0
    for seed, scores in enumerate(({"en": 70.0}, {"en": 60.0, "sw": 20.0})):  # not of the same languages
        write(tmp_path, "none", (None, seed), {"xquad": {"f1": scores, "em": scores}}, "squad_v1")
    assert read(tmp_path).metric_means["none", "en", "xquad", "em"][0] == 40.0


def test_what_one_side_lacks_is_not_compared(tmp_path):
    write(tmp_path, "none", (None, 0), xnli(en=90.0, sw=60.0, th=10.0))
    write(tmp_path, "mnli", (0, 0), xnli(en=91.0, sw=65.0))
    dev = make_record("qqp", "mnli", xnli(en=91.0))
    dev["scores"]["xnli"] = {"dev": dev["scores"]["xnli"].pop("test")}
    dev["reported_split"]["xnli"] = "dev"
    write_record(tmp_path, dev)
    grid = read(tmp_path)
    found = grid.number(("mnli", "en"), "xnli")
    assert (found.difference, found.missing) == (3.0, ("th",))
    assert np.isnan(grid.number(("qqp", "en"), "xnli").difference)
    write(tmp_path, "ccg", (0, 0), {"xnli": {"f1": {"en": 80.0}}})
    notes = {line["intermediate"]: line["note"] for line in table(tmp_path, "main")}
    assert "F1 on test" in notes["CCG"] and "F1" not in notes["MNLI"]


@pytest.mark.parametrize("benchmark", ["xtreme", "xtreme-r"])
def test_averages_are_the_benchmarks(tmp_path, benchmark):
    """The whole benchmark with random scores: the same numbers as the scorer of prediction folders gives."""
    generator, tasks = np.random.default_rng(0), BENCHMARKS[benchmark]
    scores: dict = {name: {} for name in tasks}
    for name, task in tasks.items():
        for metric in MAIN_VALUES[task.metric]:
            scores[name][metric] = {code: float(generator.uniform(20, 90)) for code in task.languages}
        write(tmp_path, "none", (None, 0), {task.name: scores[name]}, task.name)
    grid, expected = read(tmp_path, benchmark), summarise(benchmark, scores)
    row, without = grid.rows[0], [task for task in grid.tasks if grid.group(task) != "retrieval"]
    found = {
        "all": grid.average(row, grid.tasks).percent,
        "without_english": grid.average(row, grid.tasks, transfer=True).percent,
        "without_retrieval": grid.average(row, without).percent,
        "without_english_and_retrieval": grid.average(row, without, transfer=True).percent,
    }
    assert found == pytest.approx(expected["averages"])


def test_missing_cells_say_why(tmp_path):
    failed = {"type": "TrainingError", "message": "The loss is not finite."}
    write(tmp_path, "none", (None, 0), xnli(en=90.0))
    write(tmp_path, "none", (None, 0), {"pawsx": {"accuracy": {"en": 90.0}}}, "pawsx")
    write(tmp_path, "qqp", (0, 0), {}, error=failed, reported_split={"xnli": "test"})
    write(tmp_path, "qqp", (0, 0), {}, "pawsx", reported_split={"pawsx": "test"})  # no gold
    write_record(tmp_path, make_record("ccg", None, {}, stage="intermediate", seeds=(0, None), error=failed))
    write(tmp_path, "hellaswag", (0, 0), xnli(en=91.0))
    write(tmp_path, "none", (None, 0), {}, "siqa")  # before COPA; it scores nothing, and is no column
    grid = read(tmp_path)
    assert grid.tasks == ["xnli", "pawsx"]
    reasons = {(row[0], task): grid.reason(row, task) for row, task in grid.cells}
    assert reasons["none", "xnli"] == ""
    assert reasons["qqp", "xnli"] == "failed: TrainingError: The loss is not finite."
    assert "no gold labels" in reasons["qqp", "pawsx"]
    assert reasons["ccg", "xnli"].startswith("not run: ccg.s0 failed")
    assert reasons["hellaswag", "pawsx"] == "not run"


def test_the_best_row_is_chosen_on_english_dev_and_stands_beside_the_oracle(tmp_path):
    """Chosen on dev is mnli (+2), on test it would have been qqp (+4); Tatoeba has no dev, BUCC no English one."""
    for row, dev, test in (("none", 70.0, 60.0), ("mnli", 80.0, 62.0), ("qqp", 75.0, 64.0)):
        seed = None if row == "none" else 0
        target = make_record(row, "mnli", xnli(en=test + 1, sw=test - 1), seeds=(seed, 0))
        target["selection"]["source_dev"]["score"] = dev
        tasks = {"bucc": {"f1": {"de": test}}, "tatoeba": {"accuracy": {"sw": test}}}
        retrieval = make_record(row, None, tasks, seeds=(seed, None), stage="retrieval")
        retrieval["scores"]["bucc"]["dev"] = {"f1": {"de": dev}}
        for record in (target, retrieval):
            write_record(tmp_path, record)
    grid = read(tmp_path)
    (table,) = best_section(grid, Comparisons(grid)).blocks
    rows = {row[0].text: row for row in table.rows}
    assert [cell.text for cell in rows["XNLI"][1:]] == ["MNLI", "80.0", "62.0", "+2.0", "QQP", "64.0", "+4.0"]
    assert [cell.text for cell in rows["BUCC"][1:5]] == ["MNLI", "80.0", "62.0", "+2.0"]
    assert "not zero-shot" in rows["BUCC"][1].note
    assert [cell.text for cell in rows["Tatoeba"][1:]] == ["–", "–", "–", "–", "QQP", "64.0", "+4.0"]
    assert [rows["mean of 2 targets"][place].text for place in (4, 7)] == ["+2.0", "+4.0"]


@pytest.mark.parametrize("place", ["scores.xnli", "selection.source_dev", "items.xnli", "curve.0", "config"])
def test_broken_files_cost_no_others_and_are_named(tmp_path, place):
    """Cut ones, and one whose digest is right and whose content another program wrote."""
    write(tmp_path, "none", (0, 0), xnli(en=90.0))
    for name, text in {"cut": '{"format": 1, "pha', "list": "[]", "old": '{"format": 0}', "no": "{}"}.items():
        (tmp_path / "phases" / name).mkdir()
        (tmp_path / "phases" / name / "result.json").write_text(text)
    (tmp_path / "phases" / "running").mkdir()
    record = inside = make_record("mnli", "mnli", xnli(en=91.0), items={"xnli": {}})
    *names, last = (int(name) if name.isdigit() else name for name in place.split("."))
    for name in names:
        inside = inside[name]
    inside[last] = 3
    expected = {"cut", "list", "no", "old", "running", write_record(tmp_path, record).parent.name}
    (_,), broken = read_results(tmp_path)
    assert {path.split("/")[0] for path in broken} == expected
    html, *_, summary = write_report(tmp_path)
    assert all(f"{path}<" in html.read_text("utf-8") for path in broken)
    assert "In no number here: cut/result.json (result.json is damaged" in " ".join(summary.split())


def test_of_two_settings_of_one_phase_the_last_counts(tmp_path):
    """The same work directory with another learning rate is another run of the phase, not another seed."""
    for folder, score, day in (("a", 60.0, "01"), ("b", 70.0, "03"), ("c", 65.0, "02")):
        record = make_record("none", "mnli", xnli(en=score))
        record["environment"]["finished"] = f"2026-01-{day}T00:00:00+00:00"
        files.write_record(tmp_path / "phases" / folder / "result.json", record)
    runs, superseded = read_results(tmp_path)
    assert [run.folder.name for run in runs] == ["b"]
    assert list(superseded) == ["a", "c"] and "other settings" in superseded["a"]
    record = make_record("none", "snli", xnli(en=80.0))  # trained on something else, in the same place
    for day, expected in (("03", (70.0, 80.0)), ("04", (80.0,))):  # of two in one second one counts
        record["environment"]["finished"] = f"2026-01-{day}T00:00:00+00:00"
        files.write_record(tmp_path / "phases" / "d" / "result.json", record)
        assert float(table(tmp_path, "main")[0]["percent"]) in expected
    record |= {"scores": {"xnli": {"test": {"accuracy": {"de": 60.0}}}}}  # the same training by another name
    record["phase"]["name"] += "(xnli)"
    record["environment"]["finished"] = "2026-01-05T00:00:00+00:00"
    files.write_record(tmp_path / "phases" / "e" / "result.json", record)
    assert float(table(tmp_path, "main")[0]["percent"]) == 70.0


def test_another_source_language_makes_rows_of_its_own(tmp_path):
    """Retrieval trains on nothing: it stands beside the runs of every source language."""
    german = make_record("mnli", "mnli@de", xnli(de=80.0, en=81.0, sw=66.0))
    german["phase"]["source_language"] = "de"
    write_record(tmp_path, german)
    write(tmp_path, "mnli", (0, 0), xnli(de=78.0, en=85.0, sw=60.0))
    write(tmp_path, "mnli", (0, None), {"tatoeba": {"accuracy": {"de": 50.0, "sw": 10.0}}}, None)
    grid = read(tmp_path)
    assert [grid.row_title(row) for row in grid.rows] == ["MNLI (from en)", "MNLI (from de)"]
    assert [grid.number(row, "tatoeba").percent for row in grid.rows] == [30.0, 30.0]
    assert [grid.number(row, "xnli", transfer=True).percent for row in grid.rows] == [60.0, 66.0]
    text = write_report(tmp_path).markdown.read_text("utf-8")
    assert "no baseline" in text.split("\n## ")[0] and "nothing can be tested" not in text


def test_english_is_transfer_where_nothing_was_trained_in_it(tmp_path):
    german = make_record("none", "mnli@de", xnli(de=80.0, en=70.0, sw=60.0))
    german["phase"]["source_language"] = "de"
    write_record(tmp_path, german)
    write(tmp_path, "none", (None, None), {"tatoeba": {"accuracy": {"sw": 10.0}}}, None)
    grid = read(tmp_path)
    assert grid.number(grid.rows[0], "xnli", transfer=True).percent == 65.0
    assert grid.all_scores.zero_shot.tolist() == [False, True, True, True]


def test_a_row_is_not_compared_with_a_baseline_of_other_settings(tmp_path):
    """Where a result does not say how many rows of a language were scored, all were."""
    for row, epochs, rows in (("none", 1, {}), ("mnli", 2, {}), ("qqp", 1, {"scored_rows": 0})):
        config = {"encoder": "made-up", "train": {"epochs": epochs}, "start": row} | rows
        write(tmp_path, row, (0, 0), xnli(de=70.0), config=config)
    write(tmp_path, "ccg", (0, 0), xnli(de=70.0), config=config | {"scored_rows": 9})
    grid = read(tmp_path)
    found = {row[0]: grid.number(row, "xnli").is_difference for row in grid.compared}
    assert found == {"mnli": False, "qqp": True, "ccg": False}


def test_targets_that_train_in_a_language_of_their_own_stand_in_the_same_rows(tmp_path):
    """MasakhaNER trains in Swahili, as no other target does: there is nothing to tell rows apart by."""
    ner = make_record("mnli", "masakhaner2", {"masakhaner2": {"f1": {"sw": 80.0, "ha": 66.0}}})
    ner["phase"]["source_language"] = "sw"
    write_record(tmp_path, ner)
    write(tmp_path, "mnli", (0, 0), xnli(de=78.0, sw=60.0))
    grid = read(tmp_path)
    assert grid.rows == [("mnli", "en")]
    assert grid.number(grid.rows[0], "masakhaner2", transfer=True).percent == 66.0
