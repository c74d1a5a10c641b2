"""What lies between two parts: languages that were translated half, footnotes, folders of others, empty languages."""

import csv
import re

import numpy as np
import pytest

from stilts_jax import load_results
from stilts_jax.evaluation.benchmarks import BENCHMARKS
from stilts_jax.evaluation.evaluate import score_decoded
from stilts_jax.evaluation.metrics import token_accuracy
from stilts_jax.files import write_record as write_json_record
from stilts_jax.files import write_whole
from stilts_jax.report import write_report
from stilts_jax.report.names import languages_of, trained_on
from stilts_jax.report.tables import Cell, Table, to_csv
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import tag_task
from stilts_jax.tasks.sources.inventory import format_paths, prepare
from stilts_jax.tasks.sources.read import DataSource, available_languages, selection_language
from stilts_jax.tasks.spec import ClassifyExample
from tests.report.made_up_grid import make_record, table, write, write_record, write_right, xnli

pytestmark = pytest.mark.slow


def test_what_was_translated_for_training_alone_needs_the_english_dev_set(tmp_path):
    """The grid asks for it, so it is among what is missing before that."""
    row = '{"gold_label": "neutral", "sentence1": "eins", "sentence2": "zwei", "pairID": "1"}\n'
    write_whole(tmp_path / "mnli/multinli_1.0_train-de.jsonl", row)
    task, source = get_task("mnli@de"), DataSource(tmp_path)
    missing = [(one.split, one.language) for one in prepare([task], source).splits if one.found is None]
    assert missing == [("dev", "en")] and "dev not found" in format_paths(task, source)
    write_whole(tmp_path / "mnli/multinli_1.0_dev_matched-de.jsonl", row)
    assert all(one.found == 1 for one in prepare([task], source).splits)


def test_a_task_of_ones_own_is_selected_on_its_own_language(tmp_path, monkeypatch):
    files = {"train": "r/train.jsonl", "dev": "r/dev.jsonl", "test": "r/test-{language}.jsonl"}
    declared = f'"reviews", files={files}, labels=("a", "b"), languages=("fr", "de"), source_language="fr"'
    write_whole(
        tmp_path / "edges_own.py",
        f"from stilts_jax.tasks.custom import classify_task\nR = classify_task({declared})",
    )
    monkeypatch.chdir(tmp_path)
    for path in ("train-de", "dev", "test-de"):
        write_whole(tmp_path / f"r/{path}.jsonl", '{"text": "t", "label": "a"}\n')
    german, source = get_task("edges_own:R@de"), DataSource(tmp_path)
    assert selection_language(german, source) == "fr" and available_languages(german, "dev", source) == (
        "fr",
    )


def test_footnotes_of_numbers_are_in_the_csv():
    rows = [
        [Cell("a"), Cell.score(1.25)._replace(note="of one seed")],
        [Cell("b"), Cell("–", note="not run")],
    ]
    header, *lines = csv.reader(to_csv(Table.plain("t", "T", "row|score", rows)).splitlines())
    assert header == ["row", "score", "note"]
    assert lines == [["a", "1.25", "of one seed"], ["b", "missing: not run", ""]]


def test_a_report_removes_nothing_from_a_folder_that_is_no_report(tmp_path):
    write(tmp_path, "none", (None, 0), xnli(de=50.0))
    own = tmp_path / "paper/tables/languages_of_mine.tex"
    write_whole(own, "mine")
    write_report(tmp_path, tmp_path / "paper")
    assert own.read_text() == "mine"
    write_report(tmp_path, tmp_path / "paper")  # now it is the place of a report
    assert not own.exists()


def test_a_language_without_rows_has_no_score():
    task, example = get_task("xnli"), ClassifyExample("1", "text", "other", 0)
    found = score_decoded(task, {"en": [0], "de": []}, {"en": [example], "de": []})
    assert found.scores["accuracy"] == {"en": 100.0}


def accuracy(generator, size, share):
    return {"xnli": {"de": generator.random(size) < share}}


