"""span: ``<s> question </s></s> window of the context </s>``, with each token's place in the context."""

from collections.abc import Sequence

import numpy as np

from stilts_jax.errors import ConfigError
from stilts_jax.features.offsets import Located, locate
from stilts_jax.features.ragged import Segments, find_unique, join, select
from stilts_jax.features.records import IGNORE, Ragged
from stilts_jax.features.settings import PAIR_SPECIALS, Work
from stilts_jax.features.windows import find_max_context, plan_windows
from stilts_jax.tasks.spec import SpanExample
from stilts_jax.tokenization import CLS_ID, SEP_ID

DOCUMENT_OFFSET = 3  # <s>, </s>, </s> stand before the context, beside the question


def build_span(examples: Sequence[SpanExample], work: Work) -> dict[str, np.ndarray | Ragged]:
    """Columns ``tokens``, ``start``, ``end``; for predictions also ``char_start``, ``char_end``,
    ``max_context``.

    ``start`` and ``end`` point at the first and last token of the first answer, at ``<s>`` where the window
    doesn't hold all of it. Each distinct context is tokenized once for all its questions.
    """
    settings = work.settings
    contexts, context_of = find_unique(example.context for example in examples)
    encoded = work.tokenizer.encode(contexts, characters=True, advance=work.advance)
    located = locate(contexts, encoded, work.tokenizer)
    questions, question_of = find_unique(example.question for example in examples)
    query = select(work.tokenizer.encode(questions, advance=work.advance), question_of)
    query = query.head(settings.max_query_length)
    capacity = settings.max_length - PAIR_SPECIALS - query.lengths
    if len(capacity) and capacity.min() < 1:
        raise ConfigError(
            f"a question of {query.lengths.max()} tokens leaves no room in max_length={settings.max_length}",
            fix="lower max_query_length or raise max_length",
        )

    lengths = np.diff(located.offsets)[context_of]
    windows = plan_windows(lengths, capacity, settings.stride)
    rows = len(windows.document)
    query = Segments(query.values, query.starts[windows.document], query.lengths[windows.document])
    first_token = located.offsets[context_of[windows.document]] + windows.start
    document = Segments(located.ids, first_token, windows.length)
    answer_first, answer_last = _find_answers(examples, context_of, located, work)
    begin = answer_first[windows.document] - windows.start
    stop = answer_last[windows.document] - windows.start
    inside = (answer_first[windows.document] >= 0) & (begin >= 0) & (stop < windows.length)
    shift = query.lengths + DOCUMENT_OFFSET
    columns: dict[str, np.ndarray | Ragged] = {
        "example": windows.document,
        "tokens": join(CLS_ID, query, SEP_ID, SEP_ID, document, SEP_ID, rows=rows),
        "start": np.where(inside, begin + shift, 0).astype(np.int32),
        "end": np.where(inside, stop + shift, 0).astype(np.int32),
    }
    if work.training:
        return columns
    in_text = np.repeat(located.text_starts[:-1], np.diff(located.offsets))
    ignore = Segments(
        np.full(settings.max_query_length, IGNORE, np.int32), np.zeros(rows, np.int64), query.lengths
    )
    for name, places in (("char_start", located.starts), ("char_end", located.ends)):
        local = (places - in_text).astype(np.int32)
        columns[name] = join(
            IGNORE, ignore, IGNORE, IGNORE, document._replace(values=local), IGNORE, rows=rows
        )
    best = find_max_context(windows, lengths).astype(np.int32)
    seen = Segments(best, np.cumsum(windows.length) - windows.length, windows.length)
    nothing = ignore._replace(values=np.zeros_like(ignore.values))
    columns["max_context"] = join(0, nothing, 0, 0, seen, 0, rows=rows)
    return columns


def _find_answers(
    examples: Sequence[SpanExample], context_of: np.ndarray, located: Located, work: Work
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and last token of each example's first answer in its context; -1 if it has none."""
    begin = np.full(len(examples), -1, np.int64)
    end = begin.copy()
    for index, example in enumerate(examples):
        if example.answers and not example.impossible:
            text, start = example.answers[0]
            begin[index], end[index] = start, start + len(text)
        elif work.training and not example.impossible:
            raise work.missing_gold(examples, index)
    base = located.text_starts[context_of]
    # The first token that ends behind the answer's beginning, the last that begins before its end.
    first = np.searchsorted(located.ends, base + begin, side="right") - located.offsets[context_of]
    last = np.searchsorted(located.starts, base + end, side="left") - 1 - located.offsets[context_of]
    found = (begin >= 0) & (last >= first)
    return np.where(found, first, -1), np.where(found, last, -1)
