"""Reads the formats that data sets are released in, and yields their rows with the line of each."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stilts_jax.progress import counted
from stilts_jax.tasks.sources.rows import BadRow, Problems, Row, describe, parse_json, read_bytes

Line = tuple[int, str]  # its number and its text
Records = list[tuple[int, list[str]]]  # cells with the line
csv.field_size_limit(2**31 - 1)  # a cell may hold a long document
# The quoting that XTREME's download writes and its readers leave in: "He said ""no"".". Bare quotes are none.
_QUOTED = re.compile('"((?:[^"]*"")+[^"]*)"')


def read_lines(path: Path, problems: Problems, *, ends: bool = False) -> Iterator[Line]:
    """Yields ``(line number, text)`` without line ends and byte order mark."""
    # `splitlines` would also cut at U+2028 and others inside a sentence.
    lines = read_bytes(path).split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        line = line if ends else line.removesuffix(b"\r")
        try:
            # Where bad rows may be skipped, a lone surrogate gets the whole row refused when it is checked, not a line
            # of a sentence, and later rows keep their numbers.
            yield number, line.decode(errors="surrogateescape" if problems.budget else "strict")
        except UnicodeDecodeError as error:
            what = f"byte {error.start + 1} of the line is not UTF-8: {line[:60]!r}"
            problems.add(f"{path}:{number}", what)


class Table:
    """Reads tab-separated values without quoting: XNLI and PAWS-X hold bare quotes."""

    def __init__(self, columns: Sequence[str] = (), *, optional: int = 0) -> None:
        # The first line names the columns if they are not given. So many of the last may be absent in a whole file.
        self._columns, self._optional = columns, optional

    def __call__(self, path: Path, language: str, problems: Problems) -> Iterator[Row]:
        lines = ((line, text.split("\t")) for line, text in read_lines(path, problems) if text)
        records = [(line, [*map(_unquote, values)]) for line, values in lines]
        names = self._columns or (records.pop(0)[1] if records else ())
        # The widest that may be: one row that has lost its label does not make a file of blanked labels.
        widths = [len(values) for _, values in records if 0 <= len(names) - len(values) <= self._optional]
        return _name_columns(path, problems, records, names[: max(widths, default=len(names))])


def _name_columns(path: Path, problems: Problems, records: Records, names: Sequence[str]) -> Iterator[Row]:
    if twice := next((name for name in names if name and names.count(name) > 1), ""):
        raise problems.refuse(path, f"several columns are called {twice!r}", "give each a name of its own")
    for number, (line, values) in enumerate(records):
        if len(values) == len(names):
            yield Row(line, number, dict(zip(names, values)))
        else:
            problems.add(f"{path}:{line}", f"{counted(len(names), 'column')} expected, {len(values)} found")


def _unquote(value: str) -> str:
    match = _QUOTED.fullmatch(value)
    return match[1].replace('""', '"') if match else value


def read_csv(path: Path, language: str, problems: Problems, delimiter: str = ",") -> Iterator[Row]:
    """Returns the rows of comma-separated values with quoting and a header."""
    content = io.StringIO("\n".join(text for _, text in read_lines(path, problems, ends=True)), newline="")
    reader = csv.reader(content, delimiter=delimiter, strict=True)
    records, line = [], 1
    try:
        for values in reader:
            if values:
                records.append((line, values))
            line = reader.line_num + 1
    except csv.Error as error:  # nobody can say where the next row begins
        fix = "look for a quote that is not closed, or closed too early"
        raise problems.refuse(f"{path}:{line}", f"this is not CSV: {error}", fix) from error
    return _name_columns(path, problems, records, records.pop(0)[1] if records else ())


def read_quoted(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Returns the rows of tab-separated values that are quoted as CSV is, with a header."""
    return read_csv(path, language, problems, "\t")


