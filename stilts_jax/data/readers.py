"""Reads the formats that data sets are released in: rows with their place, and what is wrong with them.

Lines end at a line feed (or CR LF) only: ``str.splitlines`` would also cut at U+2028 and others inside a
sentence. Tables are read without quoting, since XNLI and PAWS-X hold bare quotes. ``.gz`` files are read as
they are.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stilts_jax.errors import DataError

LANGUAGE = "@language"  # field of prepared rows: the language that is read, where a row holds several
_SHOWN = 5  # places that an error names when many rows are bad
_SKIP = "mend the file, or let rows like this be skipped and counted: skip_budget"


class BadRow(Exception):
    """A row that can't be used; whoever reads the row knows its place."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        line: 1-based line in the file (of the first line, where a row has several); 0 where there are no
            lines.
        number: 0-based count of the rows before it.
        fields: values by column.
    """

    line: int
    number: int
    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            raise BadRow(f"there is no {name!r}, only {', '.join(map(repr, self.fields))}") from None

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields.get(name, default)


@dataclass
class Problems:
    """Rows that can't be used: each raises, until as many as ``budget`` may be skipped.

    Attributes:
        what: task, split and language that are read.
        budget: how many rows may be skipped.
        found: what was skipped, with its place.
    """

    what: str
    budget: int = 0
    found: list[str] = field(default_factory=list)

    def report(self, path: Path, line: int, message: str) -> None:
        """Counts a row as skipped, or raises."""
        place = f"{path}:{line}" if line else str(path)
        if not self.budget:
            raise DataError(message, where=f"{self.what}, {place}", fix=_SKIP)
        self.found.append(f"{place}: {message}")
        if len(self.found) > self.budget:
            places = "\n    ".join(self.found[:_SHOWN])
            raise DataError(
                f"{len(self.found)} rows can't be used, and only {self.budget} may be skipped",
                where=f"{self.what}; the first:\n    {places}",
                fix="mend the file, or raise skip_budget",
            )


def read_bytes(path: Path) -> bytes:
    """Returns what a file holds, unzipped where its name ends in ``.gz``."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the file can't be read: {error}", where=str(path), fix="fetch or copy it again"
        ) from error


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """Yields ``(line number, text)`` without line ends; a byte order mark goes."""
    lines = read_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
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
        wanted: columns that the first line has to name.
    """

    def __init__(self, columns: Sequence[str] = (), *, optional: int = 0, wanted: Sequence[str] = ()) -> None:
        self._columns = columns
        self._optional = optional
        self._wanted = wanted

    def __call__(self, path: Path, language: str, problems: Problems) -> Iterator[Row]:
        lines = read_lines(path, problems)
        names = list(self._columns)
        if not names:
            names = next(lines, (0, ""))[1].split("\t")
            _check_header(path, names, self._wanted, problems)
        width = 0
        number = 0
        for line, text in lines:
            if not text:
                continue
            values = text.split("\t")
            if not width:
                low = len(names) - self._optional
                width = len(values) if low <= len(values) <= len(names) else len(names)
            if len(values) == width:
                yield Row(line, number, dict(zip(names, map(_unquote, values))))
            else:
                problems.report(path, line, f"{width} columns were expected, {len(values)} are there")
            number += 1


def _unquote(value: str) -> str:
    """Undoes the quoting that XTREME's download writes and its readers leave in: ``"He said ""no""."``.

    Bare quotes stay: a value that only begins and ends with a quote is not changed.
    """
    if value.startswith('"') and value.endswith('"') and '""' in value[1:-1]:
        inner = value[1:-1]
        if '"' not in inner.replace('""', ""):
            return inner.replace('""', '"')
    return value


def _check_header(path: Path, names: Sequence[str], wanted: Sequence[str], problems: Problems) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"the first line has no column {', '.join(map(repr, missing))}; it has {', '.join(names)}",
            where=f"{problems.what}, {path}:1",
            fix="give the file the header of the original release",
        )


def read_csv(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields the rows of comma-separated values with quoting and a header."""
    text = "\n".join(line for _, line in read_lines(path, problems))
    reader = csv.reader(io.StringIO(text, newline=""))
    names = next(reader, [])
    line = reader.line_num + 1
    for number, values in enumerate(row for row in reader if row):
        if len(values) == len(names):
            yield Row(line, number, dict(zip(names, values)))
        else:
            problems.report(path, line, f"{len(names)} columns were expected, {len(values)} are there")
        line = reader.line_num + 1


