"""What the report claims, through ``write_report`` and the files that it writes; numbers against other programs."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import stilts_jax
from stilts_jax.errors import DataError
from stilts_jax.files import this_machine, write_record
from stilts_jax.main import main
from stilts_jax.report import write_report
from stilts_jax.report.names import read_table
from stilts_jax.report.tables import Cell, Column, Table, to_csv, to_latex, to_markdown
from tests.report.made_up_grid import make_record, table, write, write_grid, write_right, xnli
from tests.report.made_up_grid import write_record as write_made_up


@pytest.fixture(scope="module")
def odd_grid(tmp_path_factory) -> Path:
    """Three rows, eleven languages, nested seeds, and what goes wrong in real life."""
    folder, trainings = tmp_path_factory.mktemp("odd"), ["mnli", "panx", "squad_v1", None]
    options = {"seeds": 2, "languages": 11, "count": 60}
    write_grid(folder, intermediates=["none", "mnli", "hub:org/other"], trainings=trainings, **options)
    for path in sorted(folder.glob("phases/*/result.json")):
        record = json.loads(path.read_text())
        name = record["phase"]["name"]
        record["config"] |= {"title": "Scores <of> & for", "encoder": "org/xlm-roberta-large"}
        if name == "mnli.s1+panx.s1":
            record["selection"]["collapsed"] = True
        if name.startswith("hub") and "panx" in name:
            record |= {"scores": {}, "main_metric": {}}
            record["error"] = {"type": "TrainingError", "message": "<b>no"}
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


def test_every_table_and_figure_is_there_each_time_in_every_form(odd_grid, odd_report, tmp_path, figures):
    names = re.findall(r'id="table-(\w+)"', odd_report.html.read_text(encoding="utf-8"))
    assert {"main", "averages", "best", "languages_xnli", "seeds", "published", "phases"} <= set(names)
    assert {path.stem for path in odd_report.tables.glob("*.csv")} == set(names)
    languages = {name for name in names if name.startswith("languages_")}
    assert {path.stem for path in odd_report.tables.glob("*.tex")} == {"main", "averages", *languages}
    heads = {"main.pdf": b"%PDF", "main.png": b"\x89PNG"} | {f"{name}.svg": b"<?xml" for name in languages}
    for name, head in heads.items():
        assert (odd_report.figures / name).read_bytes().startswith(head)
    again = write_report(odd_grid, tmp_path / "two")
    for name in ("html", "markdown", "scores"):
        assert getattr(again, name).read_bytes() == getattr(odd_report, name).read_bytes()


def test_colours_and_stars_are_of_what_is_more_than_noise(tmp_path):
    """Of 400 items 80 more are right after MNLI, and one after QQP."""
    for row, more in (("none", 0), ("mnli", 80), ("qqp", 1)):
        write_right(tmp_path, row, (0, 0), {"xnli": {"de": np.arange(400) < 200 + more}})
        write(tmp_path / "untested", row, (0, 0), xnli(de=50 + more / 4))
    page = write_report(tmp_path).html.read_text("utf-8").split('id="languages"')[0]
    assert "+20.0*" in page and re.search(r'<td class="number gain"[^>]*>\+20.0', page)
    assert "+0.2*" not in page and not re.search(r'<td class="number (gain|loss)"[^>]*>\+0.2', page)
    # Nothing is known of noise where no items were kept.
    page = write_report(tmp_path / "untested").html.read_text("utf-8")
    assert '<td class="number gain"' not in page and "nothing can be told from noise" in page


def test_intermediates_alone_make_a_page_that_says_what_is_missing(tmp_path, capsys):
    for read in (write_report, stilts_jax.load_results):
        with pytest.raises(DataError):
            read(tmp_path)
    write_made_up(tmp_path, make_record("mnli", None, {}, stage="intermediate", seeds=(0, None)))
    (tmp_path / "phases" / "mnli.s0+panx.s0-1").mkdir()
    assert main(["report", str(tmp_path)]) == 0 and "mnli.s0" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "no scores of target tasks yet" in page
    assert "mnli.s0+panx.s0-1" in page and "not finished" in page


def test_published_numbers_are_the_ones_that_were_read():
    published = read_table("published.csv")
    # The authors give these means with their per-language values.
    for task, count, mean in (("tatoeba", 36, 31.0), ("bucc", 4, 71.5)):
        here = published[(published.split == "dev") & (published.task == task)]["values"].item()
        values = [float(one.partition(":")[2]) for one in here.split()]
        assert (len(values), round(float(np.mean(values)), 1)) == (count, mean)
        assert f"{task}:{mean}" in set(published["values"][published.task == "mean"])


def test_published_numbers_stand_beside_the_same_encoder_only_unless_asked_for(tmp_path):
    scores = {"bucc": {"f1": {"de": 80.0}}, "tatoeba": {"accuracy": {"de": 80.0}}}
    write(tmp_path, "none", (None, None), scores, None)
    for asked in (None, True):
        text = write_report(tmp_path, published=asked).html.read_text(encoding="utf-8")
        assert ("Published numbers" in text) == ("encoder: made-up" in text) == bool(asked)
    write(tmp_path, "mnli", (0, None), {"bucc": {"f1": {"de": 80.0, "fr": 70.0}}}, None)
    text = write_report(tmp_path, published=True).markdown.read_text("utf-8")
    assert all(f"languages: {count} of 4" in text for count in (1, 2))  # of each row, beside its mean
    write(tmp_path / "other", "none", (0, 0), {"sib200": {"accuracy": {"de": 80.0}}}, "sib200")
    text = write_report(tmp_path / "other", published=True).markdown.read_text(encoding="utf-8")
    assert "No published number is of a target" in text


def test_a_grid_that_compares_nothing_shows_its_scores_against_distance(tmp_path, figures):
    far = dict(zip(("nl", "de", "fr", "ru", "hi", "zh", "vi"), (90.0, 88.0, 86.0, 80.0, 70.0, 60.0, 58.0)))
    write(tmp_path, "none", (0, 0), xnli(en=95.0, **far))
    paths = write_report(tmp_path)
    assert (paths.figures / "typology_xnli.png").is_file()
    text = paths.markdown.read_text("utf-8")
    assert "Do languages far from English score lower?" in text and "Caution" not in text
    (line,) = table(paths, "typology_geographic_distance")
    assert float(line["languages"]) == 7 and float(line["rho"]) < -0.9  # English was trained on
    del far["vi"]
    write(tmp_path, "mnli", (0, 0), xnli(**far))
    assert "up to 7 languages" in write_report(tmp_path).markdown.read_text("utf-8")


def test_a_row_has_its_colour_in_every_chart(tmp_path, figures):
    for row, scores in (("none", xnli(de=50.0)), ("mnli", {}), ("qqp", xnli(de=60.0))):
        write(tmp_path, row, (0, 0), scores)
    text = (write_report(tmp_path).figures / "languages_xnli.svg").read_text("utf-8")
    assert "#c8570a" in text  # the second row's


DISTANCES = "code,name,far,script\n" + "".join(
    f"{code},toy {code},0.{far},Latn\n" for far, code in enumerate(("de", "en", "es", "fr", "ja", "ko", "zh"))
)


@pytest.fixture
def small(tmp_path) -> Path:
    write_grid(tmp_path / "W", intermediates=["none", "mnli"], trainings=["pawsx", None], count=40)
    return tmp_path / "W"


def test_the_work_directory_remembers_distances_and_drops_old_tables(small, tmp_path):
    write_report(small)
    old = small / "report" / "tables" / "typology_geographic_distance.csv"
    assert old.is_file()
    (lost := old.with_name("problems.csv")).write_text("Phase,What,Why\n")
    (tmp_path / "own.csv").write_text(DISTANCES)
    own = f"--distances={tmp_path / 'own.csv'}"
    assert main(["report", str(tmp_path), own]) == 1 and not (tmp_path / "distances.csv").exists()
    assert main(["report", str(small), own]) == 0
    assert main(["report", str(small), f"--out={tmp_path / 'own.csv'}"]) == 2
    (tmp_path / "own.csv").unlink()
    assert [main(["report", str(small), *more]) for more in ([own], [])] == [1, 0]
    page = (small / "report" / "report.html").read_text("utf-8")
    assert "toy ja" in page and "Japanese" not in page and not old.exists() and not lost.exists()
    assert "the partial ρ holds script constant" in page


def test_files_keep_to_their_folder_and_their_mode_and_leave_no_temporaries(small):
    scores = {"../../x": {"accuracy": {"en": 50.0}}, "<b>|x": {"accuracy": {"en": 50.0}}}
    write(small, "none", (0, 0), scores, "../../x")
    (small / "report" / "tables").mkdir(parents=True)
    for name in (".report.html", "tables/.main.csv"):
        (small / "report" / f"{name}.{this_machine()}.999999999-0.tmp").write_text("half")
    before = os.umask(0o077)
    try:
        paths = write_report(small)
    finally:
        os.umask(before)
    files = [path for path in small.rglob("*") if path.is_file() and "phases" not in path.parts]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert not any(path.name.startswith(".") for path in files)
    assert {path.parent for path in files} <= {small / "report", paths.tables, small / "report" / "figures"}
    assert not list(small.parent.glob("*.csv")) and r"\<b\>\|x" in paths.markdown.read_text("utf-8")


def test_the_page_has_the_command_without_what_is_secret(small):
    path = next(small.glob("phases/*/result.json"))
    write(small, "hub:/data/models/mine", (0, 0), {"pawsx": {"accuracy": {"en": 50.0}}}, "pawsx")
    record = json.loads(path.read_text())
    record["config"]["encoder"] = encoder = "https://me:pw1@host/x"
    record["environment"]["command"] = f"stilts grid --config.encoder={encoder} --hub-token=pw2 --workdir=W"
    record["selection"]["notes"] = [f"weights of {encoder} are old"]
    write_record(path, record)
    paths = write_report(small)
    for text in (one.read_text("utf-8") for one in (paths.html, paths.markdown, paths.scores)):
        assert "host/x" in text and ("--workdir=W" in text or "phase,key" in text)
        assert not any(secret in text for secret in ("pw1", "pw2", str(small)))
    names = (paths.tables / "main.csv").read_text("utf-8")
    assert "mine" in names and "/data/models" not in names


def test_question_answering_is_named_for_what_is_shown(tmp_path):
    for row, f1 in (("none", 70.0), ("mnli", 74.0)):
        write(tmp_path, row, (0, 0), {"xquad": {"f1": {"en": f1}, "em": {"en": f1 - 20}}}, "squad_v1")
    write(tmp_path, "none", (0, 0), {}, "pawsx", reported_split={"pawsx": "test"})
    write(tmp_path, "qqp", (0, 0), {"xquad": {"f1": {"en": 75.0}}}, "squad_v1")
    *_, unscored, line, _, other = table(tmp_path, "main")
    assert other["note"].startswith("percent, F1 on test: the baseline has no such score")
    assert (unscored["detail"], line["detail"]) == ("no scores", "mean of F1 and EM, test")
    assert (float(line["percent"]), float(line["difference"])) == (64.0, 4.0)


def test_tuned_thresholds_are_no_zero_shot(tmp_path):
    for thresholds in ({}, {"bucc": {"de": 0.5}}):
        write(tmp_path, "none", (0, 0), {"bucc": {"f1": {"de": 50.0}}}, None, thresholds=thresholds)
        page = write_report(tmp_path).html.read_text("utf-8")
        assert ("Zero-shot:" in page) == (not thresholds)
        assert ("thresholds of BUCC were tuned" in page) == bool(thresholds)


def test_tasks_in_the_language_of_their_training_share_a_row_and_are_not_called_zero_shot(tmp_path):
    for row, gain in (("none", 0.0), ("mnli", 2.0)):
        for code, score in (("ha", 60.0), ("yo", 50.0)):
            task = f"masakhaner_x@{code}"
            record = make_record(row, task, {task: {"f1": {code: score + gain}}})
            record["phase"]["source_language"], record["config"] = code, {}
            record["tasks"] = {task: {"title": "MasakhaNER-X", "group": "tagging"}}
            record["selection"] |= {"zero_shot": False, "notes": ["few-shot"]}
            write_made_up(tmp_path, record)
    paths = write_report(tmp_path, benchmark="xtreme-up")
    found = [(row["intermediate"], row["column"][-4:], row["percent"]) for row in table(paths, "main")]
    none = [("none", "(ha)", "60.0"), ("none", "(yo)", "50.0")]
    assert found == [*none, ("MNLI", "(ha)", "62.0"), ("MNLI", "(yo)", "52.0")]
    gains = {row["column"]: row["difference"] for row in table(paths, "averages")}
    assert gains == {"Tagging": "2.0", "All": "2.0"}  # no average over languages that were not trained on
    page = paths.markdown.read_text("utf-8")
    assert "few-shot in each language" in page.splitlines()[0] and "XTREME-UP NER" in page
    claims = [line for line in page.lower().splitlines() if "zero-shot" in line]
    assert [line.startswith("| remark") for line in claims] == [True]  # the column that says NO


def test_a_language_of_intermediate_training_is_no_transfer(tmp_path):
    """Of `mnli@de` neither English nor German is transfer, in any row, wherever its own result may be."""
    write(tmp_path, "none", (None, 0), xnli(en=90.0, de=80.0, sw=60.0, th=10.0))
    write(tmp_path, "mnli@de", (0, 0), xnli(en=91.0, de=86.0, sw=61.0))
    for row, seed in (("none", None), ("mnli@de", 0)):
        write(tmp_path, row, (seed, 0), {"pawsx": {"accuracy": {"fr": 70.0, "de": 71.0 + len(row)}}}, "pawsx")
    (head, line) = [one for one in table(tmp_path, "averages") if one["column"].startswith("Without English")]
    assert head["column"] == "Without English and German"
    assert float(line["difference"]) == 0.5  # Swahili gains 1, French nothing
    assert line["note"] == "XNLI without th"


def test_scores_by_layer_are_of_what_the_main_table_shows(tmp_path):
    """Polish is of XTREME-R alone."""
    scores = {"tatoeba": {"accuracy": {"de": 50.0, "pl": 10.0}}}
    record = make_record("none", None, scores, seeds=(None, None), stage="retrieval")
    record["scores"]["tatoeba"]["test-layer0"] = record["scores"]["tatoeba"]["test"]
    write_made_up(tmp_path, record)
    paths = write_report(tmp_path)
    assert table(paths, "main")[0]["percent"] == table(paths, "layers")[0]["0"] == "50.0"
    page = paths.html.read_text("utf-8")
    assert "Learning curves" not in page  # nothing was trained
    assert "1 row · 1 target task · 1 finished phase ·" in page


def test_an_own_task_has_the_title_and_group_of_its_declaration(tmp_path):
    for row, name, group in (("none", "reviews", "classification"), ("reviews", "finds", "retrieval")):
        record = make_record(row, name, {name: {"accuracy": {"en": 60.0}}}, seeds=(None, 0))
        write_made_up(tmp_path, record | {"tasks": {name: {"title": f"My {name}", "group": group}}})
    page = "".join(path.read_text("utf-8") for path in write_report(tmp_path)[:2])  # and its Markdown
    said = ("| My reviews   |", "Classification", "My finds", "Retrieval", "Without retrieval", "Other")
    assert [text for text in said if text not in page] == ["Other"]


COLUMNS = [Column("Row"), Column("a|b", "50 %", "Group_1"), Column("c", "", "Group_1")]
ROWS = [
    [Cell("x < y"), Cell("+1.3", "± 0.4", tone=0.5, numbers={"": 1.25}), Cell("–", note="not run")],
    [Cell("R&D_2"), Cell("−0.4", tone=-0.2, numbers={"": -0.4}), Cell("–", note="not run")],
]
TABLE = Table("made_up", "A <title> & more", COLUMNS, ROWS, ["A note."])


def test_a_table_in_csv_markdown_and_latex():
    rows = list(csv.reader(to_csv(TABLE).splitlines()))
    assert rows[:2] == [["Row", "a|b (50 %)", "c"], ["x < y", "1.25", "missing: not run"]]
    lines = to_markdown(TABLE).splitlines()
    assert len({len(line.replace("\\|", "|")) for line in lines[:4] if "a\\|b" not in line}) == 1
    assert "\\[a\\] not run" in to_markdown(TABLE)
    text = to_latex(TABLE)
    for part in (r"\caption{", r"\label{tab:made_up}", r"R\&D\_2", r"x \textless{} y", r"50 \%", "$-$0.4"):
        assert part in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in body} == {2}
