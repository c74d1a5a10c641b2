"""Fits a model's head to the task that it predicts: kinds must be equal, and labels are matched by their names."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stilts_jax.errors import ConfigError
from stilts_jax.model import HeadConfig
from stilts_jax.tasks.spec import Task

_SYNONYMS = {"contradictory": "contradiction", "entailed": "entailment"}
_NUMBERED = re.compile(r"LABEL_\d+", re.IGNORECASE)  # what transformers writes where nobody named the labels


def fit_head(
    task: Task, name: str, config: HeadConfig, params: Mapping[str, Any], labels: Sequence[str]
) -> Mapping[str, Any]:
    """Returns the head's parameters with its outputs in the order of the task's labels.

    Args:
        task: what the head shall predict.
        name: the head's name, for messages.
        config: what the head is.
        params: its parameters.
        labels: names of its outputs, the first output first; empty where they are not known.

    Raises:
        ConfigError: the head has other labels than the task, or is of another kind.
    """
    if config.kind != task.kind:
        raise ConfigError(
            f"The head {name!r} is of the kind {config.kind}; {task.name} needs one of the kind {task.kind}.",
            where="--head",
            fix=f"evaluate a model that was trained for {task.name}, or a task of the kind {config.kind}",
        )
    if task.kind not in ("classify", "tag"):
        return params
    order = match_labels(task, name, config.num_labels, labels)
    if order == list(range(len(order))):
        return params
    out = {"kernel": params["out"]["kernel"][:, order], "bias": params["out"]["bias"][order]}
    return {**params, "out": out}


def match_labels(task: Task, name: str, outputs: int, labels: Sequence[str]) -> list[int]:
    """Returns for each of the task's labels the number of the head's output that stands for it.

    Case does not count; ``LABEL_0``, ``LABEL_1`` and so on are no names.
    """
    known = bool(labels) and not all(_NUMBERED.fullmatch(label) for label in labels)
    both = (
        f"the head {name!r} has {', '.join(labels) if known else f'{outputs} outputs without names'}; "
        f"{task.name} has {', '.join(task.labels)}"
    )
    if outputs != len(task.labels) or (labels and len(labels) != outputs):
        raise ConfigError(
            f"The head has {outputs} labels, {task.name} has {len(task.labels)}.",
            where=both,
            fix=f"evaluate a model that was trained for {task.name}",
        )
    theirs, ours = ([_normalise(label) for label in each] for each in (labels, task.labels))
    if sorted(labels) == sorted(task.labels):  # equal as they stand: case may tell two of them apart
        theirs, ours = list(labels), list(task.labels)
    if not known or sorted(theirs) != sorted(ours) or len(set(ours)) < len(ours):
        what = "do not have the task's names" if known else "have no names"
        raise ConfigError(
            f"The head's labels {what}.",
            where=both,
            fix=f"say which label each output means, the first output first: --labels={','.join(task.labels)}",
        )
    return [theirs.index(label) for label in ours]


def _normalise(label: str) -> str:
    text = label.strip().casefold()
    return _SYNONYMS.get(text, text)
