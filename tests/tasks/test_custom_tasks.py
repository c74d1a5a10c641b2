"""A user's own data in a few lines: each kind from each format, read back value by value."""

import gzip
import json
import logging
import re
import sys
from dataclasses import astuple

import pytest

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import choice_task, classify_task, pair_task, span_task, tag_task
from stilts_jax.tasks.sources.read import DataSource, available_languages, read_examples, read_retrieval
from stilts_jax.tasks.spec import Hyperparameters, describe
from tests.tasks.hub_server import make_parquet

DECLARATION = """
from stilts_jax.tasks.custom import classify_task

REVIEWS = classify_task(
    "reviews",
    files={"train": "train.jsonl", "test": "test-{language}.csv"},
    labels=("bad", "good"),
    text="review",
    label="verdict",
    languages=("en", "de"), hub="me/reviews",
)
"""


def test_a_declaration_in_one_file(tmp_path, write, monkeypatch):
    write("my_reviews.py", DECLARATION)
    write("train.jsonl", [{"review": "Fine.", "verdict": "good"}])
    write("test-de.csv", 'review,verdict\n"Na, ""gut"".",bad\n')
    monkeypatch.chdir(tmp_path)
    task, source = get_task("my_reviews:REVIEWS"), DataSource(tmp_path)
    assert read_examples(task, "train", "en", source)[0].label == 1
    (german,) = read_examples(task, "test", "de", source)
    assert (german.text, german.label) == ('Na, "gut".', 0)
    assert available_languages(task, "test", source) == ("de",)
    with pytest.raises(DataError, match="stilts prepare my_reviews:REVIEWS --source=hub"):
        read_examples(task, "dev", "en", source)


WEATHER = "prompt,choice1,choice2,label\nIt rained.,wet,dry,0\nSun.,wet,dry,"
WHO = "question,context,answer,answer_start\nWho?,Here is Ann.,Ann,"
READ = [
    (choice_task, {}, ".csv", WEATHER + "1\n",
        [("It rained.", ("wet", "dry"), 0), ("Sun.", ("wet", "dry"), 1)]),
    (tag_task, {"labels": ("X", "Y")}, ".jsonl", '{"words": ["A", "b c"], "tags": ["X", "Y"]}\n',
        [(("A", "b c"), (0, 1))]),
    (tag_task, {"labels": ("X", "Y")}, ".csv", "words,tags\nA b,X Y\n", [(("A", "b"), (0, 1))]),
    (span_task, {}, ".csv", WHO + "8\n", [("Who?", "Here is Ann.", (("Ann", 8),), False)]),
    (choice_task, {"prompt": ("a", "b"), "choices": ("c", "d"), "first": 1}, ".csv", "a,b,c,d,label\nx,y,u,v,2\n",
        [("x y", ("u", "v"), 1)]),
    # A letter of three bytes stands before the span.
    (tag_task, {"labels": ("B-P", "I-P", "O"), "spans": "at", "span_fields": ("s", "e", "l"), "in_bytes": True},
        ".jsonl", '{"text": "Ọ. Ann Bo", "at": [{"s": 5, "e": 11, "l": "P"}]}\n',
        [(("Ọ", ".", "Ann", "Bo"), (2, 2, 0, 1))]),
    (classify_task, {"labels": ("-1", "1")}, ".csv", "text,label\na,-1\n", [("a", None, 0, (), (), ())]),
    (choice_task, {}, ".csv", WEATHER + "2\n", "label is '2'"),
    *((tag_task, {"labels": ("B-P", "I-P", "O"), "spans": "at", "in_bytes": True}, ".jsonl",
        f'{{"text": "Ann", "at": [{{"start": {begin}, "end": {end}, "label": "P"}}]}}\n', "no words are at")
        for begin, end in ((0, 9), (1, 1))),
    (span_task, {}, ".csv", WHO + "7\n", "not at character 7"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "options", "suffix", "content", "expected"), READ)
def test_each_kind_is_read_value_by_value(tmp_path, make, options, suffix, content, expected):
    (tmp_path / f"a{suffix}").write_text(content)
    task = make("mine", files={"train": f"a{suffix}"}, **options)
    if isinstance(expected, list):
        found = read_examples(task, "train", "en", DataSource(tmp_path))
        assert [astuple(example) for example in found] == [(f"{n}", *row) for n, row in enumerate(expected)]
    else:
        with pytest.raises(DataError, match=expected) as caught:
            read_examples(task, "train", "en", DataSource(tmp_path))
        assert f"a{suffix}:{len(content.splitlines())}" in caught.value.where


