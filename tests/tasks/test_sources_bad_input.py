"""What is wrong with data is said with file and line (or place), task and language, or skipped and counted."""

import json

import pytest

from stilts_jax.errors import DataError
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource, read_counted, read_examples, read_retrieval

QUESTION = {"id": "q7", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]}
COPA = '{"premise": "a", "choice1": "b", "choice2": "c", "question": "cause", "idx": 0, "label": %s}\n'
COPA_PAIR = COPA % "null" + COPA.replace('"idx": 0', '"idx": 1') % 1
XNLI, PANX, COPAS, XQUAD = "xnli/dev-de.tsv", "panx/dev-de.tsv", "xcopa/val-et.jsonl", "xquad/xquad.de.json"


def squad(*more, context="Ann came.", **changes):
    paragraph = {"context": context, "qas": [{**QUESTION, **changes}, *more]}
    return json.dumps({"data": [{"paragraphs": [paragraph]}]})


BAD = {
    "column count": (XNLI, "a\tb\tneutral\n\nc\td\n", 3, "3 columns expected, 2 found"),
    "bad label": (XNLI, "a\tb\tneutral\nc\td\tmaybe\n", 2, "label is 'maybe'"),
    "bad tag": (PANX, "a\tO\n\nb\tB-CITY\n", 3, "'B-CITY' of 'b'"),
    "a word without its tag": (PANX, "a\tO\nb\n", 2, "a word and its tag"),
    "words and tags are swapped": ("ccg/dev.tsv", "n n\tAnn came\n", 1, "swapped"),
    "lost tabs": (PANX, "a O\nb O\n", 1, "tab"),
    "a label of many is blank": (COPAS, COPA_PAIR, 1, "blank"),
    "NULs": (XNLI, "a\tb\tneutral\n" + "\0" * 4096, 2, "4096 NUL"),
    "absurd JSON": (COPAS, "[" * 100_000, 1, "recursion"),
    "a long number": (COPAS, '{"idx": ' + "9" * 5000 + "}", 1, "digits"),
    "invalid UTF-8": (XNLI, b"a\tb\tneutral\nc\xe9\td\tneutral\n", 2, "not UTF-8"),
    "empty text": (XNLI, "a\t \tneutral\n", 1, "hypothesis is empty"),
    "answer elsewhere": (XQUAD, squad(context="So Ann came."), 0, "not at character 0"),
    "half a character": (XQUAD, squad(question="Who \ud83d?"), 0, "lone surrogate U+D83D"),
    "duplicate ids": (XQUAD, squad(QUESTION), 1, "'q7' occurred before"),
    "missing column": (COPAS, '{"premise": "a", "choice1": "b"}\n', 1, "no 'choice2'"),
}


def put(write, name, content):
    """Writes a file, and returns what reads it: task, split and language."""
    write(name, content)
    write("ccg/tags_to_id.json", {"n": 0})
    task = name.split("/")[0]
    language = {"ccg": "en", "xcopa": "et"}.get(task, "de")
    return get_task(task), "test" if task == "xquad" else "dev", language


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_named_or_skipped_and_counted_when_asked(tmp_path, write, case):
    name, content, line, message = BAD[case]
    task, split, language = put(write, name, content)
    place = f", data[0].paragraphs[0].qas[{line}]" if name == XQUAD else f":{line}"
    with pytest.raises(DataError) as caught:
        read_examples(task, split, language, DataSource(tmp_path))
    assert message in caught.value.what and caught.value.fix
    assert f"{tmp_path / name}{place}" in caught.value.where
    assert task.name in caught.value.where and language in caught.value.where
    if case in ("NULs", "lost tabs"):  # the whole file is damaged
        return
    try:
        (skipped,) = read_counted(task, split, language, DataSource(tmp_path, skip_budget=1)).skipped
    except DataError as error:  # it was the only row
        skipped = error.what
        assert "1 skipped" in skipped
    assert message in skipped and name in skipped


def test_what_is_no_text_or_no_sentence_costs_its_row_and_no_other(tmp_path, write):
    write(PANX, b"a\tO\nb\xe9\tO\n\nc\tO\n")
    write(XNLI, b"a\xe9\tb\tneutral\nc\td\tneutral\n")
    write("udpos/de_x-ud-dev.conllu", "1\ta\n\n1\tb\t_\tNOUN\t_\t_\t0\t_\t_\t_\n\n")
    for task in ("panx", "xnli", "udpos"):  # rows keep their numbers, which pair them across languages
        reading = read_counted(get_task(task), "dev", "de", DataSource(tmp_path, skip_budget=1))
        assert [example.id for example in reading.examples] == ["1"]


def test_a_budget_that_is_used_up_says_how_many_and_where(tmp_path, write):
    write(XNLI, "a\tb\tneutral\n" + "a\tb\twhat\n" * 9)
    with pytest.raises(DataError, match="4 rows can't be used, and only 3 may be skipped") as caught:
        read_examples(get_task("xnli"), "dev", "de", DataSource(tmp_path, skip_budget=3))
    assert "dev-de.tsv:2" in caught.value.where and "dev-de.tsv:5" in caught.value.where


def test_blanked_gold_is_refused_where_training_needs_it(tmp_path, write):
    for name in ("train-en", "test-en"):
        write(f"pawsx/{name}.tsv", "a\tb\n")
    source = DataSource(tmp_path)
    assert read_examples(get_task("pawsx"), "test", "en", source)[0].label is None
    with pytest.raises(DataError, match=r"gold is blank.*; the columns are sentence1, sentence2") as caught:
        read_examples(get_task("pawsx"), "train", "en", source)
    assert "train-en.tsv:1" in caught.value.where and "pawsx, train, en" in caught.value.where


def test_a_damaged_name_of_the_gold_column_is_no_blanked_gold(tmp_path, write):
    write("xnli/xnli.test.tsv", b"language\tgold\xff_label\tsentence1\tsentence2\nde\tneutral\ta\tb\n")
    with pytest.raises(DataError, match="name of a column is not UTF-8"):
        read_examples(get_task("xnli"), "test", "de", DataSource(tmp_path))


def test_a_language_that_is_not_there_offers_those_that_are(tmp_path, write):
    write(XNLI, "a\tb\tneutral\n")
    with pytest.raises(DataError) as caught:
        read_examples(get_task("xnli"), "dev", "xx", DataSource(tmp_path))
    assert "'xx'" in caught.value.what and "xnli/dev-xx.tsv" in caught.value.where
    assert "de" in caught.value.fix
    with pytest.raises(DataError):
        read_retrieval(get_task("tatoeba"), "test", "xx", DataSource(tmp_path))


@pytest.mark.parametrize(
    ("english", "gold", "budget", "message"),
    [
        ("a\nb\n", "0\n", 0, "2 queries, and gold for 1"),
        ("a\nb\n", "0\n7\n", 0, "no line of the 2"),
        ("a\nb\n", "0\nx\n", 0, "no line"),
        ("a\n\n", "0\n1\n", 9, "empty"),  # a sentence that can't be used is never skipped: gold counts lines
    ],
)
def test_gold_of_another_release_is_refused(tmp_path, write, english, gold, budget, message):
    for end, text in (("en", english), ("sw", "c\nd\n"), ("gold", gold)):
        write(f"tatoeba/sw-en.{end}", text)
    with pytest.raises(DataError, match=message):
        read_retrieval(get_task("tatoeba"), "test", "sw", DataSource(tmp_path, skip_budget=budget))
