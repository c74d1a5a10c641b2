"""`predict_texts` and `stilts predict`: a user's own texts, through each kind of head."""

import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest

import stilts_jax
from stilts_jax.errors import ConfigError
from stilts_jax.experiment.models import Trained, save_final
from stilts_jax.experiment.results import FORMAT, write_result
from stilts_jax.main import main
from stilts_jax.model import SHAPES, HeadConfig, Model, TaskHead, apply_model, export_encoder, init_params
from stilts_jax.progress import SILENT

LABELS = ("no", "maybe", "yes")
TEXTS = {
    "classify": ["the house", "seventeen birds walked", ("river paper", "unbelievable teacher")],
    "tag": [["the", "house"], ["seventeen", "birds", "walked"]],
    "span": [("teacher", "the house river teacher walked"), ("birds", "seventeen birds, end.")],
    "choice": [("the house", ["river", "birds walked"]), ("paper", ["end", "teacher", "1995"])],
    "embed": ["the house", "seventeen birds walked"],
}
COLUMNS = {
    "classify": (("text", "pair"), [("the house", "river"), ("birds", "paper, end.")]),
    "tag": (("words",), [("the house",), ("seventeen birds walked",)]),
    "span": (("question", "context"), TEXTS["span"]),
    "choice": (
        ("prompt", "choice1", "choice2"),
        [("the house", "river", "birds"), ("paper", "end", "teacher")],
    ),
    "embed": (("text",), [("the house",), ("seventeen birds walked",)]),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer, tokenizer_folder):
    """A folder for each kind, with its configuration and parameters."""
    found = {}
    shape = SHAPES["tiny"]
    for kind in TEXTS:
        head = HeadConfig(kind=kind, num_labels=3) if kind != "embed" else None
        model = Model(shape, (("task", head),) if head else ())
        params = jax.tree.map(lambda leaf: 15 * leaf, init_params(model, jax.random.key(0)))
        labels = LABELS if kind in ("classify", "tag") else ()
        folder = tmp_path_factory.mktemp(kind) / "model"
        export_encoder(
            *(folder, shape, params["encoder"]),
            tokenizer_folder=tokenizer_folder,
            head=TaskHead(head, params["heads"]["task"], labels) if head else None,
        )
        found[kind] = (folder, model, params)
    return found


def logits(models, kind, rows):
    """Logits of the plain model on rows of tokens."""
    _, model, params = models[kind]
    tokens = np.full((len(rows), 24), 1, np.int32)
    for target, row in zip(tokens, rows):
        target[: len(row)] = row
    batch = {"tokens": tokens}
    if kind == "choice":
        batch = {"tokens": tokens[:, None], "choice_mask": np.ones((len(rows), 1))}
    parts = {"encoder": params["encoder"], "head": params["heads"]["task"]}
    return np.asarray(jax.jit(partial(apply_model, model, head="task"))(parts, batch)["logits"])


def row_of(tokenizer, first, second=None):
    ids = [tokenizer.encode([text]).ids.tolist() for text in (first, second) if text is not None]
    return [0, *ids[0], 2, *([2, *ids[1], 2] if second is not None else [])]


@pytest.mark.slow
def test_labels_and_choices_are_those_of_the_plain_model(models, tokenizer):
    found = stilts_jax.predict_texts(models["classify"][0], TEXTS["classify"])
    rows = [row_of(tokenizer, *([text] if isinstance(text, str) else text)) for text in TEXTS["classify"]]
    assert found == [LABELS[index] for index in logits(models, "classify", rows).argmax(-1)]
    found = stilts_jax.predict_texts(models["choice"][0], TEXTS["choice"])
    scores = [
        logits(models, "choice", [row_of(tokenizer, prompt, choice) for choice in choices])
        for prompt, choices in TEXTS["choice"]
    ]
    assert found == [int(one.argmax()) for one in scores]


@pytest.mark.parametrize("kind", sorted(COLUMNS))
def test_the_command_says_what_python_says(models, tmp_path, capsys, kind):
    names, rows = COLUMNS[kind]
    table, out = tmp_path / "x.tsv", tmp_path / ("y.npy" if kind == "embed" else "y.tsv")
    table.write_text("".join("\t".join(line) + "\n" for line in (names, *rows)))
    assert main(["predict", str(models[kind][0]), f"--input={table}", f"--out={out}"]) == 0
    assert "2 predictions" in capsys.readouterr().out
    texts = [row if len(row) > 1 else row[0] for row in rows]
    texts = {
        "tag": [text.split() for text in texts if kind == "tag"],
        "choice": [(r[0], r[1:]) for r in rows],
    }.get(kind, texts)
    expected = stilts_jax.predict_texts(models[kind][0], texts)
    if kind == "embed":
        np.testing.assert_array_equal(np.load(out), expected)
        return
    header, *lines = out.read_text().splitlines()
    assert header.split("\t") == [*names, "prediction"]
    shown = [" ".join(value) if kind == "tag" else str(value) for value in expected]
    assert [line.split("\t") for line in lines] == [[*row, value] for row, value in zip(rows, shown)]


