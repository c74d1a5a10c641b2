"""Makes examples of rows, for the row forms that several tasks share."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from stilts_jax.data.readers import BadRow, Row
from stilts_jax.tasks.spec import EMPTY, ClassifyExample, SpanExample, TagExample

_MOST_SPACE = 100  # characters before a context that a conversion may have cut off
_BLANK = (None, "", "-1", -1, "hidden")


def pick_label(value: object, labels: Sequence[str], renamed: Mapping[str, str]) -> int | None:
    """Returns the index of a label; None where gold is blanked."""
    if value in _BLANK:
        return None
    name = renamed.get(str(value), str(value))
    try:
        return labels.index(name)
    except ValueError:
        raise BadRow(f"the label {value!r} is none of {', '.join(labels)}") from None


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
        index = pick_label(row.get(label), labels, renamed)
        second = row[pair] if pair else None
        return ClassifyExample(str(row[id]) if id else str(row.number), row[text], second, index)

    return convert


def index_label(value: object, names: Sequence[str]) -> int | None:
    """Returns the index of the right choice by what the choices are called; None where gold is blanked."""
    return pick_label(value, list(names), EMPTY)


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
        tokens, names = row[words], row[tags]
        if names is None:
            return TagExample(str(row.number), tuple(tokens))
        if len(tokens) != len(names):
            raise BadRow(f"{len(tokens)} words have {len(names)} tags")
        indices = tuple(index_of.get(name, -1) for name in names)
        if -1 in indices:
            if unknown is None:
                wrong = indices.index(-1)
                raise BadRow(
                    f"the tag {names[wrong]!r} of {tokens[wrong]!r} is none of the task's {len(labels)} tags"
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
        answers = row.get("answers") or ()
        if isinstance(answers, Mapping):  # the hub's form: lists by column
            answers = [
                {"text": text, "answer_start": start}
                for text, start in zip(answers["text"], answers["answer_start"], strict=True)
            ]
        context = row["context"]
        # XTREME blanks gold as ("", 0).
        spans = [(answer["text"], answer["answer_start"]) for answer in answers if answer.get("text")]
        if stripped and not all(map(partial(_is_at, context), spans)):
            spans = _move(context, spans)
        for text, start in spans:
            if not _is_at(context, (text, start)):
                there = context[start : start + len(text)] if isinstance(start, int) else ""
                raise BadRow(
                    f"question {row['id']}: the answer {text!r} is not at character {start} of the context, "
                    f"but {there!r}"
                )
        impossible = unanswerable and bool(row.get("is_impossible", not spans))
        identifier = f"{row.number}-{row['id']}" if numbered else str(row["id"])
        return SpanExample(
            identifier, row["question"], context, () if impossible else tuple(spans), impossible
        )

    return convert


def _is_at(context: str, answer: tuple[str, int]) -> bool:
    text, start = answer
    return isinstance(start, int) and start >= 0 and context.startswith(text, start)


def _move(context: str, spans: list[tuple[str, int]]) -> list[tuple[str, int]]:
    for distance in sorted(range(-_MOST_SPACE, _MOST_SPACE), key=abs):
        moved = [(text, start + distance) for text, start in spans]
        if all(map(partial(_is_at, context), moved)):
            return moved
    return spans


def share_of(text: str) -> float:
    """Returns a number in [0, 1) that depends on a text alone, to carve a split the same way everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48
