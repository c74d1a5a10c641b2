"""Reads the formats that data sets are released in, and yields their rows with the line of each.

Lines end at a line feed (or CR LF) only: ``str.splitlines`` would also cut at U+2028 and others inside a
sentence. Tables are read without quoting, since XNLI and PAWS-X hold bare quotes. ``.gz`` files are read as
they are.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from stilts_jax.errors import DataError
from stilts_jax.tasks.sources.documents import BadRow, find_line, parse_json, read_bytes, read_object
from stilts_jax.tasks.sources.rows import Problems, Row, describe


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """Yields ``(line number, text)`` without line ends and byte order mark."""
    lines = read_bytes(path).split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            yield number, line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            problems.report(path, number, f"byte {error.start + 1} of the line is not UTF-8: {line[:60]!r}")


class Table:
    """Reads tab-separated values without quoting.

    Args:
        columns: names; empty where the first line has them.
        optional: how many of the last columns may be absent, in the whole file alike (blanked gold).
    """

    def __init__(self, columns: Sequence[str] = (), *, optional: int = 0) -> None:
        self._columns = columns
        self._optional = optional

    def __call__(self, path: Path, language: str, problems: Problems) -> Iterator[Row]:
        lines = read_lines(path, problems)
        names = list(self._columns)
        if not names:
            names = next(lines, (0, ""))[1].split("\t")
        rows = [(line, text.split("\t")) for line, text in lines if text]
        low = len(names) - self._optional
        # The widest that may be: one row that has lost its label does not make a file of blanked labels.
        width = max(
            (len(values) for _, values in rows if low <= len(values) <= len(names)), default=len(names)
        )
        for number, (line, values) in enumerate(rows):
            if len(values) == width:
                yield Row(line, number, dict(zip(names, map(_unquote, values))))
            else:
                problems.report(path, line, f"{width} columns were expected, {len(values)} are there")


def _unquote(value: str) -> str:
    """Undoes the quoting that XTREME's download writes and its readers leave in: ``"He said ""no""."``.

    Bare quotes stay: a value that only begins and ends with a quote is not changed.
    """
    if value.startswith('"') and value.endswith('"') and '""' in value[1:-1]:
        inner = value[1:-1]
        if '"' not in inner.replace('""', ""):
            return inner.replace('""', '"')
    return value


def read_csv(path: Path, language: str, problems: Problems, delimiter: str = ",") -> Iterator[Row]:
    """Yields the rows of comma-separated values with quoting and a header."""
    numbered = list(read_lines(path, problems))
    lines = [1, *(line for line, _ in numbered), 0]  # bytes that are no text have left gaps
    content = io.StringIO("\n".join(text for _, text in numbered), newline="")
    reader = csv.reader(content, delimiter=delimiter, strict=True)
    names: list[str] = []
    number = -1
    while True:
        line = lines[min(reader.line_num + 1, len(lines) - 1)]
        try:
            values = next(reader, None)
        except csv.Error as error:
            # Nobody can say where the next row begins.
            raise DataError(
                f"this is not CSV: {error}",
                where=f"{problems.what}, {path}:{line}",
                fix="look for a quote that is not closed, or closed too early",
            ) from error
        if values is None:
            return
        if not values:
            continue
        if number < 0:
            names = values
        elif len(values) == len(names):
            yield Row(line, number, dict(zip(names, values)))
        else:
            problems.report(path, line, f"{len(names)} columns were expected, {len(values)} are there")
        number += 1


def read_quoted(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields the rows of tab-separated values that are quoted as CSV is, with a header."""
    return read_csv(path, language, problems, "\t")


