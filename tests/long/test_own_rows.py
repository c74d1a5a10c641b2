"""A user's own tasks, files and numbers, where one part of the package hands them to another."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from stilts_jax import load_results
from stilts_jax.config import load_config
from stilts_jax.errors import ConfigError
from stilts_jax.evaluation.submission import score_tasks
from stilts_jax.experiment import models
from stilts_jax.files import write_whole
from stilts_jax.model import SHAPES, HeadConfig
from stilts_jax.model.loading import TaskHead
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import classify_task, pair_task, span_task
from stilts_jax.tasks.sources import read
from stilts_jax.tasks.sources.read import DataSource, available_languages, read_examples
from tests.report.made_up_grid import make_record, write, write_record, xnli

pytestmark = pytest.mark.slow


def short(example, split):
    return (len(example.text) < 3) == (split == "dev")


def test_pairs_are_kept_alike_in_training_and_in_pools(tmp_path):
    write_whole(tmp_path / "p.tsv", "text\tpositive\n" + "".join(f"{'x' * n}\ty{n}\n" for n in range(1, 7)))
    task = pair_task("faq", files={"train": "p.tsv", "dev": "p.tsv"}, keep=short)
    source = DataSource(tmp_path)
    pools = read.read_retrieval(task, "dev", "en", source)
    assert (
        len(read_examples(task, "train", "en", source)) == 4
        and len(pools.queries) == len(pools.candidates) == 2
    )


def test_another_language_of_ones_own_task_trains_nothing_anew(tmp_path):
    declared = {
        "files": {"train": "t.csv", "test": "t-{language}.csv"},
        "labels": ("a",),
        "languages": ("en", "de"),
    }
    for name in ("t", "t-deu"):
        write_whole(tmp_path / f"{name}.csv", "text,label\nx,a\n")
    found = []
    for codes in ({"de": "deu"}, {"de": "deu", "fr": "fra"}):
        task = replace(classify_task("own", **declared, codes=codes), reference="my:TASK")
        parts = (("train", "en"), ("test", "de"))
        found.append([read.fingerprint(task, *part, DataSource(tmp_path)) for part in parts])
    assert found[0] == found[1]


def test_a_file_of_one_language_needs_no_column_that_says_it(tmp_path):
    files = {"train": "all.csv", "test": "t-{language}.csv"}
    task = classify_task("own", files=files, labels=("a",), languages=("en", "de"), language_column="lang")
    write_whole(tmp_path / "all.csv", "text,label,lang\nx,a,en\n")
    write_whole(tmp_path / "t-de.csv", "text,label\nx,a\n")
    source = DataSource(tmp_path)
    assert (
        available_languages(task, "test", source) == ("de",)
        and len(read_examples(task, "test", "de", source)) == 1
    )
    assert len(read_examples(task, "train", "en", source)) == 1


def test_the_language_of_any_part_of_a_mixture_is_no_transfer(tmp_path):
    record = make_record("mnli+german", None, {}, seeds=(0, None), stage="intermediate")
    record["config"]["tasks"] = {"mnli": {"data": {"train/en": ""}}, "german": {"data": {"train/de": ""}}}
    write_record(tmp_path, record)
    write(tmp_path, "mnli+german", (0, 0), xnli(de=50.0, fr=60.0))
    scores = load_results(tmp_path).set_index("language")
    assert scores.zero_shot.to_dict() == {"de": False, "fr": True}


def test_line_ends_within_a_cell_are_characters_of_it(tmp_path):
    """Whoever wrote the file counted them where an answer begins."""
    text = 'question,context,answer,answer_start\r\nWho?,"One.\r\nHere is Ann.",Ann,14\r\n'
    (tmp_path / "s.csv").write_bytes(text.encode())
    task = span_task("own", files={"train": "s.csv"})
    (example,) = read_examples(task, "train", "en", DataSource(tmp_path))
    assert example.answers == (("Ann", 14),)


def test_two_tasks_of_one_name_are_not_one(tmp_path):
    for folder in ("own", "gold"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ConfigError, match="Two tasks are called 'xnli'"):
        score_tasks(["xnli", "xnli"], tmp_path / "own", tmp_path / "gold")


def test_gold_may_number_its_questions(tmp_path):
    answers = [{"text": "Ann", "answer_start": 0}]
    squad = {
        "data": [
            {"paragraphs": [{"context": "Ann", "qas": [{"id": 7, "question": "?", "answers": answers}]}]}
        ]
    }
    write_whole(tmp_path / "gold/xquad/test-en.json", json.dumps(squad))
    write_whole(tmp_path / "own/xquad/test-en.json", '{"7": "Ann"}')
    assert score_tasks(["xquad"], tmp_path / "own", tmp_path / "gold")["mean"] == 100.0


def test_truth_is_said_by_true_as_well():
    assert load_config("toy", {"model.sweep_layers": True}).model.sweep_layers is True
    with pytest.raises(ConfigError, match="'None' is not"):
        load_config("toy", {"model.sweep_layers": None})


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        # Of two heads of a mixture each has its own, and SQuAD 1.1 always an answer.
        (("v1", "v2"), {"v2": -0.5}),
        # The head of what was trained serves another task, under whose name the threshold was tuned.
        (("mine",), {"v1": -0.5, "v2": -0.5}),
    ],
)
def test_a_threshold_is_that_of_what_was_scored(scored, expected, monkeypatch):
    name = "v2" if "v2" in scored else "mine"
    result = {"thresholds": {name: {"en": -0.5}}, "main_metric": {one: ["f1"] for one in scored}}
    heads = dict.fromkeys(("v1", "v2"), TaskHead(HeadConfig(kind="span", num_labels=2), {}))
    tokenizer = SimpleNamespace(check_fits=lambda size: None)
    opened = models.OpenModel(SHAPES["tiny"], {}, heads, tokenizer, None)
    monkeypatch.setattr(models, "_read_phase", lambda name: {"rows": {}})
    monkeypatch.setattr(models, "load_final", lambda *given: opened)
    monkeypatch.setattr(models, "read_result", lambda *given: result)
    assert models.open_model("phase").thresholds == expected


@pytest.mark.parametrize(
    ("path", "name"), [("mine.py:TASK", "mine:TASK"), ("./sub/mine.py:TASK", "sub.mine:TASK")]
)
def test_a_path_is_told_from_a_module(path, name, tmp_path, monkeypatch):
    write_whole(tmp_path / path.partition(":")[0], "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        get_task(path)
    assert caught.value.fix == f"name it as Python does: {name}"
