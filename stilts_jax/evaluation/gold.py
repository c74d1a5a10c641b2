"""Gold of examples and of retrieval sets, in the form that metrics take."""

from collections.abc import Sequence
from typing import Any

from stilts_jax.tasks.spec import UNKNOWN_LABEL, RetrievalSet, SpanExample, Task


def find_gold(task: Task, examples: Sequence[Any]) -> Any | None:
    """The gold of one language as the metric takes it; None where it is blanked (in part, too)."""
    if task.kind == "tag":
        if any(example.tags is None for example in examples):
            return None
        names = (*task.labels, UNKNOWN_LABEL)
        return [[names[tag] for tag in example.tags] for example in examples]
    if task.kind == "span":
        return _find_answers(examples)
    labels = [example.label for example in examples]
    return None if None in labels else labels


def _find_answers(examples: Sequence[SpanExample]) -> dict[str, list[str]] | None:
    gold = {example.id: [text for text, _ in example.answers] for example in examples}
    known = any(example.impossible or any(gold[example.id]) for example in examples)
    return gold if known or not examples else None


def retrieval_gold(task: Task, part: RetrievalSet) -> Any | None:
    """The gold of one language as the task's metric takes it; None where it is blanked."""
    if part.gold is None or task.retrieval == "ranking":
        return part.gold
    if task.retrieval == "mining":
        return {(query, right) for query, all_right in part.gold.items() for right in all_right}
    numbers = {candidate.id: number for number, candidate in enumerate(part.candidates)}
    return [numbers[part.gold[query.id][0]] if query.id in part.gold else -1 for query in part.queries]
