"""The release formats: what the bytes say, with line numbers that a person can go to."""

import pytest

from stilts_jax.errors import DataError
from stilts_jax.tasks.sources import readers
from stilts_jax.tasks.sources.rows import Problems

PROBLEMS = Problems("a task, dev, fr")


def put(folder, content, name="file"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def conllu(*rows):
    lines = ["\t".join((*row[:2], "_", row[2], "_", "_", row[3], "dep", "_", "_")) for row in rows]
    return "# text = something\n" + "\n".join(lines) + "\n\n"


TABLE, TAGGED = readers.Table(("first", "second", "label"), optional=1), readers.read_tagged
NUMBERED = readers.Columns(word=1, tag=2, comments=True)
TREES = (
    # "du" is ADP+DET, both below the noun: equally high, and French has ADP before DET. The empty node
    # goes, and so do the space and U+200C inside a token.
    conllu(("1", "Fin", "NOUN", "0"), ("2-3", "du", "_", "_"), ("2", "de", "ADP", "4"), ("3", "le", "DET", "4"),
        ("4", "1 000\u200cjours", "NUM", "1"), ("4.1", "été", "VERB", "_"))
    # The higher word wins whatever the order: here the pronoun stands above the verb.
    + conllu(("1-2", "dámelo", "_", "_"), ("1", "da", "VERB", "2"), ("2", "lo", "PRON", "0"))
    + conllu(("1", "_", "X", "0"), ("2", "_", "X", "1"))  # text withheld
)  # fmt: skip
# A reader, what a file holds, and line and values of each row.
READ = {
    "lines end at line feeds only": (readers.read_text, "\ufeffone\u2028on\r\ntwo\x85\x0b\x0c on\nthree", [
        (1, "one\u2028on"), (2, "two\x85\x0b\x0c on"), (3, "three")]),
    "tables are read without quoting": (TABLE, 'He said "no\tleft"\tneutral\n"All quoted"\t"x\tentailment\n', [
        (1, 'He said "no', 'left"', "neutral"), (2, '"All quoted"', '"x', "entailment")]),
    # What Python's csv writer, with which XTREME writes its files, makes of: He said "no".
    "the quoting that a script added is undone": (TABLE, '"He said ""no""."\tb\r\n', [(1, 'He said "no".', "b")]),
    "labels are blanked in a whole file": (TABLE, "a\tb\nc\td\n", [(1, "a", "b"), (2, "c", "d")]),
    "lines within quotes count": (readers.read_csv, 'a,b\n"x\ny",1\nz,2\n', [(2, "x\ny", "1"), (4, "z", "2")]),
    "a prefix is cut at the first colon only": (TAGGED, "fr:Un\tO\nfr:12:30\tB-ORG\nfr::\tO\n\nfr:Fin\tO\n", [
        (1, ["Un", "12:30", ":"], ["O", "B-ORG", "O"]), (5, ["Fin"], ["O"])]),
    "a token that happens to begin like a prefix": (TAGGED, "fr:mo\tO\nx\tO\n", [(1, ["fr:mo", "x"], ["O", "O"])]),
    "words of nothing visible keep their place": (TAGGED, "a\tX\n\u200b\tX\n\tY\n\u00a0\tX\n\nb\tX", [
        (1, ["a", "\u200b", "", "\u00a0"], ["X", "X", "Y", "X"]), (6, ["b"], ["X"])]),
    "tags are blanked in a whole file": (TAGGED, "a\nb\n\nc\t\n", [(1, ["a", "b"], None), (4, ["c"], None)]),
    "multi-word tokens are fused as XTREME fuses them": (readers.read_conllu, TREES, [
        (2, ["Fin", "du", "1000jours"], ["NOUN", "ADP", "NUM"]), (10, ["dámelo"], ["PRON"])]),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_rows(tmp_path, name):
    read, content, expected = READ[name]
    rows = read(put(tmp_path, content), "fr", PROBLEMS)
    assert [(row.line, *row.fields.values()) for row in rows] == expected


REFUSED = [
    *((NUMBERED, f"# said\n{line}\tO\n", 2, "a word and its tag") for line in ("Ann\t1", "1 Ann")),
    *((readers.read_jsonl, f'{{"a": 1}}\n{line}\n', 2, "JSON") for line in ("{", "[1]", '"text"')),
    (readers.read_conllu, conllu(("1-2", "ab", "_", "_"), ("1", "a", "X", "7")), 2, "ids or heads"),
    (readers.read_squad, '{"data": [{"title": "x"}]}', None, r"SQuAD's form.* no 'data\[0\].paragraphs'"),
    (readers.read_squad, b'{"data": "\xff"}', 1, "not UTF-8"),
    (readers.read_csv, "a,b,a\n1,2,3\n", None, "several columns are called 'a'"),
]


@pytest.mark.parametrize(("read", "content", "line", "said"), REFUSED)
def test_what_is_wrong_is_named_with_its_line(tmp_path, read, content, line, said):
    path = put(tmp_path, content)
    with pytest.raises(DataError, match=said) as caught:
        list(read(path, "fr", PROBLEMS))
    assert (f"{path}:{line}" if line else str(path)) in caught.value.where
