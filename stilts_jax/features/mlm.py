"""mlm: running text in chunks; ``batches.plan`` packs them into rows and masks them anew at every step."""

from collections.abc import Sequence

import numpy as np

from stilts_jax.features.ragged import Segments, join, tokenize
from stilts_jax.features.records import Ragged
from stilts_jax.features.settings import SINGLE_SPECIALS, Work
from stilts_jax.tasks.spec import TextExample
from stilts_jax.tokenization import CLS_ID, SEP_ID


def build_mlm(examples: Sequence[TextExample], work: Work) -> dict[str, np.ndarray | Ragged]:
    """Column ``tokens``: ``<s> chunk </s>`` of at most ``max_length``.

    A long line is cut into chunks of nearly equal length and loses nothing; an empty line gives no row.
    """
    (lines,) = tokenize(work.tokenizer, [example.text for example in examples], advance=work.advance)
    budget = work.settings.max_length - SINGLE_SPECIALS
    chunks = -(-lines.lengths // budget)
    example = np.repeat(np.arange(len(examples)), chunks)
    number = np.arange(chunks.sum()) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    total, parts = lines.lengths[example], chunks[example]
    begin, end = total * number // parts, total * (number + 1) // parts
    segments = Segments(lines.values, lines.starts[example] + begin, end - begin)
    return {"example": example, "tokens": join(CLS_ID, segments, SEP_ID, rows=len(example))}