@pytest.mark.parametrize(
    "pattern", ["{}/r/test-{{language}}.csv", "./r/test-{{language}}.csv", "r/test-{{language}}.csv.gz"]
)
def test_a_path_with_a_language_may_be_absolute_or_zipped(tmp_path, pattern):
    content = b"question,context\nWer?,Ann.\n"  # and a table of questions may have neither answers nor ids
    (tmp_path / "r").mkdir()
    name = pattern.format(tmp_path)
    path = tmp_path / "r" / f"test-de{'.csv.gz' if name.endswith('gz') else '.csv'}"
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    task, source = span_task("mine", files={"test": name}, languages=("en", "de")), DataSource(tmp_path)
    assert available_languages(task, "test", source) == ("de",)
    (example,) = read_examples(task, "test", "de", source)
    assert (example.id, example.context, example.answers) == ("0", "Ann.", ())


def test_what_keep_uses_is_a_part_of_the_declaration(monkeypatch):
    """Also a pattern, and what only a generator within it uses: in the same order in every process."""
    seen = [describe(keep_few)]
    assert [name for name, _ in seen[0][-1]] == ["LOG", "WORDS", "FEW", "LIMIT", "astuple"]
    assert (seen[0][1], seen[0][-1][-1]) == ([["least", 0]], ["astuple", "astuple"])  # a default, a library's
    for name, value in (("WORDS", re.compile("b+")), ("LIMIT", 4)):
        monkeypatch.setitem(globals(), name, value)
        seen.append(describe(keep_few))
    assert seen[0] != seen[1] != seen[2] and describe(keep_few) == seen[2]


WORDS, LIMIT, FEW, LOG = re.compile("a+"), 3, ("b",), logging.getLogger("mine")


def keep_few(example, split, *, least=0):
    LOG.debug("%s", split)
    words = example.text.split()
    return bool(WORDS.match(words[0])) and all(len(astuple(word)) < LIMIT or word in FEW for word in words)


def test_a_file_may_hold_several_languages(tmp_path):
    (tmp_path / "a.csv").write_text("text,label,lang\nGood.,good,eng\nGut.,good,deu\nSchlecht.,bad,deu\n")
    languages = {"languages": ("en", "de"), "codes": {"en": "eng", "de": "deu"}, "language_column": "lang"}
    task = classify_task("a", files={"train": "a.csv"}, labels=("bad", "good"), **languages)
    source = DataSource(tmp_path)
    assert available_languages(task, "train", source) == ("en", "de")
    assert [example.text for example in read_examples(task, "train", "de", source)] == ["Gut.", "Schlecht."]
    with pytest.raises(DataError, match="'fr'"):
        read_examples(task, "train", "fr", source)


FROM_THE_HUB = [
    (tag_task, {"labels": ("O", "B-X")}, "words:string* tags:O|B-X*", (["a", "b"], [0, 1]), (("a", "b"), (0, 1))),
    (choice_task, {"first": 1}, "prompt:string choice1:string choice2:string label:int32", ("a", "b", "c", 2),
        ("a", ("b", "c"), 1)),
    (span_task, {}, "question:string context:string answer:string answer_start:int32", ("Wer?", "Ann kam.", "Ann", 0),
        ("Wer?", "Ann kam.", (("Ann", 0),), False)),
    (pair_task, {}, "text:string positive:string", ("a", "b"), ("a", "b")),
]  # fmt: skip


@pytest.mark.parametrize(("make", "options", "features", "row", "expected"), FROM_THE_HUB)
def test_a_task_that_has_no_files_is_read_from_the_hub(
    tmp_path, write, make, options, features, row, expected
):
    for split in ("train", "test"):
        write(f"hub/me/mine/data_deu/{split}-00000-of-00001.parquet", make_parquet(features, [row]))
    options = {**options, "codes": {"de": "deu"}, "languages": ("de",), "source_language": "de"}
    task, source = make("mine", hub="me/mine/data_{language}", **options), DataSource(tmp_path)
    assert available_languages(task, "test", source) == ("de",)
    assert [astuple(example)[1:] for example in read_examples(task, "train", "de", source)] == [expected]
    if make is pair_task:
        assert read_retrieval(task, "test", "de", source).gold == {"0": ("0",)}


