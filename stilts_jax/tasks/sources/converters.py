"""Makes examples of rows: a function for each kind of task, made of the names of its columns."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from stilts_jax.tasks import spec
from stilts_jax.tasks.sources.rows import BadRow, Row, describe

Labels = tuple[str, ...]
Columns = str | tuple[str, ...]
Converter = Callable[[Row, Labels], Any]  # returns None for a row that is no part of the data
_MOST_SPACE = 100  # characters before a context that a conversion may have cut off
# Vowel signs and other marks are no letters of their own, nor are the signs that join letters and part them.
_MARKS = "".join(filter(lambda sign: unicodedata.category(sign)[0] == "M", map(chr, range(0x300, 0x12000))))
_WORD = re.compile(rf"[\w{_MARKS}\u200c\u200d]+|[^\w\s]")


@lru_cache(maxsize=4)
def index_labels(labels: Labels) -> Mapping[str, int]:
    """Returns the index of each label."""
    return {label: index for index, label in enumerate(labels)}


def share_of(text: str) -> float:
    """Returns a number in [0, 1) that depends on a text alone, to carve a split the same way everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48


def classify(
    text: Columns,
    pair: str = "",
    *,
    label: str = "label",
    id: Columns = "",  # rows are numbered where there is none
    renamed: Mapping[str, str] = spec.EMPTY,  # other spellings of labels
    dropped: Mapping[str, object] = spec.EMPTY,  # values by column of rows that are no part of the data
) -> Converter:
    """Returns a converter for rows with one or two texts and a label, which may be absent where gold is blanked."""

    def convert(row: Row, labels: Labels) -> spec.ClassifyExample | None:
        if any(row.get(column) == value for column, value in dropped.items()):
            return None
        index = row.label(label, labels, renamed)
        return spec.ClassifyExample(row.id(id), row[text], row[pair] if pair else None, index)

    return convert


def choice(
    prompt: Columns,
    choices: Sequence[str],
    *,
    label: str = "label",
    spelled: str | Sequence[str] = "0123456789",
    id: Columns = "",
) -> Converter:
    """Returns a converter for rows with a prompt and a column for each choice; ``spelled`` is how labels name them."""

    def convert(row: Row, labels: Labels) -> spec.ChoiceExample:
        index = row.label(label, spelled[: len(choices)])
        return spec.ChoiceExample(row.id(id), row[prompt], tuple(map(row.__getitem__, choices)), index)

    return convert


def tag(words: str = "words", tags: str = "tags", *, renamed: Mapping[str, str] = spec.EMPTY) -> Converter:
    """Returns a converter for rows of words and tags, which are lists or joined by spaces; blanked tags are None.

    Where ``UNKNOWN_LABEL`` is among the labels, it stands for all tags that are not. ``renamed`` are other spellings.
    """

    def convert(row: Row, labels: Labels) -> spec.TagExample:
        tokens = row.split(words)
        names = [renamed.get(one, one) for one in row.split(tags)] if row.get(tags) else None
        if names is not None and len(tokens) != len(names):
            raise BadRow(f"{words} has {len(tokens)} entries, {tags} has {len(names)}")
        return _tagged(str(row.number), tokens, names, labels)

    return convert


def word_places(text: str) -> list[tuple[int, int]]:
    """Returns where the words of ``tag_spans`` begin and end."""
    return [match.span() for match in _WORD.finditer(text)]


def tag_spans(
    text: str = "text",
    spans: str = "spans",
    *,
    start: str = "start",  # this and the next two are fields of the objects that the column ``spans`` lists
    end: str = "end",  # the place behind it
    label: str = "label",  # its first word is tagged B-LABEL, its others I-LABEL, and words of no span O
    in_bytes: bool = False,  # places count bytes of UTF-8, not characters
    id: str = "",
) -> Converter:
    """Returns a converter for texts with labelled spans: words are letters and digits, or one other character."""

    def convert(row: Row, labels: Labels) -> spec.TagExample:
        content = row[text]
        places = word_places(content)
        names = ["O"] * len(places)
        blank = row.get(spans) is None
        for one in () if blank else row.parts(spans):
            begin, until = ends = one.take(start, int), one.take(end, int)
            if in_bytes:
                begin, until = (len(content.encode()[:place].decode(errors="replace")) for place in ends)
            inside = [index for index, (left, right) in enumerate(places) if left < until and right > begin]
            size = len(content.encode()) if in_bytes else len(content)
            if not inside or begin >= until or ends[1] > size:
                raise BadRow(f"no words are at {ends[0]} to {ends[1]} of {text}")
            for index in inside:
                names[index] = f"{'B' if index == inside[0] else 'I'}-{one[label]}"
        words = [content[left:right] for left, right in places]
        return _tagged(row.id(id), words, None if blank else names, labels)

    return convert


