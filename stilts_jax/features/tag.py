"""tag: each word tokenized alone; its tag stands on its first subword."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from stilts_jax.features.ragged import Segments, join
from stilts_jax.features.records import IGNORE, Ragged
from stilts_jax.features.settings import SINGLE_SPECIALS, Work
from stilts_jax.tasks.spec import TagExample
from stilts_jax.tokenization import CLS_ID, SEP_ID, UNK_ID

MAX_SUBWORDS = 100  # a longer "word" (a URL, a line of dashes) becomes one <unk>


def build_tag(examples: Sequence[TagExample], work: Work) -> dict[str, np.ndarray | Ragged]:
    """Columns ``tokens``, ``tags`` and ``word``, the latter two aligned with the tokens.

    A word without subwords, or with absurdly many, becomes one ``<unk>``, so that every word has exactly one
    first subword. A sentence that is too long goes on in the next row, at a word's border. Tags are IGNORE where
    gold is blanked.
    """
    counts = np.array([len(example.words) for example in examples], np.int64)
    budget = work.settings.max_length - SINGLE_SPECIALS
    words = _tokenize_words(examples, min(MAX_SUBWORDS, budget), work)
    # All words in reading order, laid end to end: a row is then one stretch of it.
    text = join(words, rows=len(words.lengths))
    word_starts, sentence_starts = text.offsets, np.concatenate([[0], np.cumsum(counts)])
    tags, word = (np.full(len(text.values), IGNORE, np.int32) for _ in range(2))
    gold = [example.tags or [IGNORE] * len(example.words) for example in examples]
    tags[word_starts[:-1]] = np.fromiter(chain.from_iterable(gold), np.int32, len(text))
    word[word_starts[:-1]] = np.arange(len(text)) - np.repeat(sentence_starts[:-1], counts)

    example, first_word, last_word = _cut_rows(word_starts, sentence_starts, budget)
    stretch = Segments(text.values, word_starts[first_word], word_starts[last_word] - word_starts[first_word])
    rows = len(example)
    return {
        "example": example,
        "tokens": join(CLS_ID, stretch, SEP_ID, rows=rows),
        "tags": join(IGNORE, stretch._replace(values=tags), IGNORE, rows=rows),
        "word": join(IGNORE, stretch._replace(values=word), IGNORE, rows=rows),
    }


def _tokenize_words(examples: Sequence[TagExample], limit: int, work: Work) -> Segments:
    """The subwords of each word, from 1 to ``limit`` of them."""
    (words,) = work.tokenize([word for example in examples for word in example.words])
    odd = (words.lengths == 0) | (words.lengths > limit)
    return Segments(
        np.append(words.values, np.int32(UNK_ID)),
        np.where(odd, len(words.values), words.starts),
        np.where(odd, 1, words.lengths),
    )


def _cut_rows(
    word_starts: np.ndarray, sentence_starts: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the example, first word and end word of each row of at most ``budget`` subwords."""
    first, last = sentence_starts[:-1], sentence_starts[1:]
    example = np.arange(len(first))
    long = np.flatnonzero(word_starts[last] - word_starts[first] > budget)
    pieces = []
    for sentence in long:
        begin, end = int(first[sentence]), int(last[sentence])
        while begin < end:
            # As many words as fit; one always does, because no word is longer than the budget.
            fitting = np.searchsorted(word_starts, word_starts[begin] + budget, side="right") - 1
            stop = min(int(fitting), end)
            pieces.append((sentence, begin, stop))
            begin = stop
    if not pieces:
        return example, first, last
    kept = np.delete(np.stack([example, first, last], axis=1), long, axis=0)
    rows = np.concatenate([kept, np.asarray(pieces, np.int64)])
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    return rows[:, 0], rows[:, 1], rows[:, 2]
