"""Rows of features as the padded arrays of one batch."""

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np

from stilts_jax.features.records import IGNORE, PAD_ID, Features, Ragged
from stilts_jax.tasks.spec import Kind

Arrays = dict[str, np.ndarray]


def pad(ragged: Ragged, rows: np.ndarray, length: int, fill: int) -> np.ndarray:
    """Returns int32 [B, length]: the sequences ``rows`` [B], filled up at the end."""
    starts = ragged.offsets[rows]
    sizes = ragged.offsets[rows + 1] - starts
    place = np.arange(length)
    inside = place < sizes[:, None]
    index = np.where(inside, starts[:, None] + place, 0)
    if not len(ragged.values):
        return np.full(index.shape, fill, np.int32)
    return np.where(inside, ragged.values[index], np.int32(fill))


def measure_rows(features: Features) -> np.ndarray:
    """int64 [N]: the tokens of each row; of its longest choice, and of the partner of a pair."""
    tokens = ragged(features, "tokens")
    if features.kind == "choice":
        return (
            np.maximum.reduceat(tokens.lengths, flat(features, "first_choice"))
            if len(features)
            else tokens.lengths
        )
    return ragged(features, "pair_tokens" if "pair_tokens" in features.columns else "tokens").lengths


def ragged(features: Features, name: str) -> Ragged:
    """A column of sequences."""
    return cast(Ragged, features.columns[name])


def flat(features: Features, name: str) -> np.ndarray:
    """A column of numbers."""
    return cast(np.ndarray, features.columns[name])


def _collate_classify(features: Features, rows: np.ndarray, length: int) -> Arrays:
    return {
        "tokens": pad(ragged(features, "tokens"), rows, length, PAD_ID),
        "label": flat(features, "label")[rows],
    }


def _collate_choice(features: Features, rows: np.ndarray, length: int) -> Arrays:
    counts = flat(features, "num_choices")
    number = np.arange(int(counts.max()))
    mask = number < counts[rows][:, None]
    # The first choice is repeated where one is missing: a softmax over nothing but padding is undefined.
    sequences = flat(features, "first_choice")[rows][:, None] + np.where(mask, number, 0)
    tokens = pad(ragged(features, "tokens"), sequences.reshape(-1), length, PAD_ID)
    return {
        "tokens": tokens.reshape(*sequences.shape, length),
        "choice_mask": mask,
        "label": flat(features, "label")[rows],
    }


def _collate_tag(features: Features, rows: np.ndarray, length: int) -> Arrays:
    return {
        "tokens": pad(ragged(features, "tokens"), rows, length, PAD_ID),
        "tags": pad(ragged(features, "tags"), rows, length, IGNORE),
    }


def _collate_span(features: Features, rows: np.ndarray, length: int) -> Arrays:
    arrays = {
        "tokens": pad(ragged(features, "tokens"), rows, length, PAD_ID),
        "start": flat(features, "start")[rows],
        "end": flat(features, "end")[rows],
    }
    if "max_context" in features.columns:
        arrays["context_mask"] = pad(ragged(features, "max_context"), rows, length, 0).astype(bool)
    return arrays


def _collate_embed(features: Features, rows: np.ndarray, length: int) -> Arrays:
    return {"tokens": pad(ragged(features, "tokens"), rows, length, PAD_ID)}


COLLATORS: Mapping[Kind, Callable[[Features, np.ndarray, int], Arrays]] = {
    "classify": _collate_classify,
    "choice": _collate_choice,
    "tag": _collate_tag,
    "span": _collate_span,
    "embed": _collate_embed,
}