def read_jsonl(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row for each line, which is a JSON object."""
    filled = ((line, text) for line, text in read_lines(path, problems) if text.strip())
    for number, (line, text) in enumerate(filled):
        try:
            fields = parse_json(text)
            if type(fields) is not dict:
                raise BadRow(f"the line is {describe(fields)}, not a JSON object")
        except BadRow as error:
            problems.add(f"{path}:{line}", str(error))
        else:
            yield Row(line, number, fields)


def read_squad(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row for each question of SQuAD's form, with the fields of its paragraph and its number, from 1 on."""
    number = paragraph_number = 0
    try:
        for article in Row.document(path).parts("data"):
            for paragraph in article.parts("paragraphs"):
                paragraph_number += 1
                shared = {key: value for key, value in paragraph.fields.items() if key != "qas"}
                for question in paragraph.parts("qas"):
                    fields = {"paragraph": paragraph_number, **shared, **question.fields}
                    yield Row(0, number, fields, question.place)
                    number += 1
    except BadRow as error:
        what = f"this is not SQuAD's form (data > paragraphs > qas): {error}"
        raise problems.refuse(path, what, "give it the form of SQuAD v1.1 or v2.0") from error


def _sentences(lines: Iterable[Line], blank: str | None, *, comments: bool = False) -> Iterator[list[Line]]:
    """Yields the lines of each sentence; one ends at a line of nothing but ``blank`` (None: any space)."""
    sentence = []
    for line, text in [*lines, (0, "")]:
        if comments and text.startswith("#"):
            continue
        if text.strip(blank):
            sentence.append((line, text))
        elif sentence:
            yield sentence
            sentence = []


def read_tagged(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row for each sentence of lines ``token TAB tag``: ``words``, and ``tags`` (None where blanked)."""
    lines = list(read_lines(path, problems))
    filled = [(line, text) for line, text in lines if text.strip(" ")]
    prefix = f"{language}:"  # WikiANN as released; a token may itself be or hold a colon
    if sum(text.startswith(prefix) for _, text in filled) <= len(filled) / 2:
        prefix = ""  # a token may happen to begin like that
    tagged = any(text.rstrip(" ").partition("\t")[2] for _, text in filled)
    if filled and not tagged and all(" " in text.strip(" ") for _, text in filled):
        what = "words and tags are separated by spaces, where a tab was expected"
        raise problems.refuse(f"{path}:{filled[0][0]}", what, "put a tab between a word and its tag")
    for number, sentence in enumerate(_sentences(lines, " ")):
        words, _, tags = zip(*(text.removeprefix(prefix).partition("\t") for _, text in sentence))
        for (line, text), tag in zip(sentence, tags):
            if "\t" in tag or (tagged and not tag) or not text.startswith(prefix):
                what = f"{prefix}a word and its tag were expected, not {describe(text)}"
                problems.add(f"{path}:{line}", what)
                break
        else:
            found = [tag.strip() for tag in tags] if tagged else None
            yield Row(sentence[0][0], number, {"words": list(words), "tags": found})


class Columns:
    """Reads sentences with a word and its tag in columns of each line; a first column that is no word numbers them."""

    def __init__(self, *, word: int = 0, tag: int = 1, separator: str = "\t", comments: bool = False) -> None:
        self._word, self._tag, self._separator, self._comments = word, tag, separator, comments

    def __call__(self, path: Path, language: str, problems: Problems) -> Iterator[Row]:
        sentences = _sentences(read_lines(path, problems), None, comments=self._comments)
        for number, sentence in enumerate(sentences):
            rows = [text.split(self._separator) for _, text in sentence]
            for (line, text), columns in zip(sentence, rows):
                numbered = not self._word or _WORD_NUMBER.fullmatch(columns[0])
                if not numbered or len(columns) <= max(self._word, self._tag):
                    problems.add(f"{path}:{line}", f"a word and its tag were expected, not {describe(text)}")
                    break
            else:
                words, tags = ([columns[place] for columns in rows] for place in (self._word, self._tag))
                yield Row(sentence[0][0], number, {"words": words, "tags": tags})


# XTREME's conversion gives a fused token (French "du") the tag of that of its words which stands highest in the tree;
# of several equally high, the one that comes first here, where "" is all other languages.
_FUSED_PRECEDENCE = {
    "": "VERB NOUN PROPN PRON ADJ NUM ADV INTJ AUX ADP DET PART CCONJ SCONJ X PUNCT",
    "es": "VERB AUX PRON ADP DET",
    "fr": "VERB AUX PRON NOUN ADJ ADV ADP DET PART SCONJ CONJ",
    "it": "VERB AUX ADV PRON ADP DET INTJ",
}
_NOT_IN_TOKENS = re.compile(r"[\s\u200c]")
_WORD_NUMBER = re.compile(r"\d+([-.]\d+)?")


def read_conllu(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields one row for each sentence of Universal Dependencies, as XTREME reads them: fused words are one."""
    precedence = _FUSED_PRECEDENCE.get(language, _FUSED_PRECEDENCE[""]).split()
    left_out = 0
    for number, sentence in enumerate(_sentences(read_lines(path, problems), "", comments=True)):
        rows = [(line, text.split("\t")) for line, text in sentence]
        if bad := [(line, len(columns)) for line, columns in rows if len(columns) != 10]:
            problems.add(f"{path}:{bad[0][0]}", f"10 columns expected, {bad[0][1]} found")
            continue
        try:
            words, tags = _fuse([columns for _, columns in rows], precedence)
        except (ValueError, KeyError, IndexError):
            problems.add(f"{path}:{sentence[0][0]}", "the ids or heads of the sentence are not CoNLL-U's")
            continue
        withheld = words.count("_")  # of all of them: the treebank's text is not free
        if withheld and withheld >= len(words) - 1:
            left_out += 1
        else:
            yield Row(sentence[0][0], number - left_out, {"words": words, "tags": tags})


def _fuse(lines: Sequence[Sequence[str]], precedence: Sequence[str]) -> tuple[list[str], list[str]]:
    numbered = [columns for columns in lines if columns[0].isdecimal()]
    nodes = {int(columns[0]): columns for columns in numbered}
    if list(nodes) != list(range(1, len(numbered) + 1)):
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
