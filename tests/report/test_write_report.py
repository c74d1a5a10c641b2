import json
import re
from pathlib import Path

import made_up_grid
import numpy as np
import pytest

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.files import write_record
from stilts_jax.report import summary_text, write_report
from stilts_jax.report.published import published_numbers
from stilts_jax.report.results import split_configs


@pytest.fixture(scope="module")
def odd_grid(tmp_path_factory) -> Path:
    """Three rows, eleven languages, nested seeds, and what goes wrong in real life."""
    folder = tmp_path_factory.mktemp("odd")
    made_up_grid.write_grid(
        folder,
        intermediates=["none", "mnli", "hub:org/other"],
        trainings=["mnli", "panx", "squad_v1", None],
        seeds=2,
        intermediate_seeds=2,
        languages=11,
        items=60,
    )
    for path in sorted(folder.glob("phases/*/result.json")):
        record = json.loads(path.read_text())
        name = record["phase"]["name"]
        record["config"] |= {"title": "Scores <of> & for", "encoder": "org/xlm-roberta-large"}
        if name == "mnli.s1+panx.s1":
            record["selection"]["collapsed"] = True
        if name.startswith("hub") and "panx" in name:
            error = {"type": "TrainingError", "message": "<b>no"}
            record |= {"scores": {}, "main_metric": {}, "error": error}
        if name == "none.sNone+mnli.s0":
            record["selection"] |= {"zero_shot": False, "notes": ["selected on target dev"]}
        write_record(path, record)
    (folder / "phases" / "cut").mkdir()
    (folder / "phases" / "cut" / "result.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def odd_report(odd_grid):
    return write_report(odd_grid)


def test_the_page_is_whole_and_needs_nothing_else(odd_report):
    text = odd_report.html.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)
    assert not re.search(r'<(script|img|link|iframe)\b|@import|(src|href)="[^#]', text)
    assert "Scores &lt;of&gt; &amp; for" in text
    assert "&lt;b&gt;no" in text  # an error's message is text, not markup
    assert not re.search(r"\bnan\b", re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))
    for reason in ("failed: TrainingError", "selected on target dev", "ended at chance level"):
        assert reason in text


