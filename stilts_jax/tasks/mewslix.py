"""Mewsli-X: the entity of Wikidata that a text in one of eleven languages mentions, among a million.

Trained as a dual encoder on English Wikipedia: a mention in its sentence, and the entity's description.
Wikipedia's dev pairs select. Test mentions are news; candidates are described in many languages, one pool for
all.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stilts_jax.data.readers import BadRow, Problems, Row, read_json, read_jsonl
from stilts_jax.data.retrieval import state_of
from stilts_jax.data.sentences import sentence_at
from stilts_jax.tasks.spec import (
    EmbedExample,
    Files,
    Hyperparameters,
    Pools,
    RetrievalSet,
    Sources,
    Task,
    names,
)


def _tidy(text: str) -> str:
    return " ".join(text.splitlines()).replace("  ", " ").strip()


def _describe(entity: Mapping[str, Any]) -> str:
    spans = ((span["start"], span["end"]) for span in entity["sentence_spans"])
    return _tidy(" ".join(entity["description"][start:end] for start, end in spans))


def _mention_text(context: Mapping[str, Any], mention: Mapping[str, Any]) -> str:
    """Returns ``NAME: left { NAME } right`` with the one sentence that holds the mention."""
    span, text = mention["mention_span"], context["text"]
    start, end, name = span["start"], span["end"], span["text"]
    breaks: Sequence[tuple[int, int]] = [
        (sentence["start"], sentence["end"]) for sentence in context["sentence_spans"]
    ]
    found = sentence_at(start, breaks)
    if found is None or end > breaks[found][1]:
        raise BadRow(f"the mention {mention['example_id']} is not inside one sentence")
    if text[start:end] != name:
        raise BadRow(f"the mention {name!r} is not at characters {start} to {end}, but {text[start:end]!r}")
    # Braces of the text itself become round, so that only the mention stands in braces.
    left, right = (
        re.sub(r"\{(.*?)\}", r"(\1)", part)
        for part in (text[breaks[found][0] : start], text[end : breaks[found][1]])
    )
    return _tidy(f"{name}: {left} {{ {name} }} {right}")


def _pair(row: Row) -> EmbedExample:
    contextual = row["contextual_mention"]
    mention = contextual["mention"]
    return EmbedExample(
        mention["example_id"], _mention_text(contextual["context"], mention), _describe(row["entity"])
    )


def _build(paths: Mapping[str, tuple[Path, ...]], language: str, problems: Problems) -> RetrievalSet:
    queries: list[EmbedExample] = []
    gold: dict[str, tuple[str, ...]] = {}
    (path,) = paths["queries"]
    for row in read_jsonl(path, language, problems):
        for mention in row["mentions"]:
            try:
                queries.append(EmbedExample(mention["example_id"], _mention_text(row["context"], mention)))
            except BadRow as error:
                problems.report(path, row.line, str(error))
            if mention.get("entity_id"):
                gold[mention["example_id"]] = (mention["entity_id"],)
    if "labels" in paths:
        gold = {
            name: tuple(entities) for name, entities in read_json(paths["labels"][0]).items() if any(entities)
        }
    entities = _read_entities(state_of(paths["candidates"]), problems.budget)
    return RetrievalSet(queries, entities, gold or None)


@functools.lru_cache(maxsize=1)  # every language has the same pool, the very same object
def _read_entities(states: tuple[tuple[Path, int, int], ...], budget: int) -> list[EmbedExample]:
    problems = Problems("mewslix, candidates", budget)
    rows = (row for path, _, _ in states for row in read_jsonl(path, "", problems))
    return [EmbedExample(row["entity_id"], _describe(row.fields)) for row in rows]


def _roles(split: str) -> Mapping[str, str]:
    return {
        "queries": f"mewslix/wikinews_mentions/{split}-{{language}}.jsonl",
        "candidates": "mewslix/candidate_set_entities.jsonl",
        "labels": f"mewslix/wikinews_labels/{split}-{{language}}.json",
    }


TASK = Task(
    name="mewslix",
    version=1,
    kind="embed",
    group="retrieval",
    description="entities that news in 11 languages mention (Mewsli-X)",
    languages=names("ar de en es fa ja pl ro ta tr uk"),
    split_languages={"dev": ("en",)},
    metric="mrr",
    retrieval="ranking",
    shared_candidates=True,
    hyperparameters={
        "paper": Hyperparameters(batch_size=32, epochs=2, max_length=64),
        "xtreme": Hyperparameters(batch_size=32, epochs=2, max_length=64, warmup=0, weight_decay=0),
    },
    sources=Sources(
        files=(
            Files(
                paths={split: (f"mewslix/wikipedia_pairs-{split}.jsonl",) for split in ("train", "dev")},
                read=read_jsonl,
                convert=_pair,
            ),
        ),
        pools=(
            Pools(
                paths={"mentions_dev": _roles("dev"), "test": _roles("test")},
                build=_build,
                optional=("labels",),
            ),
        ),
    ),
)
