"""The release formats: what the bytes say, with line numbers that a person can go to."""

import gzip
import json

import pytest

from stilts_jax.errors import DataError
from stilts_jax.tasks.sources.documents import find_line
from stilts_jax.tasks.sources.readers import (
    Table,
    read_conllu,
    read_csv,
    read_jsonl,
    read_lines,
    read_squad,
    read_tagged,
)
from stilts_jax.tasks.sources.rows import Problems

PROBLEMS = Problems("a task, dev, de")


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def test_lines_end_at_line_feeds_only(write):
    text = "one\u2028still one\r\ntwo\x85\x0b\x0c still two\nthree"
    assert list(read_lines(write("\ufeff" + text), PROBLEMS)) == [
        (1, "one\u2028still one"),
        (2, "two\x85\x0b\x0c still two"),
        (3, "three"),
    ]


def test_zipped_files_are_read_as_they_are(write):
    assert list(read_lines(write(gzip.compress(b"a\nb\n"), "x.gz"), PROBLEMS)) == [(1, "a"), (2, "b")]
    with pytest.raises(DataError, match="can't be read"):
        list(read_lines(write(gzip.compress(b"a\nb\n" * 99)[:-9], "y.gz"), PROBLEMS))


def test_tables_are_read_without_quoting(write):
    path = write('He said "no\tand left"\tneutral\n"All quoted"\t"x\tcontradiction\n')
    rows = list(Table(("first", "second", "label"))(path, "en", PROBLEMS))
    assert [row["first"] for row in rows] == ['He said "no', '"All quoted"']
    assert rows[1]["second"] == '"x' and rows[1].line == 2


def test_the_quoting_that_a_download_script_added_is_undone(write):
    # What Python's csv writer, with which XTREME writes its files, makes of: He said "no".
    path = write('"He said ""no""."\tb\r\n')
    (row,) = Table(("first", "second"))(path, "en", PROBLEMS)
    assert row["first"] == 'He said "no".' and row["second"] == "b"


def test_a_table_has_one_width(write):
    table = Table(("first", "second", "label"), optional=1)
    assert [row.get("label") for row in table(write("a\tb\nc\td\n"), "en", PROBLEMS)] == [None, None]
    with pytest.raises(DataError, match="3 columns were expected, 2") as caught:
        list(table(write("a\tb\tc\n\nd\te\n"), "en", PROBLEMS))
    assert ":3" in caught.value.where


def test_csv_counts_lines_through_quoted_line_ends(write):
    rows = list(read_csv(write('a,b\n"x\ny",1\nz,2\n'), "en", PROBLEMS))
    assert [(row.line, row["a"], row["b"]) for row in rows] == [(2, "x\ny", "1"), (4, "z", "2")]


@pytest.mark.parametrize("line", ["{", "[1]", '"text"'])
def test_a_line_that_is_no_object_is_named(write, line):
    with pytest.raises(DataError) as caught:
        list(read_jsonl(write(f'{{"a": 1}}\n{line}\n'), "en", PROBLEMS))
    assert ":2" in caught.value.where


def test_a_prefix_is_cut_at_the_first_colon_only(write):
    path = write("de:Um\tO\nde:12:30\tB-ORG\nde::\tO\n\nde:Ende\tO\n")
    rows = list(read_tagged(path, "de", PROBLEMS))
    assert rows[0].value("words") == ["Um", "12:30", ":"]
    assert rows[0].value("tags") == ["O", "B-ORG", "O"]
    # A token that happens to begin like that, among others, is kept.
    rows = list(read_tagged(write("de:mo\tO\nx\tO\n"), "de", PROBLEMS))
    assert rows[0].value("words") == ["de:mo", "x"]


def test_tagged_words_of_nothing_visible_keep_their_place(write):
    path = write("a\tX\n\u200b\tX\n\tY\n\u00a0\tX\n\nb\tX")
    rows = list(read_tagged(path, "en", PROBLEMS))
    assert [row.value("words") for row in rows] == [["a", "\u200b", "", "\u00a0"], ["b"]]
    assert [row.line for row in rows] == [1, 6]


def test_tags_may_be_blanked_in_a_whole_file_only(write):
    rows = list(read_tagged(write("a\nb\n\nc\t\n"), "en", PROBLEMS))
    assert [row.value("tags") for row in rows] == [None, None] and rows[1].value("words") == ["c"]
    with pytest.raises(DataError) as caught:
        list(read_tagged(write("a\tX\nb\n"), "en", PROBLEMS))
    assert ":2" in caught.value.where


def conllu(*rows):
    lines = ["\t".join((*row[:2], "_", row[2], "_", "_", row[3], "dep", "_", "_")) for row in rows]
    return "# text = something\n" + "\n".join(lines) + "\n\n"


def test_multi_word_tokens_are_fused_as_xtreme_fuses_them(write):
    # "du" is ADP+DET, both below the noun: equally high, and French has ADP before DET. The empty node
    # goes, and so do the space and U+200C inside a token.
    path = write(
        conllu(
            ("1", "Fin", "NOUN", "0"),
            ("2-3", "du", "_", "_"),
            ("2", "de", "ADP", "4"),
            ("3", "le", "DET", "4"),
            ("4", "1 000\u200cjours", "NUM", "1"),
            ("4.1", "été", "VERB", "_"),
        )
        # The higher word wins whatever the order: here the pronoun stands above the verb.
        + conllu(("1-2", "dámelo", "_", "_"), ("1", "da", "VERB", "2"), ("2", "lo", "PRON", "0"))
        + conllu(("1", "_", "X", "0"), ("2", "_", "X", "1"))  # text withheld
    )
    rows = list(read_conllu(path, "fr", PROBLEMS))
    assert [row.value("words") for row in rows] == [["Fin", "du", "1000jours"], ["dámelo"]]
    assert [row.value("tags") for row in rows] == [["NOUN", "ADP", "NUM"], ["PRON"]]


def test_a_broken_sentence_of_a_treebank_is_named(write):
    with pytest.raises(DataError, match="10 columns"):
        list(read_conllu(write("1\tword\tNOUN\n\n"), "de", PROBLEMS))
    with pytest.raises(DataError, match="ids or heads"):
        list(read_conllu(write(conllu(("1-2", "ab", "_", "_"), ("1", "a", "X", "7"))), "de", PROBLEMS))


def test_squad_rows_carry_their_paragraph(write):
    paragraphs = [{"context": text, "qas": [{"id": text, "question": "?"}]} for text in ("one", "two")]
    path = write(json.dumps({"data": [{"paragraphs": paragraphs}]}, indent=1))
    rows = list(read_squad(path, "en", PROBLEMS))
    assert [(row.number, row["context"], row.value("paragraph")) for row in rows] == [
        (0, "one", 1),
        (1, "two", 2),
    ]
    assert (
        '"context": "two"'
        in path.read_text().split("\n")[find_line(path, (*rows[1].place[:4], "context")) - 1]
    )
    with pytest.raises(DataError, match="SQuAD's form"):
        list(read_squad(write('{"data": [{"title": "x"}]}'), "en", PROBLEMS))
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_squad(write(b'{"data": "\xff"}'), "en", PROBLEMS))
