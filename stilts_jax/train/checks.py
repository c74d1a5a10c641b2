"""Looks at batches on the host: on a device a wrong number is no error, but a loss that is not finite."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stilts_jax.errors import TrainingError


def check_tokens(tokens: np.ndarray, rows: int, where: str = "tokens") -> None:
    """Raises at ids that a word table of so many rows lacks."""
    _check_range(
        tokens, 0, rows, where, "token ids", "tokenize with the tokenizer that came with this encoder"
    )


def check_batch(batch: Mapping[str, Any], params: Mapping[str, Any], head: str) -> None:
    """Raises at token ids that the encoder lacks and at labels that the head lacks.

    Args:
        batch: arrays of the host; those that lie on a device are not looked at.
        params: ``{"encoder", "heads"}``.
        head: which head the batch is for.
    """
    arrays = {name: array for name, array in batch.items() if isinstance(array, np.ndarray)}
    table = params["encoder"]["embeddings"]["word"].shape[0]
    for name in ("tokens", "pair_tokens"):
        if name in arrays:
            check_tokens(arrays[name], table, name)
    out = params["heads"].get(head, {}).get("out", {}).get("kernel")
    for name in ("label", "tags") if out is not None else ():
        if name in arrays:
            # A choice is one of its row's; the head itself has a single output.
            is_choice = name == "label" and "choice_mask" in arrays
            count = arrays["choice_mask"].shape[1] if is_choice else out.shape[-1]
            fix = "labels are numbered from 0; -1 is a place that is not scored"
            _check_range(arrays[name], -1, count, f"{name}, head {head!r}", "labels", fix)


def _check_range(array: np.ndarray, low: int, high: int, where: str, what: str, fix: str) -> None:
    if array.size and not low <= array.min() <= array.max() < high:
        strange = np.argwhere((array < low) | (array >= high))[0]
        raise TrainingError(
            f"There are {what} from {array.min()} to {array.max()}; they must be from {low} to {high - 1}.",
            where=f"{where}, first at {', '.join(map(str, strange))}",
            fix=fix,
        )
