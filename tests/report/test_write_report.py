import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import made_up_grid
import numpy as np
import pytest

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.files import write_record
from stilts_jax.report import summary_text, write_report
from stilts_jax.report.published_tables import published_numbers
from stilts_jax.report.repeat_tables import split_configs
from stilts_jax.report.run_tables import thin


class Page(HTMLParser):
    """Checks nesting, collects text, ids and references."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in ("br", "meta"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href"):
                self.references.append(value)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def odd_grid(tmp_path) -> Path:
    """Three rows, eleven languages, nested seeds, and what goes wrong in real life."""
    made_up_grid.write_grid(
        tmp_path,
        intermediates=["none", "mnli", "hub:org/other"],
        trainings=["mnli", "panx", "squad_v1", None],
        seeds=2,
        intermediate_seeds=2,
        languages=11,
        items=60,
    )
    for path in sorted(tmp_path.glob("phases/*/result.json")):
        record = json.loads(path.read_text())
        name = record["phase"]["name"]
        record["config"] |= {"title": "Scores <of> & for", "encoder": "org/xlm-roberta-large"}
        if name == "mnli.s1+panx.s1":
            record["selection"]["collapsed"] = True
        if name.startswith("hub") and "panx" in name:
            record |= {
                "scores": {},
                "main_metric": {},
                "error": {"type": "TrainingError", "message": "<b>no"},
            }
        if name == "none.sNone+mnli.s0":
            record["selection"] |= {"zero_shot": False, "notes": ["selected on target dev"]}
        write_record(path, record)
    (tmp_path / "phases" / "cut").mkdir()
    (tmp_path / "phases" / "cut" / "result.json").write_text("{")
    return tmp_path


def test_the_page_is_whole_and_needs_nothing_else(odd_grid):
    paths = write_report(odd_grid)
    text = paths.html.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {"script", "img", "link", "iframe"}.isdisjoint(page.seen)
    assert all(reference.startswith("#") and reference[1:] in page.ids for reference in page.references)
    assert "url(" not in text
    assert "@import" not in text
    assert "Scores <of> & for" in page.text
    assert "<b>no" in page.text  # an error's message is text, not markup
    for drawing in re.findall(r"<svg.*?</svg>", text):
        ElementTree.fromstring(drawing)
    assert "nan" not in re.sub(r"[a-zA-Z]+nan|nan[a-zA-Z]+", "", re.sub(r"<[^>]*>", " ", text))
    for reason in (
        "failed: TrainingError",
        "it is not JSON",
        "selected on target dev",
        "ended at chance level",
    ):
        assert reason in page.text


def check_latex(text: str, columns: int) -> None:
    """What LaTeX's tabular insists on: every field is closed, every row has as many as the table."""
    frame = re.findall(r"\\begin\{(\w+)\}", text)[-1]
    body, _, notes = text.partition(f"\\end{{{frame}}}")
    body = body.partition(r"\toprule")[2]
    assert body
    lines = [
        line for line in body.splitlines() if line.strip() and not re.fullmatch(r"\\\w+rule", line.strip())
    ]
    for line in lines:
        assert line.endswith(r" \\")
        fields = re.split(r"(?<!\\)&", line.removesuffix(r" \\"))
        spans = [
            int(found[1]) if (found := re.search(r"\\multicolumn\{(\d+)\}", one)) else 1 for one in fields
        ]
        assert sum(spans) == columns
    for piece in (*lines, notes):
        bare = re.sub(r"\\[\\{}&%$#_]", "", piece)
        depth = 0
        for character in bare:
            depth += {"{": 1, "}": -1}.get(character, 0)
            assert depth >= 0
        assert depth == 0
        assert bare.count("$") % 2 == 0
        assert not set("#%_^~") & set(bare)


