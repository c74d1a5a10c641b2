"""span: ``<s> question </s></s> window of the context </s>``, with each token's place in the context.

The character offsets that the tokenizer gives have three errors, which are corrected here. A lone ``▁`` claims the
first character of its word (in Chinese and Thai). Some tokenizers count the space before a word as a part of the
word. A combining mark that normalization merged into its letter, or dropped, belongs to no subword.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from stilts_jax.errors import ConfigError
from stilts_jax.features.records import IGNORE, Columns, Ragged, Segments, Work, count_up, find_unique, join
from stilts_jax.tasks.spec import SpanExample
from stilts_jax.tokenization import CLS_ID, SEP_ID, Tokenizer

_OFFSET = 3  # <s>, </s>, </s> stand before the context, beside the question, and one more </s> behind it
_JOINER = 0x200D  # shapes the letter before it (Malayalam, Sinhala), and is dropped by the tokenizer


def build_span(examples: Sequence[SpanExample], work: Work) -> Columns:
    """Columns ``tokens``, ``start``, ``end``; for predictions also ``char_start``, ``char_end``, ``max_context``.

    ``start`` and ``end`` point at ends of the first answer, at ``<s>`` where the window doesn't hold all of it.
    """
    settings = work.settings
    contexts, context_of = find_unique(example.context for example in examples)
    encoded = work.tokenizer.encode(contexts, characters=True, advance=work.advance)
    located, text_starts = locate(contexts, encoded, work.tokenizer)
    (query,) = work.tokenize([example.question for example in examples])
    query = query.head(settings.max_query_length)
    capacity = settings.max_length - _OFFSET - 1 - query.lengths
    if len(capacity) and capacity.min() < 1:
        longest, room = examples[int(capacity.argmin())], settings.max_length
        what = f"A question of {query.lengths.max()} tokens leaves no room for its context in {room} tokens."
        where = f"question {longest.id}: {longest.question[:60]!r}"
        raise ConfigError(what, where=where, fix="raise max_length (config.train.max_length)")
    lengths = np.diff(located.offsets)[context_of]
    windows = of, begins, sizes = plan_windows(lengths, capacity, settings.stride)
    query = query.pick(of)
    document = Segments(located.ids, located.offsets[context_of[of]] + begins, sizes)
    # Of the first answer the first token that ends behind its beginning, and the last that begins before its end.
    answers = [("", -1) if one.impossible or not one.answers else one.answers[0] for one in examples]
    begin = np.array([start for _, start in answers], np.int64)
    end = begin + np.array([len(text) for text, _ in answers], np.int64)
    base, before = text_starts[context_of], located.offsets[context_of]
    first = np.searchsorted(located.ends, base + begin, side="right") - before
    last = np.searchsorted(located.starts, base + end, side="left") - 1 - before
    found = (begin >= 0) & (last >= first)
    first, last = first[of] - begins, last[of] - begins
    inside = found[of] & (first >= 0) & (last < sizes)
    shift = query.lengths + _OFFSET
    columns: Columns = {
        "example": of,
        "tokens": join(CLS_ID, query, SEP_ID, SEP_ID, document, SEP_ID),
        "start": np.where(inside, first + shift, 0).astype(np.int32),
        "end": np.where(inside, last + shift, 0).astype(np.int32),
    }
    if work.training:
        return columns

    def lay_out(fill: int, values: Segments) -> Ragged:
        beside = query._replace(values=np.full_like(query.values, fill))
        return join(fill, beside, fill, fill, values, fill)

    text = np.repeat(text_starts[:-1], np.diff(located.offsets))
    columns["char_start"] = lay_out(IGNORE, document._replace(values=located.starts - text))
    columns["char_end"] = lay_out(IGNORE, document._replace(values=located.ends - text))
    best = Segments(find_max_context(windows, lengths), np.cumsum(sizes) - sizes, sizes)
    columns["max_context"] = lay_out(0, best)
    return columns


def locate(texts: Sequence[str], encoded: Any, tokenizer: Tokenizer) -> tuple[Any, np.ndarray]:
    """Corrects the character offsets of ``encoded``, which ``tokenizer`` made of ``texts``.

    They count from the beginning of all texts laid end to end; where each text begins [N + 1] is returned too. Neither
    ``starts`` nor ``ends`` ever decreases, so that places are found by bisection. No subword begins with a space, and
    every combining mark belongs to a subword; one without a character of its own ends where it starts.
    """
    text_starts = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)])
    characters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    space, mark = np.zeros((2, 0x110000), bool)  # is it a space; does it combine with the character before
    for code in np.flatnonzero(np.bincount(characters)):
        space[code] = chr(code).isspace()
        mark[code] = unicodedata.category(chr(code))[0] == "M" or code == _JOINER
    space, mark = space[characters], mark[characters]
    counts = np.diff(encoded.offsets)
    shift = np.repeat(text_starts[:-1], counts)

    # Spaces at the edges do not count.
    starts = np.minimum(_next_without(space)[encoded.starts + shift], encoded.ends + shift)
    after_solid = np.where(space, 0, np.arange(1, len(characters) + 1))
    after_solid = np.maximum.accumulate(np.concatenate([[0], after_solid]))
    ends = np.maximum(after_solid[encoded.ends + shift], starts)
    ends = np.where(encoded.ids == tokenizer.space_id, starts, ends)

    # Marks behind a subword that belong to no other are its own.
    limit = np.append(starts[1:], len(characters))
    last = encoded.offsets[1:][counts > 0] - 1
    limit[last] = text_starts[1:][counts > 0]
    after_marks = np.minimum(_next_without(mark)[ends], limit)
    ends = np.where(ends > starts, np.maximum(ends, after_marks), ends)
    # Normalization can reorder or split one character; bisection needs order all the same.
    starts, ends = np.maximum.accumulate(starts), np.maximum.accumulate(ends)
    return encoded._replace(starts=starts, ends=ends), text_starts


def _next_without(flags: np.ndarray) -> np.ndarray:
    """int64 [N + 1]: for each place the first one from there on where ``flags`` [N] is not set."""
    place = np.where(np.append(flags, False), len(flags), np.arange(len(flags) + 1))
    return np.minimum.accumulate(place[::-1])[::-1]


def plan_windows(lengths: np.ndarray, capacity: np.ndarray, stride: int) -> Sequence[np.ndarray]:
    """Covers documents of ``lengths`` [D] with windows of at most ``capacity`` [D] tokens, ``stride`` tokens apart."""
    step = np.minimum(stride, capacity)  # so that no token is left out; an empty document has an empty window
    counts = 1 + np.maximum(-(-(lengths - capacity) // step), 0)
    # Of each window, beside its first token and its length.
    document = np.repeat(np.arange(len(lengths)), counts)
    start = count_up(counts) * step[document]
    return document, start, np.minimum(capacity[document], lengths[document] - start)


def find_max_context(windows: Sequence[np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """Says in which window, and one only, each token of the documents has the most context: bool, window by window.

    The score is BERT's: the smaller of the tokens on its left and on its right, plus a hundredth of the window's
    length; the first window wins a tie.
    """
    document, start, length = windows
    window = np.repeat(np.arange(len(start)), length)
    size = length[window]
    left = count_up(length)
    # One number that orders by score, then by the earlier window; so that the maximum is unique.
    score = (100 * np.minimum(left, size - 1 - left) + size) * len(start) - window
    token = ((np.cumsum(lengths) - lengths)[document] + start)[window] + left
    best = np.full(int(lengths.sum()), np.iinfo(np.int64).min)
    np.maximum.at(best, token, score)
    return best[token] == score
