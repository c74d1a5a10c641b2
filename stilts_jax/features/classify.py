"""classify: ``<s> A </s></s> B </s>``, or ``<s> A </s>`` where an example has one text."""

from collections.abc import Sequence

import numpy as np

from stilts_jax.features.ragged import Segments, join, tokenize
from stilts_jax.features.records import Ragged
from stilts_jax.features.settings import PAIR_SPECIALS, SINGLE_SPECIALS, Work
from stilts_jax.tasks.spec import ClassifyExample
from stilts_jax.tokenization import CLS_ID, SEP_ID


def truncate_longest_first(
    first: np.ndarray, second: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lengths that two texts keep when the longer one loses its end, token by token.

    The closed form of ``tokenizers``: both keep half where both are longer than half; an odd token goes to the
    longer one, to the second if they are equal.

    Args:
        first: int64 [N] lengths; ``second`` likewise.
        budget: tokens that the two may have together.
    """
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    keep_shorter = np.minimum(shorter, np.maximum(budget // 2, budget - longer))
    keep_longer = np.minimum(longer, budget - keep_shorter)
    swap = first > second
    return np.where(swap, keep_longer, keep_shorter), np.where(swap, keep_shorter, keep_longer)


def build_classify(examples: Sequence[ClassifyExample], work: Work) -> dict[str, np.ndarray | Ragged]:
    """Columns ``tokens`` and ``label``."""
    rows = len(examples)
    paired = np.fromiter((example.pair is not None for example in examples), bool, rows)
    first, second = tokenize(
        work.tokenizer,
        [example.text for example in examples],
        [example.pair or "" for example in examples],
        advance=work.advance,
    )
    max_length = work.settings.max_length
    keep_first, keep_second = truncate_longest_first(
        first.lengths, second.lengths, max_length - PAIR_SPECIALS
    )
    keep_first = np.where(paired, keep_first, np.minimum(first.lengths, max_length - SINGLE_SPECIALS))
    separators = Segments(np.full(2, SEP_ID, np.int32), np.zeros(rows, np.int64), np.where(paired, 2, 0))
    tokens = join(CLS_ID, first.head(keep_first), separators, second.head(keep_second), SEP_ID, rows=rows)
    return {"example": np.arange(rows), "tokens": tokens, "label": work.read_labels(examples)}
