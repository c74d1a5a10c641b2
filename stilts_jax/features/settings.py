"""What decides how texts become rows, and what the featurizers share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.features.records import IGNORE
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tokenization import Tokenizer

PAIR_SPECIALS = 4  # <s> A </s></s> B </s>
SINGLE_SPECIALS = 2  # <s> A </s>


@dataclass(frozen=True)
class FeatureSettings:
    """The settings of a task that change its rows; part of the cache's key.

    Attributes:
        max_length: tokens of a row at most, specials included.
        max_query_length: subwords kept of a question (span) or of the first text of a pair (embed).
        stride: subwords from the beginning of one window of a long context to that of the next (span).
    """

    max_length: int = 256
    max_query_length: int = 64
    stride: int = 128

    def __post_init__(self) -> None:
        if self.max_length < PAIR_SPECIALS + 2:
            raise ConfigError(
                f"max_length={self.max_length} leaves no room for two texts and special tokens",
                fix=f"set max_length to {PAIR_SPECIALS + 2} or more",
            )
        if self.max_query_length < 1 or self.stride < 1:
            raise ConfigError(
                f"max_query_length={self.max_query_length} and stride={self.stride} must be 1 or more"
            )


@dataclass(frozen=True)
class Work:
    """What a featurizer is given besides the examples.

    Attributes:
        training: rows must have gold; what only predictions need is left out.
        language_of: the language of an example by its index; for messages.
        advance: counts tokenized texts.
    """

    tokenizer: Tokenizer
    settings: FeatureSettings
    training: bool
    language_of: Callable[[int], str]
    advance: Callable[[int], object]
    progress: Progress = SILENT

    def read_labels(self, examples: Sequence[Any]) -> np.ndarray:
        """int32 [N]; IGNORE where gold is blanked, which is an error in training."""
        labels = np.fromiter(
            (IGNORE if example.label is None else example.label for example in examples),
            np.int32,
            len(examples),
        )
        if self.training and (labels == IGNORE).any():
            raise self.missing_gold(examples, int(np.argmax(labels == IGNORE)))
        return labels

    def missing_gold(self, examples: Sequence[Any], index: int) -> DataError:
        """The error for an example that can't be trained on."""
        return DataError(
            "an example to train on has no gold label",
            where=f"language {self.language_of(index)}, example {examples[index].id!r}",
            fix="train on a split whose labels are not blanked",
        )
