from pathlib import Path

import made_up_grid
import numpy as np
import pytest

from stilts_jax.evaluation.benchmarks import BENCHMARKS, summarise
from stilts_jax.files import write_record
from stilts_jax.report.grid import Grid
from stilts_jax.report.names import find_benchmark, intermediate_order, short_title, task_title
from stilts_jax.report.overview import best_section
from stilts_jax.report.results import read_results
from stilts_jax.report.statistics import full_table


def read(workdir: Path, benchmark: str = "xtreme") -> Grid:
    return Grid(read_results(workdir)[0], find_benchmark(benchmark))


def write(workdir: Path, *records: dict) -> Grid:
    for record in records:
        made_up_grid.write_record(workdir, record)
    return read(workdir)


def xnli(scores: dict[str, float]) -> dict:
    return {"xnli": {"accuracy": scores}}


def test_a_cell_is_the_mean_over_languages_then_over_seeds(tmp_path):
    grid = write(
        tmp_path,
        made_up_grid.make_record("none", "mnli", xnli({"en": 90.0, "sw": 60.0}), seeds=(None, 0)),
        made_up_grid.make_record("mnli", "mnli", xnli({"en": 91.0, "sw": 65.0}), seeds=(0, 0)),
        made_up_grid.make_record("mnli", "mnli", xnli({"en": 89.0, "sw": 71.0}), seeds=(0, 1)),
    )
    assert grid.rows == [("none", "en"), ("mnli", "en")]
    assert grid.number(grid.rows[0], "xnli").percent == 75.0
    found = grid.number(grid.rows[1], "xnli")
    assert (found.percent, found.difference, found.runs) == (79.0, 3.0, 2)
    assert np.isnan(found.difference_sd)  # one pair of equal target seeds
    assert found.percent_sd == pytest.approx(np.std([78, 80], ddof=1))
    assert grid.number(grid.rows[1], "xnli", transfer=True).difference == 5.0


def test_a_language_that_one_side_lacks_is_not_compared(tmp_path):
    grid = write(
        tmp_path,
        made_up_grid.make_record("none", "mnli", xnli({"en": 90.0, "sw": 60.0, "th": 10.0}), seeds=(None, 0)),
        made_up_grid.make_record("mnli", "mnli", xnli({"en": 91.0, "sw": 65.0})),
    )
    found = grid.number(grid.rows[1], "xnli")
    assert found.difference == 3.0
    assert found.missing == ("th",)


def test_another_split_is_not_compared(tmp_path):
    dev = made_up_grid.make_record("mnli", "mnli", xnli({"en": 91.0}))
    dev["scores"]["xnli"] = {"dev": dev["scores"]["xnli"].pop("test")}
    dev["reported_split"]["xnli"] = "dev"
    grid = write(tmp_path, made_up_grid.make_record("none", "mnli", xnli({"en": 90.0}), seeds=(None, 0)), dev)
    assert np.isnan(grid.number(grid.rows[1], "xnli").difference)
    assert grid.splits("xnli") == "test/dev"


@pytest.mark.parametrize("benchmark", ["xtreme", "xtreme-r"])
def test_averages_are_the_benchmarks(tmp_path, benchmark):
    """The whole benchmark with random scores: the same numbers as the scorer of prediction folders gives."""
    generator = np.random.default_rng(0)
    names = {"squad": ("f1", "em"), "mlqa": ("f1", "em"), "chunk_f1": ("f1",), "bucc_f1": ("f1",)}
    names |= {"mrr": ("mrr",), "map": ("map",)}
    scores = {
        task: {
            metric: {language: float(generator.uniform(20, 90)) for language in one.languages}
            for metric in names.get(one.metric, ("accuracy",))
        }
        for task, one in BENCHMARKS[benchmark].items()
    }
    for name, metrics in scores.items():
        task = name.replace("bucc2018", "bucc")  # the task's own name
        made_up_grid.write_record(
            tmp_path, made_up_grid.make_record("none", task, {task: metrics}, seeds=(None, 0))
        )
    grid = read(tmp_path, benchmark)
    expected = summarise(benchmark, scores)
    row = grid.rows[0]
    assert len(grid.tasks) == len(scores)
    without = [task for task in grid.tasks if grid.group(task) != "retrieval"]
    found = {
        "all": grid.average(row, grid.tasks).percent,
        "without_english": grid.average(row, grid.tasks, transfer=True).percent,
        "without_retrieval": grid.average(row, without).percent,
        "without_english_and_retrieval": grid.average(row, without, transfer=True).percent,
    }
    assert found == pytest.approx(expected["averages"])
    for group, mean in expected["groups"].items():
        assert grid.average(row, grid.tasks_in(group)).percent == pytest.approx(mean)


