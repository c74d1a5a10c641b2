"""Rows of features as the padded arrays of one batch."""

from typing import Any

import numpy as np

from stilts_jax.features.records import IGNORE, PAD_ID, Features, Ragged, open_table

Arrays = dict[str, np.ndarray]
# What fills up the sequences of a column; a batch has the numbers of _NUMBERS as they are, and no other columns.
_FILL = {"tokens": PAD_ID, "pair_tokens": PAD_ID, "tags": IGNORE, "max_context": 0}
_VOTES = 10  # people who answered a question of VQA
_NUMBERS = ("label", "start", "end")


def pad(ragged: Ragged, rows: np.ndarray, length: int, fill: int) -> np.ndarray:
    """Returns int32 [B, length]: the sequences ``rows`` [B], filled up at the end."""
    starts, place = ragged.offsets[rows], np.arange(length)
    inside = place < (ragged.offsets[rows + 1] - starts)[:, None]
    padded = np.full(inside.shape, fill, np.int32)
    padded[inside] = ragged.values[(starts[:, None] + place)[inside]]
    return padded


def measure_rows(features: Features) -> np.ndarray:
    """int64 [N]: the tokens of each row; of its longest choice, and of the partner of a pair."""
    columns: Any = features.columns
    lengths = columns["pair_tokens" if "pair_tokens" in columns else "tokens"].lengths
    if features.kind == "choice" and len(features):
        return np.maximum.reduceat(lengths, columns["first_choice"])
    return lengths


def look_up(features: Features, rows: np.ndarray) -> Arrays:
    """Returns what is seen of the pictures of rows: ``visual`` [B, K, P, F] and ``visual_mask`` [B, K]."""
    if not features.pictures:
        return {}
    columns: Any = features.columns
    places = pad(columns["pictures"], rows, features.picture_shape[0], -1)
    return {"visual": open_table(features.pictures)[np.maximum(places, 0)], "visual_mask": places >= 0}


def collate(features: Features, rows: np.ndarray, length: int, query_length: int = 0) -> Arrays:
    """Returns the arrays of ``rows`` [B], padded to ``length``; ``tokens`` with partners to ``query_length``."""
    columns: Any = features.columns
    arrays = {name: columns[name][rows] for name in _NUMBERS if name in columns}
    if features.kind == "choice":
        counts = columns["num_choices"]
        number = np.arange(int(counts.max()))
        arrays["choice_mask"] = mask = number < counts[rows][:, None]
        # The first choice is repeated where one is missing: a softmax over nothing but padding is undefined.
        sequences = columns["first_choice"][rows][:, None] + np.where(mask, number, 0)
        tokens = pad(columns["tokens"], sequences.reshape(-1), length, PAD_ID)
        arrays["tokens"] = tokens.reshape(*sequences.shape, length)
        return arrays
    for name, fill in _FILL.items():
        if name in columns:
            short = query_length and name == "tokens"
            arrays[name] = pad(columns[name], rows, query_length if short else length, fill)
    if "votes" in columns:
        arrays["votes"] = pad(columns["votes"], rows, _VOTES, IGNORE)
    if "max_context" in arrays:
        arrays["context_mask"] = arrays.pop("max_context").astype(bool)
    return arrays | look_up(features, rows)