@pytest.mark.parametrize(
    ("make", "options", "row"),
    [
        (tag_task, {"labels": ("O", "X")}, {"words": "a b", "tags": "O X"}),
        (span_task, {}, {"question": "?", "context": "Ann", "answers": [{"text": "Ann", "answer_start": 0}]}),
        (pair_task, {}, {"text": "a", "positive": "b"}),
    ],
)
def test_rows_of_one_id_are_translations(tmp_path, make, options, row):
    (tmp_path / "a.jsonl").write_text(json.dumps({"number": "x7", **row}) + "\n")
    task = make("mine", files={"train": "a.jsonl"}, id="number", **options)
    assert [one.id for one in read_examples(task, "train", "en", DataSource(tmp_path))] == ["x7"]


rates = lambda name, files, **given: Hyperparameters(**given)  # noqa: E731
REVIEWS = {"name": "reviews", "files": {"train": "a.csv", "dev": "b.csv"}}


@pytest.mark.parametrize(
    ("make", "words", "said"),
    [
        (classify_task, {"files": {"train": "train.xlsx"}}, "xlsx"),
        (classify_task, {"files": {"training": "a.csv"}}, "'train'"),
        (classify_task, {"metric": "acc"}, "accuracy"),
        (classify_task, {"txet": "review"}, "'text'"),
        (classify_task, {"lagnuages": ("en",)}, "'languages'"),
        (classify_task, {"languages": "en"}, "languages"),
        (classify_task, {"pictures": "seen"}, "pictures"),
        (classify_task, {"labels": "bad"}, "labels"),
        (classify_task, {"labels": ("bad", "bad")}, "twice"),
        (classify_task, {"labels": ()}, "labels_file"),
        (classify_task, {"hub": "me/mine", "splits": "train validation"}, "'validation'"),
        (classify_task, {"group": "sentiment"}, "classification"),
        *((classify_task, {"name": name}, "name") for name in ("good reviews", "../x", "..", "a\n")),
        (classify_task, {"reported": "test"}, "test"),
        (classify_task, {"train_on": "mnli"}, "train_on"),
        (classify_task, {"hyperparameters": {"papers": Hyperparameters()}}, "'paper'"),
        (classify_task, {"hyperparameters": Hyperparameters()}, "hyperparameters"),
        (classify_task, {"hyperparameters": {"paper": {"epochs": 3}}}, "Hyperparameters"),
        *((classify_task, {"text": name, "pair": "label"}, "two things: ") for name in ("text", "label")),
        (pair_task, {"first": "a", "second": "a"}, "a, a"),
        *((rates, {"epochs": value}, "hyperparameters.epochs") for value in ("3", -3)),
        (choice_task, {"choices": "choice1"}, "choices"),
        (choice_task, {"choices": (1, 2)}, "choices"),
        (choice_task, {"chioces": ("a", "b")}, "'choices'"),
        (span_task, {"metric": "accuracy"}, "squad"),
        (tag_task, {"labels": ("O",), "span_fields": ("start", "end")}, "span_fields"),
        (pair_task, {"metric": "map"}, "nearest_accuracy"),
    ],
)
def test_a_wrong_word_is_refused_where_it_is_written(make, words, said):
    labels = {"labels": ("bad", "good")} if make is classify_task else {}
    with pytest.raises(ConfigError) as caught:
        make(**REVIEWS | labels | words)
    assert said in f"{caught.value.what} {caught.value.fix}" and caught.value.fix


@pytest.mark.parametrize(
    ("module", "reference", "said"),
    [
        ("", "no_such_module:TASK", "current directory"),
        (DECLARATION, "broken:", "known: REVIEWS"),
        (DECLARATION, "broken:REVIEWS@", "mnli@de"),
        ("import no_such_library", "broken:TASK", "python -m broken"),
        ("x = (", "broken:TASK", "SyntaxError"),
        ("TASK = 1", "broken:TASK", "stilts_jax.tasks.custom"),
        (DECLARATION, "broken:REVIEW", "'REVIEWS'"),
        (DECLARATION.replace("labels=", "lables="), "broken:REVIEWS", "labels"),
        (DECLARATION.replace('"reviews"', '"mnli"'), "broken:REVIEWS", "another name"),
        (DECLARATION, "reviews", "my.module:TASK"),
    ],
)
def test_a_module_that_holds_no_task_is_named(tmp_path, monkeypatch, module, reference, said):
    (tmp_path / "broken.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ConfigError) as caught:
        get_task(reference)
    assert said in str(caught.value) and caught.value.fix and str(tmp_path) not in sys.path