def test_pictures_are_compared_where_both_rows_have_the_same_seeds(tmp_path):
    """One seed of the control against the mean of three would have no error of seeds."""
    generator = np.random.default_rng(0)
    write_right(tmp_path, "none", (None, 0), accuracy(generator, 400, 0.5))
    for seed in range(3):
        write_right(tmp_path, "easy_vqa", (seed, 0), accuracy(generator, 400, 0.6))
    write_right(tmp_path, "easy_vqa.blind", (0, 0), accuracy(generator, 400, 0.4))
    report = write_report(tmp_path)
    (line,) = table(report, "pictures")
    assert "not the same items, languages and seeds" in str(line)
    assert "Of easy-VQA, blind there is one seed of the intermediate training" in " ".join(
        report.summary.split()
    )
    for seed in (1, 2):
        write_right(tmp_path, "easy_vqa.blind", (seed, 0), accuracy(generator, 400, 0.4))
    assert float(table(tmp_path, "pictures")[0]["error_seeds"]) > 0


def test_published_means_are_of_the_languages_of_xtreme(tmp_path):
    """XTREME-R adds some to POS; the number beside has none of them."""
    scores = dict.fromkeys(BENCHMARKS["xtreme-r"]["udpos"].languages, 60.0)
    config = {"encoder": "xlm-roberta-large"}
    write(tmp_path, "none", (None, 0), {"udpos": {"f1": scores}}, "udpos", config=config)
    text = write_report(tmp_path, benchmark="xtreme-r", published=True).markdown.read_text()
    assert "languages: 33 of 33 (and" in text.partition("## Published")[2]


def test_words_of_a_sentence_are_one_item():
    task = tag_task("words", labels=("x", "y"), files={"train": "a.jsonl"})
    found = token_accuracy(task, [["x", "x", "y"], ["y"]], [["x", "y", "y"], ["y"]], "en")
    assert found.values == {"accuracy": 75.0} and found.items.values.tolist() == [[2, 3, 3], [1, 1, 1]]


def test_a_task_of_ones_own_is_not_called_english(tmp_path):
    assert languages_of("reviews+mnli@de") == {"de"} and trained_on("reviews") == "reviews"
    record = make_record("reviews", "mnli@de", xnli(en=50.0, fr=60.0))
    record["phase"]["source_language"] = "de"
    write_record(tmp_path, record)
    assert load_results(tmp_path).zero_shot.all()


def test_what_could_not_be_tested_has_no_colour(tmp_path):
    for row, percent in (("none", 40.0), ("mnli", 70.0)):
        write(tmp_path, row, (None if row == "none" else 0, 0), xnli(de=percent))
    report = write_report(tmp_path)
    assert not re.search(r'class="number[^>]*--tone', report.html.read_text())
    assert "No row has items of the same languages" in report.markdown.read_text()


def test_one_name_of_two_encoders_is_said(tmp_path):
    for row, start in (("none", "one"), ("mnli", "other")):
        config = {"encoder": f"/{start}/final", "start": start}
        write(tmp_path, row, (None if row == "none" else 0, 0), xnli(de=50.0), config=config)
    assert "Not all rows start from the same encoder" in write_report(tmp_path).summary


def test_a_training_that_numbers_rest_on_is_not_said_to_be_in_none(tmp_path):
    for day, (key, target) in enumerate((("old", "panx"), ("new", "mnli")), 1):
        environment = {"finished": f"2026-01-0{day}"}
        parent = make_record("mnli", None, {}, seeds=(0, None), stage="intermediate", environment=environment)
        parent["phase"]["key"] = key
        write_json_record(tmp_path / f"phases/{key}/result.json", parent)
        child = make_record("mnli", target, xnli(de=50.0), environment=environment)
        child["phase"]["parent"] = key
        write_record(tmp_path, child)
    assert "rows here still start from it" in " ".join(write_report(tmp_path).summary.split())


@pytest.mark.parametrize(("far", "said"), [(None, ""), (1.0, "all languages are equally far")])
def test_own_distances_without_more(far, said, tmp_path):
    """No script and no size of texts: nothing is held constant, so no partial correlation lacks anything."""
    codes, generator = ["en", "de", "fr", "ru", "sw", "zh", "ar", "hi"], np.random.default_rng(0)
    for row in ("none", "mnli"):
        scores = xnli(**{code: generator.uniform(40, 60) for code in codes})
        write(tmp_path, row, (None if row == "none" else 0, 0), scores)
    rows = (f"{code},{far or number}" for number, code in enumerate(codes))
    write_whole(tmp_path / "far.csv", "\n".join(["code,far", *rows]))
    text = write_report(tmp_path, distances=tmp_path / "far.csv").markdown.read_text()
    typology = text.partition("## Typology")[2]
    assert said in typology and "No partial" not in typology and "### Learning curves" not in text