def test_every_table_is_there_in_every_form(odd_grid):
    paths = write_report(odd_grid)
    names = re.findall(r'id="table-(\w+)"', paths.html.read_text(encoding="utf-8"))
    assert {
        "main",
        "averages",
        "best",
        "languages_xnli",
        "significance",
        "seeds",
        "published",
        "phases",
    } <= set(names)
    markdown = paths.markdown.read_text(encoding="utf-8")
    for name in names:
        rows = list(csv.reader((paths.tables / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
        assert len({len(row) for row in rows}) == 1
        (head,) = re.findall(
            rf'id="table-{name}">.*?<thead>.*?</thead>', paths.html.read_text("utf-8"), re.DOTALL
        )
        columns = head.count('scope="col"')
        check_latex((paths.tables / f"{name}.tex").read_text(encoding="utf-8"), columns)
    assert markdown.count("\n## ") == 9
    assert not list(paths.html.parent.glob(".*"))


def test_the_numbers_on_the_page_are_those_of_the_files(odd_grid):
    paths = write_report(odd_grid)
    rows = list(csv.DictReader((paths.tables / "main.csv").read_text(encoding="utf-8").splitlines()))
    by_row: dict[str, list[float]] = {"none": [], "mnli": []}
    for path in odd_grid.glob("phases/*+mnli.s*/result.json"):
        record = json.loads(path.read_text())
        if record["phase"]["intermediate"] in by_row:
            scores = record["scores"]["xnli"]["test"]["accuracy"]
            by_row[record["phase"]["intermediate"]].append(np.mean(list(scores.values())))
    rows = [row for row in rows if row["column"] == "XNLI"]
    assert float(rows[0]["percent"]) == pytest.approx(np.mean(by_row["none"]))
    assert float(rows[1]["difference"]) == pytest.approx(np.mean(by_row["mnli"]) - np.mean(by_row["none"]))


def test_a_report_is_the_same_each_time(odd_grid):
    first = write_report(odd_grid, odd_grid / "one")
    second = write_report(odd_grid, odd_grid / "two")
    assert first.html.read_bytes() == second.html.read_bytes()
    assert first.markdown.read_bytes() == second.markdown.read_bytes()


def test_own_names_and_distances(odd_grid):
    distances = odd_grid / "distances.csv"
    languages = made_up_grid.LANGUAGES["xnli"].split()
    lines = [f"{code},toy {code},{index / 20},Latn,{index % 5}" for index, code in enumerate(languages)]
    distances.write_text("code,name,distance,script,log_text_bytes\n" + "\n".join(lines))
    page = Page(write_report(odd_grid, distances=distances).html.read_text(encoding="utf-8"))
    assert "toy th" in page.text
    assert "Thai" not in page.text
    assert "column distance of distances.csv" in page.text


def test_a_single_run_makes_a_page(tmp_path):
    scores = {"xnli": {"accuracy": {"en": 80.0}}}
    record = made_up_grid.make_record(
        "none", "mnli", scores, curve=[], throughput={}, environment={}, config={}
    )
    record["selection"] = {}
    made_up_grid.write_record(tmp_path, record)
    Page(write_report(tmp_path, benchmark="xtreme-r").html.read_text(encoding="utf-8"))
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
    text = Page(write_report(tmp_path).html.read_text(encoding="utf-8")).text
    assert "Mean difference from the baseline: −21.0 points over 2 tasks" in text
    assert "without retrieval: +8.0 points over 1 task" in text


def test_an_empty_folder_and_an_unknown_benchmark(tmp_path):
    with pytest.raises(DataError, match="nothing to report on"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match="glue"):
        summary_text(tmp_path, "glue")


def test_published_numbers_are_the_ones_that_were_read():
    numbers = published_numbers()
    # The authors give these means with their per-language values.
    for task, count, mean in (("tatoeba", 36, 31.0), ("bucc", 4, 71.5)):
        here = {one.language: one.value for one in numbers if one.task == task and one.split == "dev"}
        assert here.pop("mean") == mean
        assert (len(here), round(float(np.mean(list(here.values()))), 1)) == (count, mean)
    base = {
        one.task: one.value
        for one in numbers
        if (one.model, one.language, one.split) == ("XLM-R Large", "mean", "test") and one.metric != "em"
    }
    assert base["xnli"] == 79.2
    assert len(base) == 9


def test_published_numbers_are_for_the_model_they_are_of(tmp_path):
    scores = {"xnli": {"accuracy": {"en": 80.0, "de": 75.0}}}
    made_up_grid.write_record(tmp_path, made_up_grid.make_record("none", "mnli", scores))
    assert "Published numbers" not in write_report(tmp_path).html.read_text(encoding="utf-8")
    asked = write_report(tmp_path, published=True).html.read_text(encoding="utf-8")
    assert "Published numbers" in asked
    assert "encoder: made-up" in asked
    assert "jiant-dev pull request 128; layer 14, mean pooling, dev<" in asked  # every row says its split


def test_configurations_come_apart_and_together():
    configs = [
        {"a": 1, "train": {"epochs": 2, "seed": 0}, "only": True},
        {"a": 1, "train": {"epochs": 2, "seed": 1}},
    ]
    common, rest = split_configs(configs)
    assert common == {"a": 1, "train": {"epochs": 2}}
    assert rest == [{"only": True, "train": {"seed": 0}}, {"train": {"seed": 1}}]


def test_thin_keeps_ends_and_means():
    points = [(float(step), float(step)) for step in range(1000)]
    thinned = thin(points, 50)
    assert len(thinned) == 50
    assert thinned[-1][0] == 999
    assert np.mean([y for _, y in thinned]) == pytest.approx(499.5)
    assert thin([(0.0, 1.0), (1.0, float("nan"))]) == [(0.0, 1.0)]


def _places(value, path=()):
    """Every place inside a record of plain values."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*path, 0))


def test_no_junk_in_one_file_breaks_the_report(tmp_path):
    """Each place of a result in turn holds junk: the file is left out, or what it says is; nothing raises."""
    values = np.array([0, 1, 1, 0], np.uint8)
    items = {"xnli": {"en": made_up_grid.encode_items(values, "mean", True)}}
    scores = {"xnli": {"accuracy": {"en": 50.0}}}
    made_up_grid.write_record(tmp_path, made_up_grid.make_record("none", "mnli", scores, items=items))
    record = made_up_grid.make_record("mnli", "mnli", scores, items=items)
    path = made_up_grid.write_record(tmp_path, record)
    junk = [None, 5, "x", [], {}, [[]], {"a": "b"}, True]
    for number, place in enumerate(_places(record)):
        changed = json.loads(json.dumps(record))
        if not place:
            continue
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = junk[number % len(junk)]
        write_record(path, changed)
        try:
            write_report(tmp_path)
        except Exception as error:
            raise AssertionError(f"{place} = {junk[number % len(junk)]!r}") from error
