"""Makes examples of rows: a function for each kind of task, made of the names of its columns.

A converter is called with a row and the task's labels. It returns None for a row that is no part of the data.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.rows import Row, describe
from stilts_jax.tasks.spec import (
    EMPTY,
    UNKNOWN_LABEL,
    ChoiceExample,
    ClassifyExample,
    EmbedExample,
    SpanExample,
    TagExample,
)

Labels = tuple[str, ...]
_MOST_SPACE = 100  # characters before a context that a conversion may have cut off
_BLANK = (None, "", "-1", -1, "hidden")
_DIGITS = 9  # of the place of an answer
_WORD = re.compile(r"(?:\w|[\u0300-\u036f])+|[^\w\s]")  # combining marks are no letters of their own


def pick_label(row: Row, name: str, labels: Sequence[str], renamed: Mapping[str, str] = EMPTY) -> int | None:
    """Returns the index of a row's label; None where gold is blanked, or the column is not there."""
    value = row.get(name)
    if value in _BLANK:
        return None
    spelled = str(value) if type(value) in (str, int) else ""
    try:
        return tuple(labels).index(renamed.get(spelled, spelled))
    except ValueError:
        raise BadRow(f"{name} is {describe(value)}, and none of {', '.join(labels)}") from None


def classify(
    text: str | tuple[str, ...],
    pair: str = "",
    *,
    label: str = "label",
    id: str | tuple[str, ...] = "",
    renamed: Mapping[str, str] = EMPTY,
    dropped: Mapping[str, object] = EMPTY,
) -> Callable[[Row, Labels], ClassifyExample | None]:
    """Returns a converter for rows with one or two texts and a label.

    Args:
        text: column of the (first) text, or several, whose texts are joined by spaces.
        pair: column of the second text; empty if there is none.
        label: column of the label; it may be absent where gold is blanked.
        id: column of the id; rows are numbered where there is none.
        renamed: other spellings of labels.
        dropped: values by column that mark a row which isn't part of the data.
    """

    def convert(row: Row, labels: Labels) -> ClassifyExample | None:
        if any(row.get(column) == value for column, value in dropped.items()):
            return None
        index = pick_label(row, label, labels, renamed)
        return ClassifyExample(row.id(id), row.joined(text), row[pair] if pair else None, index)

    return convert


def choice(
    prompt: str | tuple[str, ...],
    choices: Sequence[str],
    *,
    label: str = "label",
    spelled: str | Sequence[str] = "0123456789",
    id: str | tuple[str, ...] = "",
) -> Callable[[Row, Labels], ChoiceExample]:
    """Returns a converter for rows with a prompt and a column for each choice.

    Args:
        prompt: its column, or several, whose texts are joined by spaces.
        choices: their columns.
        label: column that says which choice is right.
        spelled: how it says that: the name of the first choice, of the second, ...
        id: column of the id, or several; rows are numbered where there is none.
    """

    def convert(row: Row, labels: Labels) -> ChoiceExample:
        index = pick_label(row, label, spelled[: len(choices)])
        return ChoiceExample(row.id(id), row.joined(prompt), tuple(map(row.__getitem__, choices)), index)

    return convert


def tag(
    words: str = "words", tags: str = "tags", *, renamed: Mapping[str, str] = EMPTY
) -> Callable[[Row, Labels], TagExample]:
    """Returns a converter for rows of words and tags, which are lists or joined by spaces.

    Where ``UNKNOWN_LABEL`` is among the labels, it stands for all tags that are not.

    Args:
        words: column of the words.
        tags: column of the tags (None where they are blanked).
        renamed: other spellings of tags.
    """

    def convert(row: Row, labels: Labels) -> TagExample:
        tokens = _read_list(row, words)
        names = _read_list(row, tags) if row.get(tags) else None
        if names is not None and len(tokens) != len(names):
            raise BadRow(f"{words} has {len(tokens)} entries, {tags} has {len(names)}")
        return _tagged(str(row.number), tokens, names, labels, renamed)

    return convert


def tag_spans(
    text: str = "text",
    spans: str = "spans",
    *,
    start: str = "start",
    end: str = "end",
    label: str = "label",
    in_bytes: bool = False,
    id: str = "",
) -> Callable[[Row, Labels], TagExample]:
    """Returns a converter for texts with labelled spans: words are letters and digits, or one other character.

    The first word of a span is tagged ``B-LABEL``, the others ``I-LABEL``, all others ``O``.

    Args:
        text: column of the text.
        spans: column of the spans, a list of objects.
        start: their field for the place where a span begins, counted from 0 on.
        end: their field for the place behind its end.
        label: their field for its label.
        in_bytes: whether places count bytes of the text in UTF-8, not characters.
        id: column of the id; rows are numbered where there is none.
    """

    def convert(row: Row, labels: Labels) -> TagExample:
        content = row[text]
        places = [match.span() for match in _WORD.finditer(content)]
        names = ["O"] * len(places)
        blank = row.get(spans) is None
        for one in () if blank else row.parts(spans):
            first, last = one.integer(start), one.integer(end)
            if in_bytes:
                first, last = (
                    len(content.encode()[:place].decode(errors="replace")) for place in (first, last)
                )
            inside = [index for index, (left, right) in enumerate(places) if left < last and right > first]
            if not inside or last > len(content):
                raise BadRow(f"no words are at {one.integer(start)} to {one.integer(end)} of {text}")
            for index in inside:
                names[index] = f"{'B' if index == inside[0] else 'I'}-{one[label]}"
        words = [content[left:right] for left, right in places]
        return _tagged(row.id(id), words, None if blank else names, labels, EMPTY)

    return convert


