"""Makes examples of rows, for the row forms that several tasks share."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.rows import Row, describe
from stilts_jax.tasks.spec import EMPTY, ClassifyExample, SpanExample, TagExample

_MOST_SPACE = 100  # characters before a context that a conversion may have cut off
_BLANK = (None, "", "-1", -1, "hidden")


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
    text: str,
    pair: str = "",
    *,
    label: str = "label",
    labels: Sequence[str],
    id: str = "",
    renamed: Mapping[str, str] = EMPTY,
    dropped: Mapping[str, object] = EMPTY,
) -> Callable[[Row], ClassifyExample | None]:
    """Returns a converter for rows with one or two texts and a label.

    Args:
        text: column of the (first) text.
        pair: column of the second text.
        label: column of the label; it may be absent where gold is blanked.
        labels: the task's labels.
        id: column of the id; rows are numbered where there is none.
        renamed: other spellings of labels.
        dropped: values by column that mark a row which isn't part of the data.
    """

    def convert(row: Row) -> ClassifyExample | None:
        if any(row.get(column) == value for column, value in dropped.items()):
            return None
        index = pick_label(row, label, labels, renamed)
        second = row[pair] if pair else None
        return ClassifyExample(row.id(id) if id else str(row.number), row[text], second, index)

    return convert


def tag(
    labels: Sequence[str],
    *,
    words: str = "words",
    tags: str = "tags",
    unknown: str | None = None,
    renamed: Mapping[str, str] = EMPTY,
) -> Callable[[Row], TagExample]:
    """Returns a converter for rows of words and tags (None where they are blanked).

    Args:
        labels: the task's labels.
        words: column of the words.
        tags: column of the tags.
        unknown: the label that stands for tags which aren't among them; without it they are errors.
        renamed: other spellings of tags.
    """
    index_of = {label: index for index, label in enumerate(labels)}
    index_of |= {other: index_of[label] for other, label in renamed.items()}

    def convert(row: Row) -> TagExample:
        tokens = row.texts(words)
        if row.value(tags) is None:
            return TagExample(str(row.number), tuple(tokens))
        names = row.texts(tags)
        if len(tokens) != len(names):
            raise BadRow(f"{words} has {len(tokens)} entries, {tags} has {len(names)}")
        indices = tuple(index_of.get(name, -1) for name in names)
        if -1 in indices:
            if unknown is None:
                wrong = indices.index(-1)
                raise BadRow(
                    f"the tag {names[wrong]!r} of {tokens[wrong]!r} is none of the task's {len(labels)} tags"
                )
            if len(indices) > 1 and set(indices) == {-1}:
                raise BadRow(
                    f"no entry of {tags} is a tag: {describe(names[0])}; are words and tags swapped?"
                )
            indices = tuple(index_of[unknown] if index < 0 else index for index in indices)
        return TagExample(str(row.number), tuple(tokens), indices)

    return convert


def span(
    *, numbered: bool = False, unanswerable: bool = False, stripped: bool = False
) -> Callable[[Row], SpanExample]:
    """Returns a converter for SQuAD's questions.

    Args:
        numbered: puts the row's number before its id, where released ids are not unique.
        unanswerable: whether a question may have no answer (SQuAD 2.0).
        stripped: whether contexts may have lost the space before them, but offsets were left as they were:
            the hub's conversions did that. Then all offsets of a question are moved by the same few
            characters, if that mends them.
    """

    def convert(row: Row) -> SpanExample:
        question, context = row["question"], row["context"]
        spans = _read_answers(row)
        if stripped and not all(map(partial(_is_at, context), spans)):
            spans = _move(context, spans)
        for text, start in spans:
            if not context.startswith(text, start):
                raise BadRow(
                    f"question {row.id('id')!r}: the answer {describe(text)} is not at character {start} of the "
                    f"context, but {describe(context[start : start + len(text)])}"
                )
        impossible = unanswerable and (
            row.flag("is_impossible") if "is_impossible" in row.fields else not spans
        )
        if impossible and spans:
            raise BadRow("is_impossible is true, and answers are given")
        identifier = f"{row.number}-{row.id('id')}" if numbered else row.id("id")
        return SpanExample(identifier, question, context, tuple(spans), impossible)

    return convert


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


def share_of(text: str) -> float:
    """Returns a number in [0, 1) that depends on a text alone, to carve a split the same way everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48