def _tagged(name: str, words: list[str], tags: list[str] | None, labels: Labels) -> spec.TagExample:
    if tags is None:
        return spec.TagExample(name, tuple(words))
    known = index_labels(labels)
    wrong = [place for place, one in enumerate(tags) if one not in known]
    if wrong and spec.UNKNOWN_LABEL not in known:
        word, one = words[wrong[0]], tags[wrong[0]]
        raise BadRow(f"the tag {one!r} of {word!r} is none of the task's {len(labels)} tags")
    if len(wrong) == len(tags) > 1:
        raise BadRow(f"no entry of tags is a tag: {describe(tags[0])}; are words and tags swapped?")
    unknown = known.get(spec.UNKNOWN_LABEL, -1)
    return spec.TagExample(name, tuple(words), tuple(known.get(one, unknown) for one in tags))


def span(
    question: str = "question",
    context: str = "context",
    *,
    answer: str = "answer",  # column of the answer's text, where there is no column ``answers``
    start: str = "answer_start",  # column of the character of the context where it begins, from 0 on
    numbered: bool = False,  # puts the row's number before its id, where released ids are not unique
    unanswerable: bool = False,  # a question may have no answer (SQuAD 2.0)
    # Contexts may have lost the space before them while offsets were left as they were (the hub's conversions). Then
    # all offsets of a question are moved by the same few characters, if that mends them.
    stripped: bool = False,
) -> Converter:
    """Returns a converter for SQuAD's questions (``answers``), or for rows with one ``answer`` each."""

    def convert(row: Row, labels: Labels) -> spec.SpanExample:
        asked, passage = row[question], row[context]
        spans = _read_answers(row, answer, start)
        if stripped and _find_astray(passage, spans):
            distances = sorted(range(-_MOST_SPACE, _MOST_SPACE), key=abs)
            moved = ([(text, place + distance) for text, place in spans] for distance in distances)
            spans = next((some for some in moved if not _find_astray(passage, some)), spans)
        # A table may lack ids, and a test set the answers.
        name = row.id("id" if {"id", "answers"} & row.fields.keys() else "")
        for text, place in _find_astray(passage, spans):
            there = describe(passage[place : place + len(text)])
            what = f"the answer {describe(text)} is not at character {place} of the context, but {there}"
            raise BadRow(f"question {name!r}: {what}")
        impossible = unanswerable and not spans
        if unanswerable and "is_impossible" in row.fields:
            impossible = row.take("is_impossible", bool)
        if impossible and spans:
            raise BadRow("is_impossible is true, and answers are given")
        name = f"{row.number}-{name}" if numbered else name
        return spec.SpanExample(name, asked, passage, tuple(spans), impossible)

    return convert


def _find_astray(context: str, spans: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(text, start) for text, start in spans if start < 0 or not context.startswith(text, start)]


def _read_answers(row: Row, answer: str, start: str) -> list[tuple[str, int]]:
    """Returns text and place of each answer; none where there are none, or XTREME has blanked them as ("", 0)."""
    single = answer in row.fields and "answers" not in row.fields
    given = row.get(answer if single else "answers")
    if given is None or (single and given == ""):
        return []
    if single:  # in a table its place is digits
        place = row.id(start)
        if not re.fullmatch(r"\d{1,9}", place):
            raise BadRow(f"{start} is {describe(place)}, not a number of characters")
        return [(row[answer], int(place))]
    if type(given) is dict:  # the hub's form: lists by column
        columns = [row.part("answers").take(name, list) for name in ("text", "answer_start")]
        if len(columns[0]) != len(columns[1]):
            raise BadRow(f"answers has {len(columns[0])} texts and {len(columns[1])} places")
        listed = [{"text": text, "answer_start": place} for text, place in zip(*columns)]
        row = replace(row, fields={"answers": listed})
    answers = [(one.text("text"), one.take("answer_start", int)) for one in row.parts("answers")]
    found = [(text, place) for text, place in answers if text]
    if 0 < len(found) < len(answers):
        raise BadRow("one of the answers is empty, and others are not")
    return found


def pair(first: str, second: str) -> Converter:
    """Returns a converter for rows of a text and its partner, by which a dual encoder is trained."""

    def convert(row: Row, labels: Labels) -> spec.EmbedExample:
        return spec.EmbedExample(str(row.number), row[first], row[second])

    return convert