def read_jsonl(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row for each line, which is a JSON object."""
    number = 0
    for line, text in read_lines(path, problems):
        if not text.strip():
            continue
        try:
            fields = parse_json(text)
            if type(fields) is not dict:
                raise BadRow(f"the line is {describe(fields)}, not a JSON object")
        except BadRow as error:
            problems.report(path, line, str(error))
        else:
            yield Row(line, number, fields)
        number += 1


def read_squad(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row for each question of a file in SQuAD's form, with the fields of its paragraph.

    ``paragraph`` counts the paragraphs of the file, from 1 on.
    """
    document = here = Row(0, 0, read_object(path))
    number, paragraph_number = -1, 0
    try:
        for article in document.parts("data"):
            here = article
            for paragraph in article.parts("paragraphs"):
                here = paragraph
                paragraph_number += 1
                shared = {key: value for key, value in paragraph.fields.items() if key != "qas"}
                for question in paragraph.parts("qas"):
                    number += 1
                    fields = {"paragraph": paragraph_number, **shared, **question.fields}
                    yield Row(0, number, fields, question.place)
    except BadRow as error:
        raise DataError(
            f"this is not SQuAD's form (data > paragraphs > qas): {error}",
            where=f"{problems.what}, {path}:{find_line(path, here.place)}",
            fix="give it the form of SQuAD v1.1 or v2.0",
        ) from error


def read_tagged(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row for each sentence: ``words`` and ``tags`` (None where they are blanked).

    A line is ``token TAB tag``; an empty line ends a sentence. Where every token stands behind ``LL:``
    (WikiANN as released), that is cut off, at the first colon only: a token may itself be or hold a colon.
    """
    lines = list(read_lines(path, problems))
    filled = [(line, text) for line, text in lines if text.strip(" ")]
    prefix = f"{language}:"
    prefixed = sum(text.startswith(prefix) for _, text in filled)
    if prefixed <= len(filled) / 2:  # a token may happen to begin like that
        prefix = ""
    tagged = any(text.rstrip(" ").partition("\t")[2] for _, text in filled)
    if filled and not tagged and all(" " in text.strip(" ") for _, text in filled):
        raise DataError(
            "words and tags are separated by spaces, where a tab was expected",
            where=f"{problems.what}, {path}:{filled[0][0]}",
            fix="put a tab between a word and its tag",
        )
    number = start = 0
    words: list[str] = []
    tags: list[str] = []
    sound = True
    for line, text in [*lines, (len(lines) + 1, "")]:
        if text.strip(" "):
            start = start or line
            word, _, tag = text.removeprefix(prefix).partition("\t")
            if sound and ("\t" in tag or (tagged and not tag) or not text.startswith(prefix)):
                expected = f"{prefix} before a word" if tag and "\t" not in tag else "a word and its tag"
                problems.report(path, line, f"{expected} was expected, not {describe(text)}")
                sound = False
            words.append(word)
            tags.append(tag.strip())
        elif words:
            if sound:
                yield Row(start, number, {"words": words, "tags": tags if tagged else None})
            number += 1
            words, tags, sound, start = [], [], True, 0


class Columns:
    """Reads sentences with a word and its tag in columns of each line; an empty line ends a sentence.

    Args:
        word: number of the word's column, from 0 on.
        tag: number of the tag's column.
        separator: what stands between columns.
        comments: whether lines that begin with ``#`` are comments.
    """

    def __init__(self, *, word: int = 0, tag: int = 1, separator: str = "\t", comments: bool = False) -> None:
        self._word, self._tag = word, tag
        self._separator = separator
        self._comments = comments

    def __call__(self, path: Path, language: str, problems: Problems) -> Iterator[Row]:
        number = start = 0
        sentence: list[list[str]] = []
        for line, text in [*read_lines(path, problems), (0, "")]:
            if self._comments and text.startswith("#"):
                continue
            if text.strip():
                start = start or line
                sentence.append(text.split(self._separator))
                if len(sentence[-1]) <= max(self._word, self._tag):
                    problems.report(path, line, f"a word and its tag were expected, not {describe(text)}")
                    sentence.pop()
            elif sentence:
                words, tags = ([columns[place] for columns in sentence] for place in (self._word, self._tag))
                yield Row(start, number, {"words": words, "tags": tags})
                number, start, sentence = number + 1, 0, []


# XTREME's conversion gives a fused token (French "du") the tag of that of its words which stands highest in
# the tree; of several equally high, the one that comes first here.
_FUSED_PRECEDENCE = "VERB NOUN PROPN PRON ADJ NUM ADV INTJ AUX ADP DET PART CCONJ SCONJ X PUNCT"
_FUSED_PRECEDENCE_OF = {
    "es": "VERB AUX PRON ADP DET",
    "fr": "VERB AUX PRON NOUN ADJ ADV ADP DET PART SCONJ CONJ",
    "it": "VERB AUX ADV PRON ADP DET INTJ",
}
_NOT_IN_TOKENS = re.compile(r"[\s\u200c]")


def read_conllu(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row for each sentence of Universal Dependencies, as XTREME reads them.

    A multi-word token is one word, empty nodes are dropped, spaces and U+200C are taken out of tokens, and a
    sentence whose text is withheld (its tokens are ``_``) is dropped.
    """
    precedence = _FUSED_PRECEDENCE_OF.get(language, _FUSED_PRECEDENCE).split()
    number = start = 0
    lines: list[list[str]] = []
    sound = True
    for line, text in [*read_lines(path, problems), (0, "")]:
        columns = text.split("\t")
        if text.startswith("#"):
            continue
        if text:
            start = start or line
            lines.append(columns)
            if sound and len(columns) != 10:
                problems.report(path, line, f"10 columns were expected, {len(columns)} are there")
                sound = False
        elif lines:
            try:
                words, tags = _fuse(lines, precedence) if sound else ([], [])
            except (ValueError, KeyError, IndexError):
                problems.report(path, start, "the ids or heads of the sentence are not CoNLL-U's")
            else:
                withheld = words.count("_")
                if sound and (not withheld or withheld < len(words) - 1):
                    yield Row(start, number, {"words": words, "tags": tags})
                    number += 1
            lines, start, sound = [], 0, True


def _fuse(lines: Sequence[Sequence[str]], precedence: Sequence[str]) -> tuple[list[str], list[str]]:
    nodes = {int(columns[0]): columns for columns in lines if columns[0].isdecimal()}
    if list(nodes) != list(range(1, sum(columns[0].isdecimal() for columns in lines) + 1)):
        raise ValueError("words are numbered 1, 2, 3, ...")

    def rank(node: int) -> tuple[int, int]:
        depth, above = 0, node
        while above and depth <= len(nodes):  # a cycle of heads ends too
            above, depth = int(nodes[above][6]), depth + 1
        tag = nodes[node][3]
        return depth, precedence.index(tag) if tag in precedence else len(precedence)

    words, tags = [], []
    fused_until = 0
    for columns in lines:
        first, _, last = columns[0].partition("-")
        if last:
            fused_until = int(last)
            tags.append(nodes[min(range(int(first), fused_until + 1), key=rank)][3])
        elif "." in first or int(first) <= fused_until:
            continue
        else:
            tags.append(columns[3])
        words.append(_NOT_IN_TOKENS.sub("", columns[1]))
    return words, tags


def read_text(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields the lines of a file as ``text``."""
    for number, (line, text) in enumerate(read_lines(path, problems)):
        yield Row(line, number, {"text": text})