def read_jsonl(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row a line, each a JSON object."""
    number = 0
    for line, text in read_lines(path, problems):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            problems.report(path, line, f"this is not JSON: {error}")
            continue
        if isinstance(fields, dict):
            yield Row(line, number, fields)
        else:
            problems.report(path, line, f"a JSON object was expected, not {type(fields).__name__}")
        number += 1


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds."""
    try:
        return json.loads(read_bytes(path).decode("utf-8-sig"))
    except ValueError as error:  # of decoding or of JSON
        raise DataError(f"this is not JSON in UTF-8: {error}", where=str(path), fix="get it again") from error


def read_squad(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row a question of a file in SQuAD's form, with the fields of its paragraph.

    ``paragraph`` counts the paragraphs of the file, from 1 on.
    """
    content = read_json(path)
    number = 0
    try:
        paragraphs = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
        for place, paragraph in enumerate(paragraphs, start=1):
            shared = {key: value for key, value in paragraph.items() if key != "qas"}
            for question in paragraph["qas"]:
                yield Row(0, number, {"paragraph": place, **shared, **question})
                number += 1
    except (KeyError, TypeError) as error:
        raise DataError(
            f"this is not SQuAD's form (data > paragraphs > qas): {error!r} behind question {number}",
            where=f"{problems.what}, {path}",
            fix="give it the form of SQuAD v1.1 or v2.0",
        ) from error


def find_line(path: Path, text: str) -> int:
    """Returns the line of a JSON file where a string stands, to name it in an error; 0 if it isn't there."""
    content = read_bytes(path)
    for quoted in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        position = content.find(quoted.encode("utf-8", "surrogatepass"))
        if position >= 0:
            return content.count(b"\n", 0, position) + 1
    return 0


def read_tagged(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row a sentence: ``words`` and ``tags`` (None where they are blanked).

    A line is ``token TAB tag``; an empty line ends a sentence. Where every token stands behind ``LL:``
    (WikiANN as released), that is cut off, at the first colon only: a token may itself be or hold a colon.
    """
    lines = list(read_lines(path, problems))
    prefix = f"{language}:"
    if not all(text.startswith(prefix) for _, text in lines if text.strip(" ")):
        prefix = ""
    tagged = any(text.rstrip(" ").partition("\t")[2] for _, text in lines)
    number = start = 0
    words: list[str] = []
    tags: list[str] = []
    sound = True
    for line, text in [*lines, (len(lines) + 1, "")]:
        if text.strip(" "):
            start = start or line
            word, _, tag = text.removeprefix(prefix).partition("\t")
            if sound and ("\t" in tag or (tagged and not tag)):
                problems.report(path, line, f"a word and its tag were expected: {text!r}")
                sound = False
            words.append(word)
            tags.append(tag.strip())
        elif words:
            if sound:
                yield Row(start, number, {"words": words, "tags": tags if tagged else None})
            number += 1
            words, tags, sound, start = [], [], True, 0


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
    """Yields one row a sentence of Universal Dependencies, as XTREME reads them.

    A multi-word token is one word, empty nodes go, spaces and U+200C are taken out of tokens, and a sentence
    whose text is withheld (its tokens are ``_``) goes.
    """
    precedence = _FUSED_PRECEDENCE_OF.get(language, _FUSED_PRECEDENCE).split()
    number = start = 0
    lines: list[list[str]] = []
    for line, text in [*read_lines(path, problems), (0, "")]:
        columns = text.split("\t")
        if text.startswith("#"):
            continue
        if text and len(columns) != 10:
            problems.report(path, line, f"10 columns were expected, {len(columns)} are there")
        elif text:
            start = start or line
            lines.append(columns)
        elif lines:
            try:
                words, tags = _fuse(lines, precedence)
            except (ValueError, KeyError, IndexError) as error:
                problems.report(path, start, f"the sentence's ids or heads are not CoNLL-U's: {error!r}")
            else:
                withheld = words.count("_")
                if not withheld or withheld < len(words) - 1:
                    yield Row(start, number, {"words": words, "tags": tags})
                    number += 1
            lines, start = [], 0


def _fuse(lines: Sequence[Sequence[str]], precedence: Sequence[str]) -> tuple[list[str], list[str]]:
    nodes = {int(columns[0]): columns for columns in lines if columns[0].isdecimal()}

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