@pytest.mark.parametrize("kind", ["classify", "embed"])
def test_a_file_of_several_chunks_is_predicted_as_one(models, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("stilts_jax.experiment.predict._CHUNK", 3)
    texts = [f"{'the house ' * (number % 4)}{'birds river'[number % 3 :]}" for number in range(8)]
    table, out = tmp_path / "x.csv", tmp_path / ("y.npy" if kind == "embed" else "y.tsv")
    table.write_text("id,text\n" + "".join(f'{number},"{text}"\n' for number, text in enumerate(texts)))
    assert main(["predict", str(models[kind][0]), f"--input={table}", f"--out={out}"]) == 0
    expected = stilts_jax.predict_texts(models[kind][0], texts)
    if kind == "embed":
        np.testing.assert_allclose(np.load(out), expected, rtol=1e-3, atol=1e-3)
    else:
        rows = [line.split("\t") for line in out.read_text().splitlines()]
        assert rows[0] == ["id", "text", "prediction"] and [row[0] for row in rows[1:]] == list("01234567")
        assert [row[2] for row in rows[1:]] == expected


def test_a_phase_of_questions_without_an_answer_answers_nothing_at_its_threshold(models, tmp_path, tokenizer):
    folder, model, params = models["span"]
    head = {"task": params["heads"]["task"]}
    save_final(tmp_path, {"encoder": params["encoder"], "heads": head}, 1, SILENT)
    nothing = {
        **{name: [] for name in ("history", "curve", "skipped")},
        **{name: {} for name in ("work", "labels", "data", "attention")},
        **{"vocabulary": None, "chance": None, "collapsed": False},
    }
    settings = {"compute.dtype": "float32"}
    known = {"encoder": model.encoder, "heads": dict(model.heads), "settings": settings}
    Trained(key="", step=1, total_steps=1, tokenizer=tokenizer.fingerprint, **known, **nothing).write(
        tmp_path, tokenizer
    )
    answers = stilts_jax.predict_texts(folder, TEXTS["span"])
    for threshold, expected in ((1e9, answers), (-1e9, ["", ""])):
        write_result(tmp_path, {"format": FORMAT, "thresholds": {"task": {"en": threshold}}})
        assert stilts_jax.predict_texts(tmp_path, TEXTS["span"]) == expected


BAD = {
    "a row too wide": ("tag", "words\tid\na b\t1\nc\t2\t3\n", "x.tsv", "y.tsv", ("2 columns", "x.tsv:3")),
    "no text in UTF-8": ("tag", "words\na \udce9\n", "x.tsv", "y.tsv", ("UTF-8", "x.tsv:2")),
    "no object": ("tag", '{"words": "a"}\n[1]\n', "x.jsonl", "y.tsv", ("x.jsonl:2",)),
    "an open quote": ("tag", 'words\n"a\n', "x.csv", "y.tsv", ("x.csv:",)),
    "a column missing": ("span", "question\nwhy\n", "x.tsv", "y.tsv", ("'context'", "x.tsv:2")),
    "an empty cell": ("tag", "words\tid\na b\t1\n\t2\n", "x.tsv", "y.tsv", ("words is empty", "x.tsv:3")),
    "vectors into a table": ("embed", "text\na\n", "x.tsv", "y.tsv", ("embed", ".npy")),
    "a file of another kind": ("tag", "words\na\n", "x.txt", "y.tsv", (".tsv, .csv, .jsonl",)),
    "no file": ("tag", None, "x.tsv", "y.tsv", ("x.tsv",)),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_table_that_cannot_be_used_is_named(models, tmp_path, capsys, case):
    kind, content, name, out, words = BAD[case]
    if content is not None:
        (tmp_path / name).write_text(content, errors="surrogateescape")
    command = ["predict", str(models[kind][0]), f"--input={tmp_path / name}", f"--out={tmp_path / out}"]
    assert main(command) in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("classify", [("a", "b"), 3]),
        ("tag", [["a"], "a b"]),
        ("span", [("a", "b"), "a"]),
        ("choice", [("a", ["b"]), "ab"]),
    ],
)
def test_texts_of_another_form_are_named(models, kind, texts):
    with pytest.raises(ConfigError) as caught:
        stilts_jax.predict_texts(models[kind][0], texts)
    assert caught.value.where == "texts[1]"


def test_unknown_heads_and_unnamed_labels(models, tmp_path):
    with pytest.raises(ConfigError, match="'mnli'"):
        stilts_jax.predict_texts(models["tag"][0], TEXTS["tag"], head="mnli")
    shutil.copytree(models["classify"][0], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["id2label"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    named = stilts_jax.predict_texts(models["classify"][0], TEXTS["classify"])
    unnamed = stilts_jax.predict_texts(tmp_path / "model", TEXTS["classify"])
    assert unnamed == [f"LABEL_{LABELS.index(label)}" for label in named]
