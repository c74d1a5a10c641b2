"""What a report must not make of several encoders, settings and benchmarks; and readers of whole releases."""

import json

import numpy as np
import pytest

import stilts_jax as sj
from stilts_jax.config import load_config, to_settings
from stilts_jax.evaluation.benchmarks import BENCHMARKS, summarise
from stilts_jax.experiment.phases import list_phases
from stilts_jax.files import write_whole
from stilts_jax.report import write_report
from stilts_jax.report.statistics import spearman
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource, available_languages, read_counted
from tests.report.made_up_grid import table, write, write_right, xnli

pytestmark = pytest.mark.slow


def score(workdir, row, seed, percent, config, day=1):
    right = {"xnli": {"de": np.arange(400) < 4 * percent}}
    seeds = None if row == "none" else 0, seed
    about = {"command": "c", "finished": f"2026-01-0{day}T00:00:00+00:00"}
    write_right(workdir, row, seeds, right, config={"title": "", **config}, environment=about)


def cells(workdir):
    return {one["intermediate"]: one for one in table(write_report(workdir), "main")}


def test_rows_of_another_encoder_are_no_gain(tmp_path):
    for row, percent, encoder in (
        ("none", 40, "/new/M"),
        ("mnli", 43, "/moved/M"),
        ("hellaswag", 70, "/new/E"),
    ):
        score(tmp_path, row, 0, percent, {"encoder": encoder})
    found = cells(tmp_path)
    assert float(found["MNLI"]["difference"]) == 3.0
    assert (found["HellaSwag"]["percent"], found["HellaSwag"]["difference"]) == ("70.0", "")


def test_runs_of_other_settings_are_no_seeds(tmp_path):
    before, after = ({"encoder": "e", "train": {"learning_rate": rate}} for rate in (1e-5, 1e-4))
    for seed in range(3):
        score(tmp_path, "none", seed, 50, before)
        score(tmp_path, "mnli", seed, 60, before)
    score(tmp_path, "none", 0, 80, after, day=2)
    score(tmp_path, "mnli", 0, 80, after, day=2)
    found = cells(tmp_path)
    assert (float(found["none"]["percent"]), float(found["MNLI"]["difference"])) == (80.0, 0.0)
    assert float(found["MNLI"]["runs"]) == 1


def test_a_grid_of_xtreme_r_is_averaged_as_that_is(tmp_path):
    generator, scores = np.random.default_rng(0), {}
    for name, task in BENCHMARKS["xtreme-r"].items():
        metrics = ("f1", "em") if task.kind == "span" else (sj.get_task(name).metric,)
        names = {"chunk_f1": "f1", "nearest_accuracy": "accuracy", "token_accuracy": "accuracy"}
        scores[name] = {
            names.get(one, one): {code: float(generator.uniform(40, 80)) for code in task.languages}
            for one in metrics
        }
        write(tmp_path, "none", (None, 0), {name: scores[name]}, name)
    expected = summarise("xtreme-r", scores)["overall"]
    (line,) = [one for one in table(write_report(tmp_path), "averages") if one["column"] == "All"]
    assert float(line["percent"]) == pytest.approx(expected)


def test_a_phase_that_failed_has_no_settings_that_others_lack(tmp_path):
    write(tmp_path, "none", (None, 0), xnli(de=50.0))
    alone = sj.load_results(tmp_path).attrs["settings"]
    write(tmp_path, "qqp", (0, 0), {}, error={"type": "E", "message": "m"}, config={})
    assert sj.load_results(tmp_path).attrs["settings"] == alone and alone["encoder"]


def test_no_order_of_few_is_certain():
    assert spearman(np.arange(5.0), np.arange(5.0)) == (1.0, 2 / 120)


def test_rows_that_nobody_could_translate_are_scored_and_not_trained_on(tmp_path):
    """XTREME's evaluator wants a line for each of the 2,000."""
    source, rows = DataSource(tmp_path), "NS\tEin Satz.\t0\nEs.\tDas.\t1\n"
    for split in ("train", "test"):
        write_whole(tmp_path / f"pawsx/{split}-de.tsv", rows)
    assert [
        len(read_counted(get_task("pawsx"), split, "de", source).examples) for split in ("train", "test")
    ] == [1, 2]


def test_names_lie_as_their_authors_publish_them(tmp_path):
    row = {"example_id": "1", "text": "Ada.", "spans": [{"start_byte": 0, "limit_byte": 3, "label": "PER"}]}
    for path in ("test/ha.jsonl", "yo/test.jsonl"):
        write_whole(tmp_path / "masakhaner_x" / path, json.dumps(row) + "\n")
    assert available_languages(get_task("masakhaner_x"), "test", DataSource(tmp_path)) == ("ha", "yo")


def test_a_row_without_a_passage_is_dropped_whatever_its_answer(tmp_path):
    empty = {"id": "1", "question_lang": "?", "context": None}
    empty |= {"answer_pivot": {"answer_start": [], "text": [float("nan")]}}
    whole = empty | {"id": "2", "context": "x y", "answer_pivot": {"answer_start": [0], "text": ["x"]}}
    path = "afriqa/gold_passages/twi/gold_span_passages.afriqa.twi.en.train.json"
    write_whole(tmp_path / path, "".join(json.dumps(one) + "\n" for one in (empty, whole)))
    assert len(read_counted(get_task("afriqa"), "train", "tw", DataSource(tmp_path)).examples) == 1


def test_a_target_in_a_language_trains_in_it_however_it_is_called():
    settings = to_settings(load_config("target:task=panx", {"experiment.targets": "xnli@deu"}))
    (phase,) = list_phases(settings)
    assert (phase.train, get_task(phase.evaluate[0]).name) == (("mnli@de",), "xnli@de")