def _tagged(
    name: str, words: list[str], tags: list[str] | None, labels: Labels, renamed: Mapping[str, str]
) -> TagExample:
    if tags is None:
        return TagExample(name, tuple(words))
    known = _index_labels(labels)
    tags = [renamed.get(one, one) for one in tags] if renamed else tags
    wrong = [place for place, one in enumerate(tags) if one not in known]
    if wrong and UNKNOWN_LABEL not in known:
        word, one = words[wrong[0]], tags[wrong[0]]
        raise BadRow(f"the tag {one!r} of {word!r} is none of the task's {len(labels)} tags")
    if len(wrong) == len(tags) > 1:
        raise BadRow(f"no entry of tags is a tag: {describe(tags[0])}; are words and tags swapped?")
    unknown = known.get(UNKNOWN_LABEL, -1)
    return TagExample(name, tuple(words), tuple(known.get(one, unknown) for one in tags))


@lru_cache(maxsize=4)
def _index_labels(labels: Labels) -> Mapping[str, int]:
    return {label: index for index, label in enumerate(labels)}


def _read_list(row: Row, name: str) -> list[str]:
    return row.text(name).split() if isinstance(row.value(name), str) else row.texts(name)


def span(
    question: str = "question",
    context: str = "context",
    *,
    answer: str = "answer",
    start: str = "answer_start",
    numbered: bool = False,
    unanswerable: bool = False,
    stripped: bool = False,
) -> Callable[[Row, Labels], SpanExample]:
    """Returns a converter for SQuAD's questions (``answers``), or for rows with one answer each.

    Args:
        question: column of the question.
        context: column of the context.
        answer: column of the answer's text, where there is no column ``answers``.
        start: column of the character of the context where that answer begins, from 0 on.
        numbered: puts the row's number before its id, where released ids are not unique.
        unanswerable: whether a question may have no answer (SQuAD 2.0).
        stripped: whether contexts may have lost the space before them, but offsets were left as they were:
            the hub's conversions did that. Then all offsets of a question are moved by the same few
            characters, if that mends them.
    """

    def convert(row: Row, labels: Labels) -> SpanExample:
        asked, passage = row[question], row[context]
        single = answer in row.fields and "answers" not in row.fields
        spans = _read_answer(row, answer, start) if single else _read_answers(row)
        if stripped and not all(map(partial(_is_at, passage), spans)):
            spans = _move(passage, spans)
        name = row.id("" if single and "id" not in row.fields else "id")
        for text, place in spans:
            if not passage.startswith(text, place):
                raise BadRow(
                    f"question {name!r}: the answer {describe(text)} is not at character {place} of the "
                    f"context, but {describe(passage[place : place + len(text)])}"
                )
        impossible = unanswerable and (
            row.flag("is_impossible") if "is_impossible" in row.fields else not spans
        )
        if impossible and spans:
            raise BadRow("is_impossible is true, and answers are given")
        return SpanExample(
            f"{row.number}-{name}" if numbered else name, asked, passage, tuple(spans), impossible
        )

    return convert


def _read_answer(row: Row, answer: str, start: str) -> list[tuple[str, int]]:
    """Returns the answer of a row that has one, or none where it is blank; its place may be digits."""
    text = row.get(answer)
    if text in (None, ""):
        return []
    place = row.id(start)
    if not place.isdecimal() or len(place) > _DIGITS:
        raise BadRow(f"{start} is {describe(place)}, not a number of characters")
    return [(row[answer], int(place))]


def _read_answers(row: Row) -> list[tuple[str, int]]:
    """Returns text and place of each answer; none where there are none, or XTREME has blanked them as ("", 0)."""
    if row.get("answers") is None:
        return []
    if type(row.value("answers")) is dict:  # the hub's form: lists by column
        columns = row.part("answers")
        texts, starts = columns.texts("text"), columns.integers("answer_start")
        if len(texts) != len(starts):
            raise BadRow(f"answers has {len(texts)} texts and {len(starts)} places")
    else:
        answers = row.parts("answers")
        texts = [answer.text("text") for answer in answers]
        starts = [answer.integer("answer_start") for answer in answers]
    if "" in texts and any(texts):
        raise BadRow("one of the answers is empty, and others are not")
    return [(text, start) for text, start in zip(texts, starts) if text]


def _is_at(context: str, answer: tuple[str, int]) -> bool:
    text, start = answer
    return start >= 0 and context.startswith(text, start)


def _move(context: str, spans: list[tuple[str, int]]) -> list[tuple[str, int]]:
    for distance in sorted(range(-_MOST_SPACE, _MOST_SPACE), key=abs):
        moved = [(text, start + distance) for text, start in spans]
        if all(map(partial(_is_at, context), moved)):
            return moved
    return spans


def pair(first: str, second: str) -> Callable[[Row, Labels], EmbedExample]:
    """Returns a converter for rows of a text and its partner, by which a dual encoder is trained."""

    def convert(row: Row, labels: Labels) -> EmbedExample:
        return EmbedExample(str(row.number), row[first], row[second])

    return convert


def share_of(text: str) -> float:
    """Returns a number in [0, 1) that depends on a text alone, to carve a split the same way everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48
