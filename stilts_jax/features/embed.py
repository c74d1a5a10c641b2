"""embed: ``<s> text </s>``, and the partner's where a dual encoder is trained."""

from collections.abc import Sequence

import numpy as np

from stilts_jax.features.ragged import join, tokenize
from stilts_jax.features.records import Ragged
from stilts_jax.features.settings import SINGLE_SPECIALS, Work
from stilts_jax.tasks.spec import EmbedExample
from stilts_jax.tokenization import CLS_ID, SEP_ID


def build_embed(examples: Sequence[EmbedExample], work: Work) -> dict[str, np.ndarray | Ragged]:
    """Column ``tokens``; in training also ``pair_tokens``.

    In training the text keeps ``max_query_length`` tokens and its partner ``max_length``; where texts are
    only embedded, each keeps ``max_length``. What is too long loses its end.
    """
    rows, settings = len(examples), work.settings
    texts = [example.text for example in examples]
    if not work.training:
        (first,) = tokenize(work.tokenizer, texts, advance=work.advance)
        tokens = join(CLS_ID, first.head(settings.max_length - SINGLE_SPECIALS), SEP_ID, rows=rows)
        return {"example": np.arange(rows), "tokens": tokens}
    for index, example in enumerate(examples):
        if example.positive is None:
            raise work.missing_gold(examples, index)
    first, second = tokenize(
        work.tokenizer, texts, [example.positive or "" for example in examples], advance=work.advance
    )
    first = first.head(max(settings.max_query_length - SINGLE_SPECIALS, 1))
    second = second.head(settings.max_length - SINGLE_SPECIALS)
    return {
        "example": np.arange(rows),
        "tokens": join(CLS_ID, first, SEP_ID, rows=rows),
        "pair_tokens": join(CLS_ID, second, SEP_ID, rows=rows),
    }
