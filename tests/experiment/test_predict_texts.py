"""`predict_texts` and `stilts predict`: a user's own texts, through each kind of head."""

import re
import shutil
from dataclasses import asdict

import jax
import numpy as np
import pytest

import stilts_jax
from stilts_jax.errors import CheckpointError, ConfigError, EncoderError
from stilts_jax.experiment.models import save_final, write_trained
from stilts_jax.experiment.predict import _text_of
from stilts_jax.experiment.results import FORMAT, RESULT
from stilts_jax.files import write_record
from stilts_jax.main import main
from stilts_jax.model import SHAPES, HeadConfig, Model, TaskHead, export_encoder, init_params
from stilts_jax.progress import SILENT
from stilts_jax.tasks.sources.rows import Row

LABELS = ("no", "maybe", "yes")
ASKED = [("teacher", "the house river teacher walked"), ("birds", "seventeen birds, end.")]
COLUMNS = {
    "classify": (("text", "pair"), [("the house", "river"), ("birds", "paper, end.")]),
    "tag": (("words",), [("the house",), ("seventeen birds walked",)]),
    "span": (("question", "context"), ASKED),
    "choice": (("prompt", "choice1", "choice2"), [("the", "river", "birds"), ("paper", "end", "teacher")]),
    "embed": (("text",), [("the house",), ("seventeen birds walked",)]),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer, tokenizer_folder):
    found, shape = {}, SHAPES["tiny"]
    for kind in COLUMNS:
        head = HeadConfig(kind=kind, num_labels=3) if kind != "embed" else None
        model = Model(shape, (("task", head),) if head else ())
        params = jax.tree.map(lambda leaf: 15 * leaf, init_params(model, jax.random.key(0)))
        labels = LABELS if kind in ("classify", "tag") else ()
        folder = tmp_path_factory.mktemp(kind) / "model"
        made = TaskHead(head, params["heads"]["task"], labels) if head else None
        export_encoder(folder, shape, params["encoder"], tokenizer_folder=tokenizer_folder, head=made)
        found[kind] = (folder, model, params)
    return found


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("choice", "classify", "embed")]


@pytest.mark.parametrize("kind", ["span", "tag", *SLOW])
def test_the_command_says_what_python_says(models, tmp_path, capsys, kind):
    names, rows = COLUMNS[kind]
    table, out = tmp_path / "x.tsv", tmp_path / ("y.npy" if kind == "embed" else "y.tsv")
    table.write_text("".join("\t".join(line) + "\n" for line in (names, *rows)))
    assert main(["predict", str(models[kind][0]), f"--input={table}", f"--out={out}"]) == 0
    assert "2 predictions" in capsys.readouterr().out
    texts = [row if len(row) > 1 else iter(row[0].split()) if kind == "tag" else row[0] for row in rows]
    texts = [(first, rest) for first, *rest in rows] if kind == "choice" else texts
    expected = stilts_jax.predict_texts(models[kind][0], texts)
    if kind == "embed":
        np.testing.assert_array_equal(np.load(out), expected)
        return
    header, *lines = out.read_text().splitlines()
    assert header.split("\t") == [*names, "prediction"]
    shown = [" ".join(value) if kind == "tag" else str(value) for value in expected]
    assert [line.split("\t") for line in lines] == [[*row, value] for row, value in zip(rows, shown)]


def test_a_phase_of_questions_without_an_answer_answers_nothing_at_its_threshold(models, tmp_path, tokenizer):
    folder, model, params = models["span"]
    head = {"task": params["heads"]["task"]}
    save_final(tmp_path, {"encoder": params["encoder"], "heads": head}, 1, SILENT)
    known = {"encoder": asdict(model.encoder), "heads": {name: asdict(head) for name, head in model.heads}}
    known |= {"settings": {"compute.dtype": "float32"}, "tokenizer": tokenizer.fingerprint, "labels": {}}
    write_trained(tmp_path, known, tokenizer)
    answers = stilts_jax.predict_texts(folder, ASKED)
    for threshold, expected in ((1e9, answers), (-1e9, ["", ""])):
        write_record(tmp_path / RESULT, {"format": FORMAT, "thresholds": {"task": {"en": threshold}}})
        assert stilts_jax.predict_texts(tmp_path, ASKED) == expected
    shutil.rmtree(tmp_path / "final")  # as experiment.keep=none does
    with pytest.raises(CheckpointError, match="was removed"):
        stilts_jax.predict_texts(tmp_path, ASKED)


def test_what_an_earlier_run_scored_does_not_stay_beside_a_submission(models, world, tmp_path, capsys):
    only_test, out = shutil.ignore_patterns("*.dev.*"), tmp_path / "o"  # a threshold would come from dev
    shutil.copytree(world / "data" / "bucc2018", tmp_path / "bucc2018", ignore=only_test)
    (out / "predictions" / "bucc2018").mkdir(parents=True)
    for name in ("predictions/bucc2018/test-de.tsv", "scores.json"):
        (out / name).touch()
    options = ("--task=bucc", f"--data_root={tmp_path}", f"--out={out}", "--submission")
    assert main(["eval", str(models["embed"][0]), *options]) == 0
    assert "not scored in de" in capsys.readouterr().err and not list(out.rglob("*.*"))


