"""What is wrong with data is said with file:line, task and language, or skipped and counted within a budget."""

import json

import pytest

from stilts_jax.errors import DataError
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource, read_counted, read_examples, read_retrieval

QUESTION = {"id": "q7", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]}


def squad(**changes):
    paragraph = {"context": changes.pop("context", "Ann came."), "qas": [{**QUESTION, **changes}]}
    return json.dumps({"data": [{"paragraphs": [paragraph]}]}, indent=0)


def line_of(text, part):
    return text[: text.index(part)].count("\n") + 1


TWICE = json.dumps({"data": [{"paragraphs": [{"context": "Ann came.", "qas": [QUESTION, QUESTION]}]}]})
COPA = '{"premise": "a", "choice1": "b", "choice2": "c", "question": "cause", "idx": 0, "label": %s}\n'
BAD = {
    "column count": ("xnli/dev-de.tsv", "a\tb\tneutral\nc\td\n", 2, "3 columns were expected"),
    "bad label": ("xnli/dev-de.tsv", "a\tb\tneutral\nc\td\tmaybe\n", 2, "label is 'maybe'"),
    "bad tag": ("panx/dev-de.tsv", "a\tO\n\nb\tB-CITY\n", 3, "'B-CITY' of 'b'"),
    "a word without its tag": ("panx/dev-de.tsv", "a\tO\nb\n", 2, "a word and its tag"),
    "words and tags": ("ccg/dev.tsv", "one two\tn\n", 1, "words has 2 entries, tags has 1"),
    "words and tags are swapped": ("ccg/dev.tsv", "n n\tAnn came\n", 1, "swapped"),
    "lost tabs": ("panx/dev-de.tsv", "a O\nb O\n", 1, "tab"),
    "a label of many is lost": ("pawsx/dev-de.tsv", "a\tb\nc\td\t1\n", 1, "3 columns"),
    "a label of many is blank": (
        "xcopa/val-et.jsonl",
        COPA % "null" + COPA.replace('idx": 0', 'idx": 1') % 1,
        1,
        "blank",
    ),
    "NULs": ("xnli/dev-de.tsv", "a\tb\tneutral\n" + "\0" * 4096, 2, "4096 NUL"),
    "absurd JSON": ("xcopa/val-et.jsonl", "[" * 100_000, 1, "nested too deeply"),
    "a long number": ("xcopa/val-et.jsonl", '{"idx": ' + "9" * 5000 + "}", 1, "digits"),
    "invalid UTF-8": ("xnli/dev-de.tsv", b"a\tb\tneutral\nc\xe9\td\tneutral\n", 2, "not UTF-8"),
    "empty text": ("xnli/dev-de.tsv", "a\t \tneutral\n", 1, "hypothesis is empty"),
    "answer elsewhere": ("xquad/xquad.de.json", squad(context="So Ann came."), None, "not at character 0"),
    "answer beyond": (
        "xquad/xquad.de.json",
        squad(answers=[{"text": "Ann", "answer_start": 99}]),
        None,
        "character 99",
    ),
    "empty question": ("xquad/xquad.de.json", squad(question="  "), None, "question is empty"),
    "half a character": ("xquad/xquad.de.json", squad(question="Who \ud83d?"), None, "lone surrogate U+D83D"),
    "duplicate ids": ("xquad/xquad.de.json", TWICE, 1, "'q7' occurred before"),
    "missing column": ("xcopa/val-et.jsonl", '{"premise": "a", "choice1": "b"}\n', 1, "no 'choice2'"),
    "label of another task": (
        "xcopa/val-et.jsonl",
        '{"premise": "a", "choice1": "b", "choice2": "c", "question": "cause", "idx": 0, "label": 2}\n',
        1,
        "label is 2",
    ),
}
TASK_OF = {"xnli": "de", "pawsx": "de", "panx": "de", "ccg": "en", "xquad": "de", "xcopa": "et"}


def put(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "ccg").mkdir(exist_ok=True)
    (tmp_path / "ccg" / "tags_to_id.json").write_text('{"n": 0}')
    task = name.split("/")[0]
    return path, get_task(task), "test" if task == "xquad" else "dev", TASK_OF[task]


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_named_or_skipped_and_counted_when_asked(tmp_path, case):
    name, content, line, message = BAD[case]
    path, task, split, language = put(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_examples(task, split, language, DataSource(tmp_path))
    assert message in caught.value.what
    assert f"{path}:{line or line_of(content, 'q7') - 1}" in caught.value.where
    assert task.name in caught.value.where and language in caught.value.where and caught.value.fix
    if case in ("NULs", "lost tabs"):  # the whole file is damaged
        return
    try:
        (skipped,) = read_counted(task, split, language, DataSource(tmp_path, skip_budget=1)).skipped
    except DataError as error:  # it was the only row
        skipped = error.what
        assert "1 skipped" in skipped
    assert message in skipped and str(path) in skipped


def test_a_budget_that_is_used_up_says_how_many_and_where(tmp_path):
    (tmp_path / "xnli").mkdir()
    (tmp_path / "xnli" / "dev-de.tsv").write_text("a\tb\tneutral\n" + "a\tb\twhat\n" * 9)
    with pytest.raises(DataError, match="4 rows can't be used, and only 3 may be skipped") as caught:
        read_examples(get_task("xnli"), "dev", "de", DataSource(tmp_path, skip_budget=3))
    assert "dev-de.tsv:2" in caught.value.where and "dev-de.tsv:5" in caught.value.where


def test_blanked_gold_is_refused_where_training_needs_it(tmp_path):
    (tmp_path / "pawsx").mkdir()
    for name in ("train-en", "test-en"):
        (tmp_path / "pawsx" / f"{name}.tsv").write_text("a\tb\n")
    source = DataSource(tmp_path)
    assert read_examples(get_task("pawsx"), "test", "en", source)[0].label is None
    with pytest.raises(DataError, match="gold is blank") as caught:
        read_examples(get_task("pawsx"), "train", "en", source)
    assert "train-en.tsv:1" in caught.value.where and "pawsx, train, en" in caught.value.where


def test_a_language_that_is_not_there_offers_those_that_are(tmp_path):
    (tmp_path / "xnli").mkdir()
    (tmp_path / "xnli" / "dev-de.tsv").write_text("a\tb\tneutral\n")
    with pytest.raises(DataError) as caught:
        read_examples(get_task("xnli"), "dev", "xx", DataSource(tmp_path))
    assert (
        "'xx'" in caught.value.what and "de" in caught.value.fix and "xnli/dev-xx.tsv" in caught.value.where
    )
    with pytest.raises(DataError):
        read_retrieval(get_task("tatoeba"), "test", "xx", DataSource(tmp_path))


@pytest.mark.parametrize(
    ("gold", "message"),
    [("0\n", "2 queries, and gold for 1"), ("0\n7\n", "no line of the 2"), ("0\nx\n", "no line")],
)
def test_gold_of_another_release_is_refused(tmp_path, gold, message):
    folder = tmp_path / "tatoeba"
    folder.mkdir()
    for name, text in (("sw-en.en", "a\nb\n"), ("sw-en.sw", "c\nd\n"), ("sw-en.gold", gold)):
        (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_retrieval(get_task("tatoeba"), "test", "sw", DataSource(tmp_path, skip_budget=0))
    # A sentence that can't be used is never skipped: gold counts lines.
    (folder / "sw-en.en").write_text("a\n\n")
    with pytest.raises(DataError, match="empty"):
        read_retrieval(get_task("tatoeba"), "test", "sw", DataSource(tmp_path, skip_budget=9))
