"""From examples to rows of one kind: flat token columns with offsets.

Texts are tokenized in large batches on all cores, each distinct one once, and rows are put together by index
arithmetic; no Python loop runs over tokens. Tagging and question answering have files of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from stilts_jax.errors import DataError
from stilts_jax.features.ragged import Segments, join
from stilts_jax.features.records import IGNORE, Features, Ragged
from stilts_jax.features.settings import PAIR_SPECIALS, SINGLE_SPECIALS, FeatureSettings, Work
from stilts_jax.features.span import build_span
from stilts_jax.features.tag import build_tag
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.spec import Example, Kind
from stilts_jax.tokenization import CLS_ID, SEP_ID, Tokenizer

__all__ = ["FEATURE_VERSION", "FEATURIZERS", "FeatureSettings", "build_features"]

FEATURE_VERSION = 1  # raised when a featurizer changes rows; part of the cache's key

Columns = dict[str, np.ndarray | Ragged]


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
    if training:
        _check_gold(kind, examples)
    everything = list(chain.from_iterable(examples.values()))
    with progress.track(f"tokenizing {kind}", unit="texts") as bar:
        columns = FEATURIZERS[kind](
            everything, Work(tokenizer, settings, training, bar.advance, progress.say)
        )
    columns = {"example": np.arange(len(everything)), **columns}
    language = np.repeat(np.arange(len(examples), dtype=np.int32), [len(rows) for rows in examples.values()])
    columns["language"] = language[np.asarray(columns["example"])]
    return Features(kind, columns, tuple(examples), len(everything), fingerprint)


def _check_gold(kind: Kind, examples: Mapping[str, Sequence[Any]]) -> None:
    gold = {"tag": "tags", "embed": "positive", "mlm": "text"}.get(kind, "label")
    for language, rows in examples.items():
        for row in rows:
            if not (row.answers or row.impossible) if kind == "span" else getattr(row, gold) is None:
                raise DataError(
                    "an example to train on has no gold label",
                    where=f"language {language}, example {row.id!r}",
                    fix="train on a split whose labels are not blanked",
                )


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


def _build_classify(examples: Sequence[Any], work: Work) -> Columns:
    """Returns ``<s> A </s></s> B </s>``, or ``<s> A </s>`` where an example has one text; ``label``, and ``votes``."""
    rows, length = len(examples), work.settings.max_length
    paired = np.array([example.pair is not None for example in examples], bool)
    first, second = work.tokenize(
        [example.text for example in examples], [example.pair or "" for example in examples]
    )
    keep_first, keep_second = truncate_longest_first(first.lengths, second.lengths, length - PAIR_SPECIALS)
    keep_first = np.where(paired, keep_first, np.minimum(first.lengths, length - SINGLE_SPECIALS))
    separators = Segments(np.full(2, SEP_ID, np.int32), np.zeros(rows, np.int64), np.where(paired, 2, 0))
    tokens = join(CLS_ID, first.head(keep_first), separators, second.head(keep_second), SEP_ID, rows=rows)
    columns: Columns = {"tokens": tokens, "label": _labels(examples)}
    if work.training and any(example.votes for example in examples):
        columns["votes"] = Ragged.from_list([example.votes for example in examples])
    return columns


def _build_choice(examples: Sequence[Any], work: Work) -> Columns:
    """Returns ``<s> prompt </s></s> choice </s>`` for each choice, ``first_choice``, ``num_choices`` and ``label``.

    A prompt that is too long loses its beginning, and a choice stays whole. Only a choice that is longer than
    a whole row by itself loses its end; how many do is said.
    """
    counts = np.array([len(example.choices) for example in examples], np.int64)
    prompts, choices = work.tokenize(
        [example.prompt for example in examples], [one for example in examples for one in example.choices]
    )
    budget = work.settings.max_length - PAIR_SPECIALS
    if too_long := int((choices.lengths > budget).sum()):
        work.say(f"{too_long} choices are longer than max_length and lose their end")
    choices = choices.head(budget)
    prompts = prompts.pick(np.repeat(np.arange(len(counts)), counts)).tail(budget - choices.lengths)
    return {
        "tokens": join(CLS_ID, prompts, SEP_ID, SEP_ID, choices, SEP_ID, rows=len(choices.starts)),
        "first_choice": np.cumsum(counts) - counts,
        "num_choices": counts.astype(np.int32),
        "label": _labels(examples),
    }


def _build_embed(examples: Sequence[Any], work: Work) -> Columns:
    """Returns ``<s> text </s>``, and in training the partner's as ``pair_tokens``.

    In training the text keeps ``max_query_length`` tokens and its partner ``max_length``; where texts are
    only embedded, each keeps ``max_length``. What is too long loses its end.
    """
    rows, length = len(examples), work.settings.max_length - SINGLE_SPECIALS
    texts = [example.text for example in examples]
    if not work.training:
        (first,) = work.tokenize(texts)
        return {"tokens": join(CLS_ID, first.head(length), SEP_ID, rows=rows)}
    first, second = work.tokenize(texts, [example.positive for example in examples])
    first = first.head(max(work.settings.max_query_length - SINGLE_SPECIALS, 1))
    return {
        "tokens": join(CLS_ID, first, SEP_ID, rows=rows),
        "pair_tokens": join(CLS_ID, second.head(length), SEP_ID, rows=rows),
    }


def _build_mlm(examples: Sequence[Any], work: Work) -> Columns:
    """Returns ``<s> chunk </s>`` of at most ``max_length``; batches pack the chunks and mask them anew at every step.

    A long line is cut into chunks of nearly equal length and loses nothing; an empty line gives no row.
    """
    (lines,) = work.tokenize([example.text for example in examples])
    chunks = -(-lines.lengths // (work.settings.max_length - SINGLE_SPECIALS))
    example = np.repeat(np.arange(len(examples)), chunks)
    number = np.arange(chunks.sum()) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    total, parts = lines.lengths[example], chunks[example]
    begin, end = total * number // parts, total * (number + 1) // parts
    segments = Segments(lines.values, lines.starts[example] + begin, end - begin)
    return {"example": example, "tokens": join(CLS_ID, segments, SEP_ID, rows=len(example))}


def _labels(examples: Sequence[Any]) -> np.ndarray:
    """int32 [N]; IGNORE where gold is blanked."""
    return np.array([IGNORE if one.label is None else one.label for one in examples], np.int32)


FEATURIZERS: Mapping[Kind, Callable[[Sequence[Any], Work], Columns]] = {
    "classify": _build_classify,
    "choice": _build_choice,
    "tag": build_tag,
    "span": build_span,
    "embed": _build_embed,
    "mlm": _build_mlm,
}
