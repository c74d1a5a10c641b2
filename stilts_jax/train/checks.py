"""Looks at batches: at names and shapes while a step is traced, at numbers on the host.

On a device a wrong number is no error, but a loss that is not finite.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from stilts_jax.errors import TrainingError

# What a batch of each kind holds, besides `weight` [B], and how it is shaped: B rows, C choices, T tokens, M masked
# places. A letter stands for the same size throughout.
ENTRIES = {
    "classify": {"tokens": "BT", "label": "B"},
    "choice": {"tokens": "BCT", "choice_mask": "BC", "label": "B"},
    "tag": {"tokens": "BT", "tags": "BT"},
    "span": {"tokens": "BT", "start": "B", "end": "B"},
    "embed": {"tokens": "BT", "pair_tokens": "BU"},
    "mlm": {
        "tokens": "BT",
        "segments": "BT",
        "positions": "BT",
        "masked_positions": "BM",
        "masked_targets": "BM",
        "masked_weights": "BM",
    },
}


def complete_batch(batch: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """Returns a batch with a ``weight`` of ones where it has none; raises at entries that are missing or ill-shaped.

    Only shapes are looked at, so that a jitted step pays for it once, when it is traced.

    Args:
        batch: arrays.
        kind: of the task.
        where: what the batch is for, for messages.
    """
    wanted = ENTRIES[kind]
    has = ", ".join(f"{name} {jnp.shape(array)}" for name, array in sorted(batch.items())) or "nothing"
    missing = [name for name in wanted if name not in batch]
    if missing:
        needs = ", ".join(f"{name} [{', '.join(letters)}]" for name, letters in wanted.items())
        raise TrainingError(
            f"The batch lacks {', '.join(missing)}; it has {has}.",
            where=where,
            fix=f"a {kind} batch needs {needs}; weight [B] may be left out",
        )
    sizes: dict[str, int] = {}
    rows = jnp.shape(batch["tokens"])[:1]
    complete = {"weight": jnp.ones(rows, jnp.float32), **batch}
    for name, letters in {**wanted, "weight": "B"}.items():
        shape = jnp.shape(complete[name])
        fits = len(shape) == len(letters)
        if not fits or any(sizes.setdefault(letter, size) != size for letter, size in zip(letters, shape)):
            known = ", ".join(f"{letter}={size}" for letter, size in sizes.items())
            raise TrainingError(
                f"{name} has the shape {shape}, it must be [{', '.join(letters)}]"
                f"{f' with {known}' if known else ''}.",
                where=where,
                fix=f"the batch has {has}",
            )
    return complete


def check_tokens(tokens: np.ndarray, rows: int, where: str = "tokens") -> None:
    """Raises at ids that a word table of so many rows lacks."""
    fix = "tokenize with the tokenizer that came with this encoder"
    _check_range(tokens, 0, rows, where, "token ids", fix)


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
