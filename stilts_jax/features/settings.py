"""What decides how texts become rows, and what the featurizers share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from stilts_jax.features.ragged import Segments, find_unique, select
from stilts_jax.settings import LENGTH, POSITIVE, Checked, Range
from stilts_jax.tokenization import Tokenizer

PAIR_SPECIALS = 4  # <s> A </s></s> B </s>
SINGLE_SPECIALS = 2  # <s> A </s>


@dataclass(frozen=True)
class FeatureSettings(Checked):
    """The settings of a task that change its rows; part of the cache's key.

    Attributes:
        max_length: tokens of a row at most, specials included.
        max_query_length: subwords kept of a question (span) or of the first text of a pair (embed).
        stride: subwords from the beginning of one window of a long context to that of the next (span).
    """

    group: ClassVar[str] = ""
    max_length: Annotated[int, Range(PAIR_SPECIALS + 2, int(LENGTH.high))] = 256
    max_query_length: Annotated[int, POSITIVE] = 64
    stride: Annotated[int, POSITIVE] = 128


@dataclass(frozen=True)
class Work:
    """What a featurizer is given besides the examples.

    Attributes:
        training: rows have gold; columns that only predictions need are left out.
        advance: counts tokenized texts.
        say: tells the user something.
    """

    tokenizer: Tokenizer
    settings: FeatureSettings
    training: bool
    advance: Callable[[int], object]
    say: Callable[[str], None]

    def tokenize(self, *columns: Sequence[str]) -> list[Segments]:
        """Tokenizes columns of texts; each distinct text once."""
        unique, inverse = find_unique(text for column in columns for text in column)
        encoded = self.tokenizer.encode(unique, advance=self.advance)
        borders = np.cumsum([len(column) for column in columns])[:-1]
        return [select(encoded, numbers) for numbers in np.split(inverse, borders)]