def test_seeds_of_an_average_are_matched(tmp_path):
    """Tatoeba has no target seed: its score for an intermediate seed goes with each of that seed's runs."""
    for first in range(2):
        for second in range(2):
            record = made_up_grid.make_record(
                "mnli", "mnli", xnli({"en": 60.0 + 10 * first + 2 * second}), seeds=(first, second)
            )
            made_up_grid.write_record(tmp_path, record)
        retrieval = {"tatoeba": {"accuracy": {"sw": 50.0 + first}}}
        made_up_grid.write_record(
            tmp_path,
            made_up_grid.make_record("mnli", None, retrieval, seeds=(first, None), stage="retrieval"),
        )
    grid = read(tmp_path)
    found = grid.average(grid.rows[0], grid.tasks)
    totals = [(60 + 10 * first + 2 * second + 50 + first) / 2 for first in range(2) for second in range(2)]
    assert (found.percent, found.runs) == (pytest.approx(np.mean(totals)), 4)
    assert found.percent_sd == pytest.approx(np.std(totals, ddof=1))
    assert full_table(grid.by_seeds(grid.rows[0], ["xnli"], "value")).tolist() == [[60.0, 62.0], [70.0, 72.0]]
    assert full_table(grid.by_seeds(grid.rows[0], ["tatoeba"], "value")).shape == (2, 1)


def test_missing_cells_say_why(tmp_path):
    failed = {"type": "TrainingError", "message": "The loss is not finite."}
    no_gold = made_up_grid.make_record("qqp", "pawsx", {})
    no_gold["main_metric"], no_gold["reported_split"] = {"pawsx": ["accuracy"]}, {"pawsx": "test"}
    grid = write(
        tmp_path,
        made_up_grid.make_record("none", "mnli", xnli({"en": 90.0}), seeds=(None, 0)),
        made_up_grid.make_record("none", "pawsx", {"pawsx": {"accuracy": {"en": 90.0}}}, seeds=(None, 0)),
        made_up_grid.make_record("qqp", "mnli", {}, error=failed),
        no_gold,
        made_up_grid.make_record("ccg", None, {}, stage="intermediate", seeds=(0, None), error=failed),
        made_up_grid.make_record("hellaswag", "mnli", xnli({"en": 91.0})),
    )
    reasons = {(row[0], task): reason for (row, task), reason in grid.reasons.items()}
    assert reasons["none", "xnli"] == ""
    assert reasons["qqp", "xnli"] == "failed: TrainingError: The loss is not finite."
    assert "no gold labels" in reasons["qqp", "pawsx"]
    assert reasons["ccg", "xnli"].startswith("not run: ccg.s0 failed")
    assert reasons["hellaswag", "pawsx"] == "not run"


def test_the_best_row_is_chosen_on_english_dev_and_stands_beside_the_oracle(tmp_path):
    """Chosen on dev is mnli (+2), on test it would have been qqp (+4); Tatoeba has no dev, BUCC no English one."""
    records = []
    for row, dev, test in (("none", 70.0, 60.0), ("mnli", 80.0, 62.0), ("qqp", 75.0, 64.0)):
        seed = None if row == "none" else 0
        target = made_up_grid.make_record(
            row, "mnli", xnli({"en": test + 1, "sw": test - 1}), seeds=(seed, 0)
        )
        target["selection"]["source_dev"]["score"] = dev
        tasks = {"bucc": {"f1": {"de": test}}, "tatoeba": {"accuracy": {"sw": test}}}
        retrieval = made_up_grid.make_record(row, None, tasks, seeds=(seed, None), stage="retrieval")
        retrieval["scores"]["bucc"]["dev"] = {"f1": {"de": dev}}
        records += [target, retrieval]
    (table,) = best_section(write(tmp_path, *records)).blocks
    rows = {row[0].text: row for row in table.rows}
    assert [cell.text for cell in rows["XNLI"][1:]] == ["MNLI", "80.0", "62.0", "+2.0", "QQP", "64.0", "+4.0"]
    assert [cell.text for cell in rows["BUCC"][1:5]] == ["MNLI", "80.0", "62.0", "+2.0"]
    assert "not zero-shot" in rows["BUCC"][1].note
    assert [cell.text for cell in rows["Tatoeba"][1:]] == ["–", "–", "–", "–", "QQP", "64.0", "+4.0"]
    assert [rows["mean of 2 targets"][place].text for place in (4, 7)] == ["+2.0", "+4.0"]


