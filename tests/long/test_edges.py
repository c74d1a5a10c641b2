"""What lies between two parts: languages that were translated half, footnotes, folders of others, empty languages."""

import csv

import pytest

from stilts_jax.evaluation.evaluate import score_decoded
from stilts_jax.files import write_whole
from stilts_jax.report import write_report
from stilts_jax.report.tables import Cell, Table, to_csv
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.inventory import format_paths, prepare
from stilts_jax.tasks.sources.read import DataSource, available_languages, selection_language
from stilts_jax.tasks.spec import ClassifyExample
from tests.report.made_up_grid import write, xnli

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