BAD = {
    "a row too wide": ("tag", "words\tid\na b\t1\nc\t2\t3\n", "x.tsv", "y.tsv", ("2 columns", "x.tsv:3")),
    "no text in UTF-8": ("tag", "words\na \udce9\n", "x.tsv", "y.tsv", ("UTF-8", "x.tsv:2")),
    "no object": ("tag", '{"words": "a"}\n[1]\n', "x.jsonl", "y.tsv", ("x.jsonl:2",)),
    "an open quote": ("tag", 'words\n"a\n', "x.csv", "y.tsv", ("x.csv:",)),
    "a list for a text": ("tag", '{"words": [7]}\n', "x.jsonl", "y.tsv", ("a text with blanks between",)),
    "one name twice": ("tag", "words\tid\tid\n", "x.tsv", "y.tsv", ("two columns", "x.tsv:1")),
    "a choice left out": ("choice", "prompt\tchoice2\na\tb\n", "x.TSV", "y.tsv", ("'choice1'", "x.TSV:2")),
    "an empty cell": ("tag", "words\tid\na b\t1\n\t2\n", "x.tsv", "y.tsv", ("words is empty", "x.tsv:3")),
    "vectors into a table": ("embed", "text\na\n", "x.tsv", "y.tsv", ("has no head", ".npy")),
    "a table that is none": ("tag", "words\na\n", "x.tsv", "y.CSV", ("all else to .tsv",)),
    "a file of another kind": ("tag", "words\na\n", "x.txt", "y.tsv", (".tsv, .csv, .jsonl",)),
    "a column too many": ("tag", "words\tprediction\na\tO\n", "x.tsv", "y.tsv", ("column prediction",)),
    "one pair": ("classify", '{"text":"a","pair":"b"}\n{"text":"c"}', "x.jsonl", "y.tsv", ("x.jsonl:2",)),
    "an empty table": ("tag", "", "x.tsv", "y.tsv", ("is empty", "x.tsv", "column words")),
    "no file": ("tag", None, "x.tsv", "y.tsv", ("x.tsv",)),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_table_that_cannot_be_used_is_named(models, tmp_path, capsys, case):
    kind, content, name, out, words = BAD[case]
    if content is not None:
        (tmp_path / name).write_text(content, errors="surrogateescape")
    command = ["predict", str(models[kind][0]), f"--input={tmp_path / name}", f"--out={tmp_path / out}"]
    assert main(command) in (1, 2) and (said := capsys.readouterr().err)
    assert "Traceback" not in said and all(word in said for word in words) and not (tmp_path / out).exists()


def test_rows_of_json_may_have_columns_of_their_own(models, tmp_path):
    table, out = tmp_path / "x.jsonl", tmp_path / "y.tsv"
    # Nothing, and half a character.
    table.write_text('{"words": "the", "from": null}\n{"words": "birds", "from": "\\ud83d"}\n')
    assert main(["predict", str(models["tag"][0]), f"--input={table}", f"--out={out}"]) == 0
    assert re.findall("(.*)\t(.*)\t.*", out.read_text()) == [("words", "from"), ("the", ""), ("birds", "?")]
    (table := tmp_path / "x.tsv").write_text("words\tid\n")
    assert main(["predict", str(models["tag"][0]), f"--input={table}", f"--out={out}"]) == 0
    assert out.read_text() == "words\tid\tprediction\n"
    assert main(["predict", str(models["tag"][0]), f"--input={table}", f"--out={table}"]) == 2
    cells = {"choice2": "b", "prompt": "p", "choice1": "a", "choice_by": "c"}
    assert _text_of("choice", Row(1, 0, cells)) == ("p", ["a", "b"])


def test_unknown_heads_and_unnamed_labels(models, tmp_path):
    cases = [([["a"]], {"head": "mnli"}, "'mnli'"), ([{"a": 0}], {}, "of words"), ({"a": 0}, {}, "A table")]
    given = {"max_length": 0, "tokens_per_batch": -1}
    cases += [([["a"]], {name: n}, f"{name}={n} is out of range") for name, n in given.items()]
    for bad, options, said in cases:
        with pytest.raises(ConfigError, match=said):
            stilts_jax.predict_texts(models["tag"][0], bad, **options)
    shutil.copytree(models["classify"][0], tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    whole = config.read_text()
    config.write_text(whole.replace('"0": "no"', '"3": "no"'))  # counted from 1
    with pytest.raises(EncoderError, match="outputs 0 to 2"):
        stilts_jax.predict_texts(tmp_path / "model", ["the house"])
    config.write_text(whole.replace("id2label", "other"))
    named = stilts_jax.predict_texts(models["classify"][0], ["the house", ("river paper", "teacher")])
    unnamed = stilts_jax.predict_texts(tmp_path / "model", ["the house", ("river paper", "teacher")])
    assert unnamed == [f"LABEL_{LABELS.index(label)}" for label in named]