def test_broken_files_cost_no_others(tmp_path):
    made_up_grid.write_record(tmp_path, made_up_grid.make_record("none", "mnli", xnli({"en": 90.0})))
    for name, text in {"cut": '{"format": 1, "pha', "list": "[]", "old": '{"format": 0}', "no": "{}"}.items():
        (tmp_path / "phases" / name).mkdir()
        (tmp_path / "phases" / name / "result.json").write_text(text)
    (tmp_path / "phases" / "running").mkdir()
    runs, broken = read_results(tmp_path)
    assert len(runs) == 1
    assert [one.path.split("/")[0] for one in broken] == ["cut", "list", "no", "old", "running"]


def test_names_of_rows():
    assert task_title("mnli+mlm") == "MNLI + MLM"
    assert task_title("mnli@de") == "MNLI (de)"
    assert task_title("hub:org/model") == "org/model"
    assert short_title("mnli+mlm") == "MNLI + MLM"
    assert short_title("anli+qqp+squad_v1+mlm+ccg") == "Multi-task (4) + MLM"
    names = ["hub:a/b", "squad_v1", "mnli+squad_v1", "mnli+mlm", "mnli", "my_task", "none"]
    assert sorted(names, key=intermediate_order) == [
        *("none", "mnli", "mnli+mlm", "squad_v1", "my_task", "mnli+squad_v1", "hub:a/b")
    ]


def test_another_source_language_makes_rows_of_its_own(tmp_path):
    """Retrieval trains on nothing: it stands beside the runs of every source language."""
    german = made_up_grid.make_record("mnli", "mnli@de", xnli({"de": 80.0, "en": 81.0, "sw": 66.0}))
    german["phase"]["source_language"] = "de"
    english = made_up_grid.make_record("mnli", "mnli", xnli({"de": 78.0, "en": 85.0, "sw": 60.0}))
    retrieval = made_up_grid.make_record(
        "mnli", None, {"tatoeba": {"accuracy": {"de": 50.0, "sw": 10.0}}}, seeds=(0, None), stage="retrieval"
    )
    grid = write(tmp_path, german, english, retrieval)
    assert grid.rows == [("mnli", "en"), ("mnli", "de")]
    assert [grid.row_title(row) for row in grid.rows] == ["MNLI (from en)", "MNLI (from de)"]
    assert [grid.number(row, "tatoeba").percent for row in grid.rows] == [30.0, 30.0]
    assert [grid.number(row, "xnli", transfer=True).percent for row in grid.rows] == [60.0, 66.0]


def test_of_two_settings_of_one_phase_the_last_counts(tmp_path):
    """The same work directory with another learning rate is another run of the phase, not another seed."""
    for folder, score, day in (("a", 60.0, "01"), ("b", 70.0, "03"), ("c", 65.0, "02")):
        record = made_up_grid.make_record("none", "mnli", xnli({"en": score}))
        record["environment"]["finished"] = f"2026-01-{day}T00:00:00+00:00"
        write_record(tmp_path / "phases" / folder / "result.json", record)
    runs, superseded = read_results(tmp_path)
    assert [run.folder.name for run in runs] == ["b"]
    assert [one.path for one in superseded] == ["a", "c"]
    assert "other settings" in superseded[0].reason


def test_two_mixtures_of_one_size_keep_their_long_names(tmp_path):
    rows = ("anli+qqp+ccg+mnli", "anli+qqp+ccg+squad_v1", "none")
    grid = write(tmp_path, *(made_up_grid.make_record(row, "mnli", xnli({"en": 80.0})) for row in rows))
    assert [grid.row_title(row) for row in grid.rows] == [
        *("none", "ANLI + QQP + CCG + MNLI", "ANLI + QQP + CCG + SQuAD v1.1")
    ]
    assert short_title(rows[0]) == "Multi-task (4)"


def test_languages_that_a_benchmark_lacks_are_not_counted_as_its_own():
    xtreme = find_benchmark("xtreme")
    assert xtreme.coverage("bucc", ("ru", "sw", "zh")) == "2 of 4 (and sw)"
    assert xtreme.coverage("bucc", ("de", "ru", "sw", "zh")) == "3 of 4 (and sw)"  # four, and not all
    assert xtreme.coverage("bucc", ("zh", "ru", "fr", "de")) == ""
    assert xtreme.coverage("mytask", ("en",)) == ""
