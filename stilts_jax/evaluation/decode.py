"""Turns what the device predicted for rows into predictions for examples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stilts_jax.errors import StiltsError
from stilts_jax.evaluation.metrics_qa import NullableAnswer
from stilts_jax.evaluation.predict import Rows
from stilts_jax.features.records import IGNORE, Features
from stilts_jax.tasks.spec import Kind, SpanExample, TagExample


def _by_example(values: np.ndarray, features: Features) -> np.ndarray:
    """Sorts one value per row by example; every example must have exactly one row."""
    example: Any = features.columns["example"]
    if len(example) != features.num_examples or len(np.unique(example)) != len(example):
        raise StiltsError(
            f"There are {len(example)} rows for {features.num_examples} examples; each needs exactly one."
        )
    ordered = np.empty_like(values)
    ordered[example] = values
    return ordered


def decode_labels(rows: Rows, features: Features, examples: Sequence[Any]) -> list[int]:
    """The index of each example's label, or of its choice."""
    return _by_example(rows["label"], features).tolist()


def decode_tags(rows: Rows, features: Features, examples: Sequence[TagExample]) -> list[tuple[int, ...]]:
    """The tag of each word of each example: that of its first subword, in whichever row of the example that is."""
    starts = np.zeros(len(examples) + 1, np.int64)
    np.cumsum([len(example.words) for example in examples], out=starts[1:])
    columns: Mapping[str, Any] = features.columns
    word = columns["word"]
    first_word = np.repeat(starts[columns["example"]], word.lengths)
    is_first = word.values != IGNORE
    tags = np.full(starts[-1], IGNORE, np.int32)
    tags[first_word[is_first] + word.values[is_first]] = rows["tags"][is_first]
    without = np.flatnonzero(tags == IGNORE)
    if len(without):
        index = int(np.searchsorted(starts, without[0], side="right")) - 1
        raise StiltsError(f"{len(without)} words got no tag.", where=f"the first is in {examples[index].id}")
    everything = tags.tolist()
    return [tuple(everything[begin:end]) for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist())]


def decode_spans(rows: Rows, features: Features, examples: Sequence[SpanExample]) -> list[NullableAnswer]:
    """The best answer of each example over its windows, cut out of the original context by character offsets.

    "No answer" scores the least that any window gives it.
    """
    first, last = features.columns["char_start"], features.columns["char_end"]
    best: list[tuple[float, str]] = [(-np.inf, "")] * len(examples)
    null = np.full(len(examples), np.inf)
    owners: Any = features.columns["example"]
    for row, example in enumerate(owners.tolist()):
        null[example] = min(null[example], float(rows["null"][row]))
        begins, ends = first[row], last[row]
        for start, end, score in zip(rows["starts"][row], rows["ends"][row], rows["scores"][row].tolist()):
            if score <= best[example][0]:
                break  # spans come best first; of equal scores the earlier window wins
            text = examples[example].context[begins[start] : ends[end]].strip()
            if text:
                best[example] = (score, text)
                break
    return [NullableAnswer(text, float(empty - score)) for (score, text), empty in zip(best, null.tolist())]


DECODERS: Mapping[Kind, Callable[[Rows, Features, Sequence[Any]], Any]] = {
    "classify": decode_labels,
    "choice": decode_labels,
    "tag": decode_tags,
    "span": decode_spans,
    "embed": lambda rows, features, examples: _by_example(rows["vectors"], features),
    # (sum of losses, sum of weights) of each row; a row holds several texts.
    "mlm": lambda rows, features, examples: list(zip(rows["loss"].tolist(), rows["weight"].tolist())),
}
