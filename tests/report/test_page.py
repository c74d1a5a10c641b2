"""What the report claims, through ``write_report`` and the files that it writes; numbers against other programs."""

import csv
import json
import os
import re
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_grid import encode_items, make_record, write, write_grid, xnli
from made_up_grid import write_record as write_made_up
from scipy import stats

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.files import write_record
from stilts_jax.main import main
from stilts_jax.report import ReportPaths, summary_text, write_report
from stilts_jax.report.details import published_numbers
from stilts_jax.report.tables import (
    Cell,
    Column,
    Table,
    fixed,
    gain_tone,
    signed,
    to_csv,
    to_latex,
    to_markdown,
)


def table(workdir: Path | ReportPaths, name: str) -> list[dict[str, str]]:
    """The rows of a table of a report; of a work directory the report is written first."""
    paths = workdir if isinstance(workdir, ReportPaths) else write_report(workdir)
    return list(csv.DictReader((paths.tables / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


def items(values: np.ndarray, ids: str = "", aligned: bool = True) -> dict:
    return encode_items(values, "mean", aligned) | {"ids": ids}


@pytest.fixture(scope="module")
def odd_grid(tmp_path_factory) -> Path:
    """Three rows, eleven languages, nested seeds, and what goes wrong in real life."""
    folder, trainings = tmp_path_factory.mktemp("odd"), ["mnli", "panx", "squad_v1", None]
    options = {"seeds": 2, "intermediate_seeds": 2, "languages": 11, "items": 60}
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


def test_every_table_and_figure_is_there_in_every_form(odd_report):
    names = re.findall(r'id="table-(\w+)"', odd_report.html.read_text(encoding="utf-8"))
    expected = {"main", "averages", "best", "languages_xnli", "significance", "seeds", "published", "phases"}
    assert expected <= set(names)
    assert {path.stem for path in odd_report.tables.glob("*.csv")} == set(names)
    languages = {name for name in names if name.startswith("languages_")}
    assert {path.stem for path in odd_report.tables.glob("*.tex")} == {"main", "averages", *languages}
    heads = {"main.pdf": b"%PDF", "main.png": b"\x89PNG"}
    heads |= dict.fromkeys(map("{}.svg".format, languages), b"<?xml")
    for name, head in heads.items():
        assert (odd_report.figures / name).read_bytes().startswith(head)
    markdown = odd_report.markdown.read_text(encoding="utf-8")
    assert markdown.count("\n## ") == 9
    assert not list(odd_report.html.parent.rglob(".*"))


def test_a_report_is_the_same_each_time(odd_grid, odd_report, tmp_path):
    again = write_report(odd_grid, tmp_path / "two")
    for name in ("html", "markdown", "scores"):
        assert getattr(again, name).read_bytes() == getattr(odd_report, name).read_bytes()


def test_a_single_run_makes_a_page(tmp_path):
    empty = {"curve": [], "throughput": {}, "environment": {}, "config": {}, "selection": {}}
    write(tmp_path, "none", (0, 0), xnli(en=80.0), **empty)
    assert write_report(tmp_path, benchmark="xtreme-r").html.is_file()
    assert "80.0" in summary_text(tmp_path)


@pytest.mark.parametrize("rows", [("mnli", "qqp"), ("none", "mnli", "qqp", "ccg")])
def test_the_page_opens_with_what_holds_and_with_what_one_seed_cannot_show(tmp_path, rows):
    """MNLI is made better by 20 points, the others are not; without a baseline nothing is said to hold."""
    generator = np.random.default_rng(4)
    for name in rows:
        values = [(generator.random(400) < 0.5 + 0.2 * (name == "mnli")).astype(np.uint8) for _ in range(2)]
        scores = xnli(de=100 * float(values[0].mean()), sw=100 * float(values[1].mean()))
        encoded = {code: items(one) for code, one in zip(("de", "sw"), values)}
        write(tmp_path, name, (0, 0), scores, items={"xnli": encoded})
    text = " ".join(write_report(tmp_path).markdown.read_text("utf-8").split("\n## ")[0].split())
    if "none" not in rows:
        assert "no baseline" in text
        return
    said = r"MNLI before XNLI: \+(\d+\.\d) points \(95 % \+(\S+) to \+(\S+)\) over 2 languages"
    found = re.search(said, text)
    assert 12 < float(found[2]) < float(found[1]) < float(found[3]) < 32
    assert "nothing else of 3 differences is beyond noise" in text
    assert "one training run" in text


def test_many_findings_are_counted_by_group(tmp_path):
    rows, options = ["none", "mnli", "qqp", "ccg"], {"seeds": 3, "items": 300, "languages": 4}
    write_grid(tmp_path, intermediates=rows, trainings=["mnli", None], **options)
    text = write_report(tmp_path).markdown.read_text("utf-8").split("\n## ")[0]
    assert re.search(r"Retrieval \+1\d\.\d points on average, 6 of 6 up and 0 down", text)
    assert "Only more seeds" not in text


def test_intermediates_alone_make_a_page_that_says_what_is_missing(tmp_path, capsys):
    record = make_record("mnli", None, {}, stage="intermediate", seeds=(0, None))
    write_made_up(tmp_path, record)
    (tmp_path / "phases" / "mnli.s0+panx.s0-1").mkdir()
    assert main(["report", str(tmp_path)]) == 0
    assert "mnli.s0" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "no scores of target tasks yet" in page
    assert "mnli.s0+panx.s0-1" in page and "not finished" in page


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
    record = make_record("none", None, scores, seeds=(None, None), stage="retrieval")
    write_made_up(tmp_path, record)
    text = write_report(tmp_path, published=asked).html.read_text(encoding="utf-8")
    assert ("Published numbers" in text) == shown
    assert ("encoder: made-up" in text) == shown


def test_the_deviation_of_a_difference_is_that_of_its_seed_pairs(tmp_path):
    """Both vary together over seeds: the differences 8, 9, 7 vary less than either side."""
    base, own, tatoeba = [50.0, 55.0, 60.0], [58.0, 64.0, 67.0], [40.0, 41.0]
    for seed in range(3):
        write(tmp_path, "none", (None, seed), xnli(en=base[seed] + 1, sw=base[seed] - 1))
        for first in range(2):
            write(tmp_path, "mnli", (first, seed), xnli(en=own[seed] + first, sw=own[seed] + first))
    write(tmp_path, "none", (None, None), {"tatoeba": {"accuracy": {"sw": 30.0}}}, None)
    for first in range(2):
        write(tmp_path, "mnli", (first, None), {"tatoeba": {"accuracy": {"sw": tatoeba[first]}}}, None)
    pairs = np.array([[own[seed] + first - base[seed] for seed in range(3)] for first in range(2)])
    ranks = np.array(tatoeba) - 30.0
    expected = {
        "XNLI": (pairs.mean(), pairs.std(ddof=1)),
        "Tatoeba": (ranks.mean(), ranks.std(ddof=1)),
        "All": ((pairs.mean() + ranks.mean()) / 2, ((pairs + ranks[:, None]) / 2).std(ddof=1)),
    }
    paths = write_report(tmp_path)
    found = table(paths, "main") + table(paths, "averages")
    for column, numbers in expected.items():
        (line,) = [one for one in found if (one["intermediate"], one["column"]) == ("MNLI", column)]
        assert (float(line["difference"]), float(line["difference_sd"])) == pytest.approx(numbers)
    (line,) = [one for one in found if (one["intermediate"], one["column"]) == ("none", "XNLI")]
    assert (float(line["percent"]), float(line["percent_sd"])) == pytest.approx((55.0, 5.0))
    assert line["difference"] == line["difference_sd"] == ""
    by_language = table(paths, "languages_xnli")
    (line,) = [one for one in by_language if (one["language"], one["column"]) == ("Swahili sw", "MNLI")]
    assert float(line["difference_sd"]) == pytest.approx((pairs + 1).std(ddof=1))


@pytest.mark.parametrize("seed", range(3))
def test_interval_and_p_agree_with_each_other_and_with_the_paired_t_test(tmp_path, seed):
    generator = np.random.default_rng(seed)
    rows = {name: (generator.random(700) < 0.6).astype(np.uint8) for name in ("none", "mnli", "qqp", "ccg")}
    rows["qqp"] |= (generator.random(700) < 0.1).astype(np.uint8)
    rows["ccg"] |= (generator.random(700) < 0.4).astype(np.uint8)
    for name, values in rows.items():
        scores = xnli(en=100 * float(values.mean()))
        write(tmp_path, name, (0, 0), scores, items={"xnli": {"en": items(values)}})
    found = {line["intermediate"]: line for line in table(tmp_path, "significance")}
    for title, name in (("MNLI", "mnli"), ("QQP", "qqp"), ("CCG", "ccg")):
        expected = stats.ttest_rel(100.0 * rows[name], 100.0 * rows["none"])
        low, high = expected.confidence_interval()
        line = {key: float(value) for key, value in found[title].items() if key in ("low", "high", "p")}
        assert (line["low"], line["high"], line["p"]) == pytest.approx((low, high, expected.pvalue))
        assert (line["p"] < 0.05) == (line["low"] > 0 or line["high"] < 0)


@pytest.mark.parametrize(("ids", "compared"), [(("a", "a"), 1), (("", "a"), 1), (("a", "b"), 0)])
def test_items_of_other_ids_are_not_paired(tmp_path, ids, compared):
    """Equally many items after another skipped row are not the same items."""
    for name, digest in zip(("none", "mnli"), ids):
        values = np.tile([0, 1], 50).astype(np.uint8)
        write(tmp_path, name, (0, 0), xnli(en=50.0), items={"xnli": {"en": items(values, digest)}})
    paths = write_report(tmp_path)
    assert (paths.tables / "significance.csv").exists() == bool(compared)


def test_the_mean_over_tasks_has_the_interval_of_independent_tasks(tmp_path):
    """Its standard error is the root of the sum of squares, over the number of tasks; the headline has it."""
    generator = np.random.default_rng(5)
    errors, differences = [], []
    for task, training in (("xnli", "mnli"), ("pawsx", "pawsx")):
        base, own = ((generator.random((2, 900)) + shift < 0.5).astype(np.uint8) for shift in (0, -0.05))
        for name, values in (("none", base[0]), ("mnli", own[1])):
            scores = {task: {"accuracy": {"de": 100 * float(values.mean())}}}
            write(tmp_path, name, (0, 0), scores, training, items={task: {"de": items(values)}})
        differences.append(100 * (own[1].mean() - base[0].mean()))
        errors.append(100 * stats.sem(own[1].astype(float) - base[0]))
    paths, error = write_report(tmp_path), np.hypot(*errors) / 2
    middle = np.mean(differences)
    (line,) = [one for one in table(paths, "averages") if one["column"] == "All" and one["difference"]]
    expected = [middle, middle - 1.96 * error, middle + 1.96 * error]
    assert [float(line[name]) for name in ("difference", "low", "high")] == pytest.approx(expected, abs=0.02)
    low, high = (f"{expected[place]:+.1f}".replace("-", "−") for place in (1, 2))
    assert f"(95 % {low} to {high})" in paths.html.read_text("utf-8")


def test_one_family_of_correlations_has_scipys_q(tmp_path):
    write_grid(tmp_path, intermediates=["none", "mnli", "qqp"], trainings=["mnli", "panx"], items=40)
    names = [path.stem for path in write_report(tmp_path).tables.glob("typology_*.csv")]
    lines = pd.concat([pd.read_csv(tmp_path / "report" / "tables" / f"{name}.csv") for name in names])
    assert len(names) > 1
    p, q = (lines[list(pair)].to_numpy() for pair in (("p", "partial_p"), ("q", "partial_q")))
    assert q[np.isfinite(p)] == pytest.approx(stats.false_discovery_control(p[np.isfinite(p)]))


def test_seed_components_are_of_the_largest_full_table_and_of_one_design(tmp_path):
    """Seven runs of which one intermediate seed lacks two: 2 x 3 is there. Another row has 3 x 2."""
    scores = {(0, 0): 60.0, (0, 1): 62.0, (0, 2): 61.0, (1, 0): 66.0, (1, 1): 67.0, (1, 2): 69.0}
    scores[2, 0] = 70.0
    for seeds, value in scores.items():
        write(tmp_path, "mnli", seeds, xnli(en=value))
    for first in range(3):
        for second in range(2):
            write(tmp_path, "qqp", (first, second), xnli(en=50.0 + 3 * first + second * second * first))
    full = np.array([[scores[first, second] for second in range(3)] for first in range(2)])
    residual = full - full.mean(1, keepdims=True) - full.mean(0) + full.mean()
    rest = (residual**2).sum() / 2
    by_hand = [3 * full.mean(1).var(ddof=1), 2 * full.mean(0).var(ddof=1)]
    expected = [max((by_hand[0] - rest) / 3, 0) ** 0.5, max((by_hand[1] - rest) / 2, 0) ** 0.5, rest**0.5]
    lines = {next(v for k, v in one.items() if "seeds" in k): one for one in table(tmp_path, "seeds")}
    assert set(lines) == {"2 x 3", "3 x 2"}
    names = ("intermediate seed", "target seed", "rest")
    assert [float(lines["2 x 3"][name]) for name in names] == pytest.approx(expected)


DISTANCES = "code,name,far,script\n" + "".join(
    f"{code},toy {code},0.{far},Latn\n" for far, code in enumerate(("de", "en", "es", "fr", "ja", "ko", "zh"))
)


@pytest.fixture
def small(tmp_path) -> Path:
    write_grid(tmp_path / "W", intermediates=["none", "mnli"], trainings=["pawsx", None], items=40)
    return tmp_path / "W"


def test_the_work_directory_remembers_distances_and_drops_old_tables(small, tmp_path):
    write_report(small)
    old = small / "report" / "tables" / "typology_geographic_distance.csv"
    assert old.is_file()
    (tmp_path / "own.csv").write_text(DISTANCES)
    assert main(["report", str(small), f"--distances={tmp_path / 'own.csv'}"]) == 0
    (tmp_path / "own.csv").unlink()
    assert main(["report", str(small)]) == 0
    page = (small / "report" / "report.html").read_text("utf-8")
    assert "toy ja" in page
    assert "Japanese" not in page
    assert not old.exists()


def test_files_keep_to_their_folder_and_their_mode_and_leave_no_temporaries(small):
    scores = {"../../x": {"accuracy": {"en": 50.0}}, "<b>|x": {"accuracy": {"en": 50.0}}}
    write(small, "none", (0, 0), scores, "../../x")
    (small / "report" / "tables").mkdir(parents=True)
    for name in (".report.html", "tables/.main.csv"):
        left = small / "report" / f"{name}.{socket.gethostname()}.999999999-0.tmp"
        left.write_text("half")
    before = os.umask(0o077)
    try:
        paths = write_report(small)
    finally:
        os.umask(before)
    files = [path for path in small.rglob("*") if path.is_file() and "phases" not in path.parts]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert not any(path.name.startswith(".") for path in files)
    assert {path.parent for path in files} <= {small / "report", paths.tables, small / "report" / "figures"}
    assert not list(small.parent.glob("*.csv"))
    assert r"\<b\>\|x" in paths.markdown.read_text("utf-8")


def test_the_page_has_the_command_without_what_is_secret(small):
    path = next(small.glob("phases/*/result.json"))
    record = json.loads(path.read_text())
    command = "stilts grid --config.encoder=https://me:pw1@host/x --hub_token=pw2 --workdir=W"
    record["environment"]["command"] = command
    write_record(path, record)
    paths = write_report(small)
    for text in (paths.html.read_text("utf-8"), paths.markdown.read_text("utf-8")):
        assert "host/x" in text
        assert "--workdir=W" in text
        assert "pw1" not in text
        assert "pw2" not in text
        assert str(small) not in text


def test_a_folder_has_a_short_name(small):
    write(small, "hub:/data/models/mine", (0, 0), {"pawsx": {"accuracy": {"en": 50.0}}}, "pawsx")
    text = (write_report(small).tables / "main.csv").read_text("utf-8")
    assert "mine" in text
    assert "/data/models" not in text


def test_question_answering_is_named_for_what_is_shown(tmp_path):
    for row, f1 in (("none", 70.0), ("mnli", 74.0)):
        write(tmp_path, row, (0, 0), {"xquad": {"f1": {"en": f1}, "em": {"en": f1 - 20}}}, "squad_v1")
    line = table(tmp_path, "main")[1]
    assert "mean of F1 and EM" in line["detail"]
    assert (float(line["percent"]), float(line["difference"])) == (64.0, 4.0)


@pytest.mark.parametrize("thresholds", [{}, {"bucc": {"de": 0.5}}])
def test_tuned_thresholds_are_no_zero_shot(tmp_path, thresholds):
    write(tmp_path, "none", (0, 0), {"bucc": {"f1": {"de": 50.0}}}, None, thresholds=thresholds)
    page = write_report(tmp_path).html.read_text("utf-8")
    assert ("Zero-shot:" in page) == (not thresholds)
    assert ("thresholds of BUCC were tuned" in page) == bool(thresholds)


def test_a_language_of_intermediate_training_is_no_transfer(tmp_path):
    """Of `mnli@de` neither English nor German is transfer, in any row."""
    write(tmp_path, "none", (None, 0), xnli(en=90.0, de=80.0, sw=60.0))
    write(tmp_path, "mnli@de", (0, 0), xnli(en=91.0, de=86.0, sw=61.0))
    record = make_record("mnli@de", None, {}, seeds=(0, None), stage="intermediate")
    record["phase"]["source_language"] = "de"
    write_made_up(tmp_path, record)
    for row, seed in (("none", None), ("mnli@de", 0)):
        write(tmp_path, row, (seed, 0), {"pawsx": {"accuracy": {"fr": 70.0, "de": 71.0 + len(row)}}}, "pawsx")
    (head, line) = [one for one in table(tmp_path, "averages") if one["column"].startswith("Without English")]
    assert head["column"] == "Without English and German"
    assert float(line["difference"]) == 0.5  # Swahili gains 1, French nothing


def test_an_own_task_has_the_title_and_group_of_its_declaration(tmp_path):
    for name, group in (("reviews", "classification"), ("finds", "retrieval")):
        record = make_record("none", name, {name: {"accuracy": {"en": 60.0}}}, seeds=(None, 0))
        write_made_up(tmp_path, record | {"tasks": {name: {"title": f"My {name}", "group": group}}})
    page = write_report(tmp_path).html.read_text("utf-8")
    for text in ("My reviews", "Sentence pairs", "My finds", "Retrieval", "Without retrieval"):
        assert text in page
    assert "Other" not in page


def test_translations_vary_together(tmp_path):
    """Four languages with the very same outcomes tell no more than one: the interval must not shrink."""
    first, second = (np.random.default_rng(0).random((2, 1500)) < 0.7).astype(np.uint8)
    lines = {}
    for aligned in (True, False):
        for name, values in (("none", first), ("mnli", second)):
            codes = ("de", "fr", "ru", "zh")
            encoded = {code: items(values, aligned=aligned) for code in codes}
            scores = xnli(**dict.fromkeys(codes, 100 * float(values.mean())))
            write(tmp_path / str(aligned), name, (0, 0), scores, items={"xnli": encoded})
        (lines[aligned],) = table(tmp_path / str(aligned), "significance")
    error = 100 * stats.sem(second.astype(float) - first)
    assert float(lines[True]["error_items"]) == pytest.approx(error)
    assert float(lines[False]["error_items"]) == pytest.approx(error / 2)
    assert (lines[True]["items"], lines[False]["items"]) == ("1500.0", "6000.0")


def test_another_number_of_items_is_not_paired(tmp_path):
    for name, count in (("none", 10), ("mnli", 11)):
        write(tmp_path, name, (0, 0), xnli(en=100.0), items={"xnli": {"en": items(np.ones(count, np.uint8))}})
    assert "nothing can be tested" in write_report(tmp_path).html.read_text("utf-8")


def write_pictures(workdir: Path, rows: tuple, seeds: int = 1) -> dict:
    draw, right = np.random.default_rng(0), {}
    for row in rows:
        for seed in range(seeds):
            right[row, seed] = {code: (draw.random(400) < 0.6).astype(np.uint8) for code in ("en", "de")}
            scores = {code: 100 * values.mean() for code, values in right[row, seed].items()}
            encoded = {code: items(values, aligned=False) for code, values in right[row, seed].items()}
            write(workdir, row, (None if row == "none" else 0, seed), xnli(**scores), items={"xnli": encoded})
    return right


@pytest.mark.parametrize("seeds", [1, 3])
def test_pictures_are_compared_with_their_control_by_paired_items_and_seeds(tmp_path, seeds):
    right = write_pictures(tmp_path, ("none", "easy_vqa", "easy_vqa.blind", "coco_captions.text+mlm"), seeds)
    (line,) = table(tmp_path, "pictures")
    assert line["intermediate"] == "easy-VQA − easy-VQA, blind" and line["column"] == "XNLI"
    gaps = [
        {
            code: 100 * (right["easy_vqa", seed][code].astype(float) - right["easy_vqa.blind", seed][code])
            for code in right[row, seed]
        }
        for row, seed in right
        if row == "easy_vqa"
    ]
    expected = np.mean([one.mean() for gap in gaps for one in gap.values()])
    assert float(line["difference"]) == pytest.approx(expected)
    if seeds == 1:
        error = np.sqrt(sum(one.var(ddof=1) / len(one) for one in gaps[0].values())) / 2
        assert (float(line["high"]) - float(line["low"])) / 2 == pytest.approx(1.96 * error, rel=0.01)
        assert line["items"] == "800.0"
        page = (tmp_path / "report" / "report.html").read_text()
        assert 'id="pictures"' in page and "COCO captions, text + MLM" in page
    else:
        assert float(line["error_seeds"]) > 0


def test_no_pictures_without_a_control(tmp_path):
    write_pictures(tmp_path, ("none", "easy_vqa", "mnli"))
    assert not (write_report(tmp_path).tables / "pictures.csv").exists()


COLUMNS = [Column("Row", numeric=False), Column("a|b", "50 %", "Group_1"), Column("c", "", "Group_1")]
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


def test_numbers_as_text_and_as_colours():
    values = {1.25: "+1.2", -0.36: "−0.4", 0.04: "0.0", -0.04: "0.0", np.nan: "–"}
    assert [signed(value) for value in values] == list(values.values()) and fixed(-1.0) == "−1.0"
    tones = [gain_tone(gain) for gain in (20.0, -5.0, 80.0, 0.01, np.nan)]
    assert tones == [1.0, pytest.approx(-0.5), 1.0, None, None]
