"""Rows of data files: values are checked where they are taken, and rows that can't be used are counted."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stilts_jax.errors import DataError
from stilts_jax.progress import counted
from stilts_jax.tasks.spec import EMPTY, ChoiceExample, Example, SpanExample, TagExample

_SHOWN = 5  # places that an error names when many rows are bad
_SKIP = "mend the file; a grid can skip and count rows like this: --config.data.skip_budget=N"
_IF_EMPTY = "fetch or copy it again, or remove it to leave this language out"
_LONGEST = 60  # characters of a value that an error shows
_BLANK = (None, "", "-1", -1, "hidden")  # labels that are not published
_TEXTS = {"id", "text", "pair", "prompt", "question", "context", "positive"}
_KINDS = {bool: "true or false", int: "a whole number from 0 on", list: "a list", dict: "an object"}
EVERY_ROW = 2**62  # the budget of a file that is read once and serves several languages
Opened = Iterator[tuple[Path, Iterator["Row"]]]  # files with their rows


class BadRow(Exception):
    """A row that can't be used; whoever reads the row knows its place."""


def read_bytes(path: Path) -> bytes:
    """Returns what a file holds, unzipped where its name ends in ``.gz``, without a byte order mark."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        what = f"the file can't be read: {getattr(error, 'strerror', None) or error}"
        fix = "name the right file, or fetch or copy it again"
        raise DataError(what, where=str(path), fix=fix) from error
    if b"\0" in content:  # disks leave runs of them where a file was not written to its end
        what = f"the file is damaged: it holds {content.count(0)} NUL bytes"
        line = content.count(b"\n", 0, content.index(0)) + 1
        raise DataError(what, where=f"{path}:{line}", fix="fetch or copy it again; text has to be in UTF-8")
    return content.removeprefix(b"\xef\xbb\xbf")


def parse_json(text: str) -> Any:
    """Returns what a JSON text says; raises ``BadRow``."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # absurdly long numbers and deep nesting too
        raise BadRow(f"this is not JSON that can be read: {error}") from error


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds."""
    content = read_bytes(path)
    try:
        return parse_json(content.decode())
    except UnicodeDecodeError as error:
        what, line = "this is not UTF-8", content.count(b"\n", 0, error.start) + 1
    except BadRow as error:
        what, line = str(error), getattr(error.__cause__, "lineno", 1)
    raise DataError(what, where=f"{path}:{line}", fix="fetch or copy it again")


def describe(value: object) -> str:
    """Returns what a value is, in a few words for an error."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | dict):
        return f"{_KINDS[type(value)]} of {len(value)}"
    shown = repr(value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."


def check_text(name: str, text: object, *, empty: bool = False) -> str:
    """Returns a text that can be tokenized and written (``empty`` allows blank ones), or raises ``BadRow``."""
    if type(text) is not str:
        raise BadRow(f"{name} is {describe(text)}, not a text")
    if not empty and not text.strip():
        raise BadRow(f"{name} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        what = "is not UTF-8" if 0xDC80 <= half < 0xDD00 else "holds half a character"  # see `read_lines`
        raise BadRow(f"{name} {what} (lone surrogate U+{half:04X}): {describe(text)}") from None
    if "\0" in text:
        raise BadRow(f"{name} holds a NUL")
    return text


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, or an object within a row; ``row[name]`` is a text that is not empty, or several joined."""

    line: int  # 1-based line in the file (of the first line, where a row has several); 0 in JSON documents
    number: int  # 0-based count of the rows before it
    fields: Mapping[str, Any]  # values by column, unchecked
    place: str = ""  # the names that lead to it in a JSON document, often one long line: ``data[4].qas[0]``
    within: str = ""  # the names that lead to an object within a row, for errors: ``question.choices[2].``
    strict: bool = False  # whether a column that is not there is always an error, never blanked gold

    @classmethod
    def document(cls, path: Path) -> "Row":
        """Returns the object of a whole JSON file."""
        content = read_json(path)
        if type(content) is not dict:
            fix = "compare it with the released file"
            raise DataError("this is not a JSON object", where=f"{path}:1", fix=fix)
        return cls(0, 0, content)

    def __getitem__(self, name: str | tuple[str, ...]) -> str:
        if isinstance(name, tuple):
            return " ".join(map(self.__getitem__, name))
        return check_text(self.within + name, self.value(name))

    def get(self, name: str) -> Any:
        """Returns a value unchecked, or None: only for what may be absent, and is checked afterwards."""
        for one in () if name in self.fields else self.fields:  # a damaged name is no column that is absent
            check_text("the name of a column", one, empty=True)
        return self.value(name) if self.strict else self.fields.get(name)

    def value(self, name: str) -> Any:
        """Returns a value unchecked."""
        try:
            return self.fields[name]
        except KeyError:
            there = ", ".join(map(repr, self.fields)) or "nothing"
            raise BadRow(f"there is no {self.within + name!r}, only {there}") from None

    def text(self, name: str) -> str:
        """Returns a text that may be empty."""
        return check_text(self.within + name, self.value(name), empty=True)

    def id(self, name: str | tuple[str, ...]) -> str:
        """Returns an id, which is a text or a whole number; the row's own number where no column is named."""
        if isinstance(name, tuple):
            return "-".join(map(self.id, name))
        value = self.value(name) if name else self.number
        return check_text(self.within + name, str(value) if type(value) is int else value)

    def label(self, name: str, labels: Sequence[str], renamed: Mapping[str, str] = EMPTY) -> int | None:
        """Returns the index of a label, perhaps ``renamed``; None where gold is blanked, or the column is not there."""
        value = self.get(name)
        spelled = str(value) if type(value) in (str, int) else ""
        try:  # first: a task may call a label as others spell what they hide
            return tuple(labels).index(renamed.get(spelled, spelled))
        except ValueError:
            if value in _BLANK:
                return None
            raise BadRow(f"{name} is {describe(value)}, and none of {', '.join(labels)}") from None

    def take(self, name: str, kind: type) -> Any:
        """Returns a value that is true or false (``bool``), a whole number from 0 on (``int``), or a list."""
        value = self.value(name)
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            raise BadRow(f"{self.within}{name} is {describe(value)}, not {_KINDS[kind]}")
        return value

    def texts(self, name: str, *, empty: bool = True) -> list[str]:
        """Returns a list of texts, which may be empty if ``empty`` says so."""
        items = self.take(name, list)
        for index, item in enumerate(items):
            if type(item) is not str or not (empty or item.strip()):
                check_text(f"{self.within}{name}[{index}]", item)
        check_text(self.within + name, "".join(items), empty=True)  # at once: there may be millions of words
        return items

    def split(self, name: str) -> list[str]:
        """Returns a list of texts, or the words of a text."""
        return self.text(name).split() if type(self.value(name)) is str else self.texts(name)

    def part(self, name: str) -> "Row":
        """Returns an object."""
        return self._inner(self.value(name), name)

    def parts(self, name: str) -> list["Row"]:
        """Returns a list of objects."""
        items = enumerate(self.take(name, list))
        return [self._inner(fields, f"{name}[{index}]") for index, fields in items]

    def _inner(self, fields: Any, name: str) -> "Row":
        if type(fields) is not dict:
            raise BadRow(f"{self.within}{name} is {describe(fields)}, not an object")
        place = f"{self.place}.{name}".removeprefix(".")
        return Row(self.line, self.number, fields, place, f"{self.within}{name}.", self.strict)

    def where(self, path: Path) -> str:
        """Returns where the row stands, for errors."""
        return f"{path}:{self.line}" if self.line else ", ".join(filter(None, (str(path), self.place)))


def check_example(example: Example) -> bool:
    """Returns whether an example has its gold; raises ``BadRow`` if it has too little to be what its kind is."""
    for name in (one for one in example.__slots__ if one in _TEXTS):
        text = getattr(example, name)
        if text is not None or name not in ("pair", "positive"):
            check_text(f"the {name}", text)
    gold = getattr(example, "label", 0) is not None
    match example:
        case ChoiceExample(choices=choices, label=label):
            if len(choices) < 2:
                raise BadRow(f"{len(choices)} choices are there, and a question needs two")
            if label is not None and not 0 <= label < len(choices):
                raise BadRow(f"the label {label} is none of the {len(choices)} choices")
        case TagExample(words=words, tags=tags):
            gold = tags is not None
            if not words:
                raise BadRow("the sentence has no words")
            # A word may be empty: UD and WikiANN have tokens of nothing but invisible characters.
            check_text("the sentence", "\n".join(words) or "_")
        case SpanExample(answers=answers, impossible=impossible):
            gold = bool(answers) or impossible
    return gold


@dataclass
class Problems:
    """Rows that can't be used: each raises, until as many as ``budget`` may be skipped."""

    what: str  # task, split and language that are read
    budget: int = 0  # how many rows may be skipped
    found: list[tuple[str, str]] = field(default_factory=list)  # what was skipped, as `add` takes it
    fix: str = _SKIP  # what to do about a row

    @property
    def skipped(self) -> tuple[str, ...]:
        """Place and reason of each row that was skipped."""
        return tuple(f"{place}: {message}" for place, message in self.found)

    def add(self, place: str, message: str) -> None:
        """Counts a row as skipped, or raises."""
        if not self.budget:
            raise self.refuse(place, message, self.fix)
        self.found.append((place, message))
        if len(self.found) > self.budget:
            what = f"{counted(len(self.found), 'row')} can't be used, and only {self.budget} may be skipped"
            where = "\n    ".join((f"{self.what}; the first:", *self.skipped[:_SHOWN]))
            raise DataError(what, where=where, fix="mend the file, or raise --config.data.skip_budget")

    def add_all(self, others: "Problems") -> None:
        """Counts what was skipped in a file that is read once for several languages."""
        for place, message in others.found:
            self.add(place, message)

    def refuse(self, place: object, message: str, fix: str = _IF_EMPTY) -> DataError:
        """Returns the error of a file that can't be used as a whole."""
        return DataError(message, where=f"{self.what}, {place}", fix=fix)

    @contextmanager
    def skipping(self, path: Path, row: Row) -> Iterator[None]:
        """What is done with ``row`` ends where it turns out to be bad."""
        try:
            yield
        except BadRow as error:
            self.add(row.where(path), str(error))
