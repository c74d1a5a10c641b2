"""From examples to rows of one kind: flat token columns with offsets.

Texts are tokenized in large batches on all cores, each distinct one once, and rows are put together by index
arithmetic; no Python loop runs over tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np

from stilts_jax.features.choice import build_choice
from stilts_jax.features.classify import build_classify
from stilts_jax.features.embed import build_embed
from stilts_jax.features.mlm import build_mlm
from stilts_jax.features.records import Features, Ragged
from stilts_jax.features.settings import FeatureSettings, Work
from stilts_jax.features.span import build_span
from stilts_jax.features.tag import build_tag
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.spec import Example, Kind
from stilts_jax.tokenization import Tokenizer

__all__ = ["FEATURE_VERSION", "FEATURIZERS", "FeatureSettings", "build_features"]

FEATURE_VERSION = 1  # raised when a featurizer changes rows; part of the cache's key

Columns = dict[str, np.ndarray | Ragged]
FEATURIZERS: Mapping[Kind, Callable[[Sequence[Any], Work], Columns]] = {
    "classify": build_classify,
    "choice": build_choice,
    "tag": build_tag,
    "span": build_span,
    "embed": build_embed,
    "mlm": build_mlm,
}


def build_features(
    kind: Kind,
    examples: Mapping[str, Sequence[Example]],
    tokenizer: Tokenizer,
    settings: FeatureSettings,
    *,
    training: bool,
    fingerprint: str = "",
    progress: Progress = SILENT,
) -> Features:
    """Tokenizes the examples of one split, all languages together.

    Args:
        examples: by language, in reading order.
        training: whether the rows will be trained on: then gold must be there, and columns that only
            predictions need are left out.
        fingerprint: what the features will carry.

    Raises:
        DataError: an example to train on has no gold.
    """
    languages = tuple(examples)
    everything = list(chain.from_iterable(examples.values()))
    language = np.repeat(
        np.arange(len(languages), dtype=np.int32), [len(examples[name]) for name in languages]
    )
    with progress.track(f"tokenizing {kind}", unit="texts") as bar:
        work = Work(
            tokenizer=tokenizer,
            settings=settings,
            training=training,
            language_of=lambda index: languages[language[index]],
            advance=bar.advance,
            progress=progress,
        )
        columns = FEATURIZERS[kind](everything, work)
    columns["language"] = language[cast(np.ndarray, columns["example"])]
    return Features(kind, columns, languages, len(everything), fingerprint)