def test_every_table_and_figure_is_there_in_every_form(odd_report):
    names = re.findall(r'id="table-(\w+)"', odd_report.html.read_text(encoding="utf-8"))
    expected = {"main", "averages", "best", "languages_xnli", "significance", "seeds", "published", "phases"}
    assert expected <= set(names)
    assert {path.stem for path in odd_report.tables.glob("*.csv")} == set(names)
    languages = {name for name in names if name.startswith("languages_")}
    assert {path.stem for path in odd_report.tables.glob("*.tex")} == {"main", "averages", *languages}
    for name in languages:
        assert (odd_report.figures / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (odd_report.figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    markdown = odd_report.markdown.read_text(encoding="utf-8")
    assert markdown.count("\n## ") == 9
    assert not list(odd_report.html.parent.rglob(".*"))


def test_a_report_is_the_same_each_time(odd_grid, odd_report, tmp_path):
    again = write_report(odd_grid, tmp_path / "two")
    for name in ("html", "markdown", "scores"):
        assert getattr(again, name).read_bytes() == getattr(odd_report, name).read_bytes()


def test_a_single_run_makes_a_page(tmp_path):
    scores = {"xnli": {"accuracy": {"en": 80.0}}}
    empty = {"curve": [], "throughput": {}, "environment": {}, "config": {}, "selection": {}}
    made_up_grid.write_record(tmp_path, made_up_grid.make_record("none", "mnli", scores, **empty))
    assert write_report(tmp_path, benchmark="xtreme-r").html.is_file()
    assert "80.0" in summary_text(tmp_path)


def test_the_headline_has_means_with_and_without_retrieval(tmp_path):
    for intermediate, seed, xnli, tatoeba in (("none", None, 50.0, 90.0), ("mnli", 0, 58.0, 40.0)):
        scores = {"xnli": {"accuracy": {"en": xnli}}}
        made_up_grid.write_record(
            tmp_path, made_up_grid.make_record(intermediate, "mnli", scores, seeds=(seed, 0))
        )
        scores = {"tatoeba": {"accuracy": {"de": tatoeba}}}
        record = made_up_grid.make_record(intermediate, None, scores, seeds=(seed, None), stage="retrieval")
        made_up_grid.write_record(tmp_path, record)
    text = write_report(tmp_path).html.read_text(encoding="utf-8")
    assert "Mean difference from the baseline: −21.0 points over 2 tasks" in text
    assert "without retrieval: +8.0 points over 1 task" in text


def test_an_empty_folder_and_an_unknown_benchmark(tmp_path):
    with pytest.raises(DataError, match="nothing to report on"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match="glue"):
        summary_text(tmp_path, "glue")


def test_published_numbers_are_the_ones_that_were_read(tmp_path):
    published = published_numbers()
    # The authors give these means with their per-language values.
    for task, count, mean in (("tatoeba", 36, 31.0), ("bucc", 4, 71.5)):
        here = published[(published.task == task) & (published.split == "dev")].set_index("language").value
        assert here.pop("mean") == mean
        assert (len(here), round(float(np.mean(here)), 1)) == (count, mean)
    large = published[(published.model == "XLM-R Large") & (published.split == "test")]
    means = large[(large.language == "mean") & (large.metric != "em")].set_index("task").value
    assert means["xnli"] == 79.2
    assert len(means) == 9


@pytest.mark.parametrize(("asked", "shown"), [(None, False), (True, True)])
def test_published_numbers_stand_beside_the_same_encoder_only_unless_asked_for(tmp_path, asked, shown):
    scores = {"bucc": {"f1": {"de": 80.0}}, "tatoeba": {"accuracy": {"de": 80.0}}}
    record = made_up_grid.make_record("none", None, scores, seeds=(None, None), stage="retrieval")
    made_up_grid.write_record(tmp_path, record)
    text = write_report(tmp_path, published=asked).html.read_text(encoding="utf-8")
    assert ("Published numbers" in text) == shown
    assert ("encoder: made-up" in text) == shown


def test_configurations_come_apart_and_together():
    configs = [
        {"a": 1, "train": {"epochs": 2, "seed": 0}, "only": True},
        {"a": 1, "train": {"epochs": 2, "seed": 1}},
    ]
    common, rest = split_configs(configs)
    assert common == {"a": 1, "train": {"epochs": 2}}
    assert rest == [{"only": True, "train": {"seed": 0}}, {"train": {"seed": 1}}]


def _places(value, path=()):
    """Every place inside a record of plain values."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*path, 0))


def test_no_junk_in_any_file_breaks_the_report(tmp_path):
    """In each of many results another place holds junk: what it says is left out, and nothing raises."""
    items = {"xnli": {"en": made_up_grid.encode_items(np.array([0, 1, 1, 0], np.uint8), "mean", True)}}
    scores = {"xnli": {"accuracy": {"en": 50.0}}}
    record = made_up_grid.make_record("none", "mnli", scores, seeds=(None, 0), items=items)
    made_up_grid.write_record(tmp_path, record)
    junk = [None, 5, "x", [], {}, [[]], {"a": "b"}, True]
    places = [place for place in _places(record) if place]
    for number, place in enumerate(places):
        made = made_up_grid.make_record("mnli", "mnli", scores, seeds=(number, 0), items=items)
        inner = made = json.loads(json.dumps(made))
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = junk[number % len(junk)]
        write_record(tmp_path / "phases" / f"p{number}" / "result.json", made)
    text = write_report(tmp_path).html.read_text(encoding="utf-8")
    assert len(places) > 50
    assert "left out" in text
