"""Mewsli-X: the entity of Wikidata that a text in one of eleven languages mentions, among a million.

Trained as a dual encoder on English Wikipedia: a mention in its sentence, and the entity's description.
Wikipedia's dev pairs select. Test mentions are news; candidates are described in many languages, one pool for
all.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stilts_jax.tasks.sources.documents import BadRow, read_object
from stilts_jax.tasks.sources.files import state_of
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.retrieval import check_sentences
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.sources.sentences import check_spans, sentence_at
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


def _read_spans(row: Row, text: str) -> Sequence[tuple[int, int]]:
    spans = [(span.integer("start"), span.integer("end")) for span in row.parts("sentence_spans")]
    return check_spans("sentence_spans", spans, text)


def _describe(entity: Row) -> str:
    description = entity["description"]
    return _tidy(" ".join(description[start:end] for start, end in _read_spans(entity, description)))


def _mention_text(context: Row, mention: Row) -> str:
    """Returns ``NAME: left { NAME } right`` with the one sentence that holds the mention."""
    span, text = mention.part("mention_span"), context["text"]
    start, end, name = span.integer("start"), span.integer("end"), span["text"]
    breaks = _read_spans(context, text)
    found = sentence_at(start, breaks)
    if found is None or end > breaks[found][1]:
        raise BadRow(f"the mention {mention.id('example_id')!r} is not inside one sentence")
    if text[start:end] != name:
        raise BadRow(f"the mention {name!r} is not at characters {start} to {end}, but {text[start:end]!r}")
    # Braces of the text itself become round, so that only the mention stands in braces.
    left, right = (
        re.sub(r"\{(.*?)\}", r"(\1)", part)
        for part in (text[breaks[found][0] : start], text[end : breaks[found][1]])
    )
    return _tidy(f"{name}: {left} {{ {name} }} {right}")


def _pair(row: Row) -> EmbedExample:
    contextual = row.part("contextual_mention")
    mention = contextual.part("mention")
    text = _mention_text(contextual.part("context"), mention)
    return EmbedExample(mention.id("example_id"), text, _describe(row.part("entity")))


def _build(paths: Mapping[str, tuple[Path, ...]], language: str, problems: Problems) -> RetrievalSet:
    queries: dict[str, EmbedExample] = {}
    gold: dict[str, tuple[str, ...]] = {}
    blank: list[tuple[Row, str]] = []
    (path,) = paths["queries"]
    for row in read_jsonl(path, language, problems):
        with problems.skipping(path, row):
            for mention in row.parts("mentions"):
                name = mention.id("example_id")
                if name in queries:
                    raise BadRow(f"the id {name!r} occurred before")
                text = _mention_text(row.part("context"), mention)
                (queries[name],) = check_sentences([EmbedExample(name, text)])
                if mention.get("entity_id"):
                    gold[name] = (mention.id("entity_id"),)
                else:
                    blank.append(
                        (row, f"gold of the mention {name!r} is blank (entity_id), and others have it")
                    )
    for row, reason in blank if gold and "labels" not in paths else ():
        problems.report(path, row.line, reason)
    if "labels" in paths:
        (path,) = paths["labels"]
        labels = Row(1, 0, read_object(path))
        gold = {}
        for name in labels.fields:
            with problems.skipping(path, labels):
                right = labels.texts(name)
                if any(right):
                    gold[name] = tuple(right)
        for name in sorted(queries.keys() - labels.fields.keys()) if gold else ():
            problems.report(path, 0, f"the mention {name!r} is missing")
    entities, skipped = _read_entities(state_of(paths["candidates"]), problems.budget)
    problems.found += skipped
    return RetrievalSet(list(queries.values()), entities, gold or None)


@functools.lru_cache(maxsize=1)  # every language has the same pool, the very same object
def _read_entities(
    states: tuple[tuple[Path, int, int], ...], budget: int
) -> tuple[list[EmbedExample], list[str]]:
    """Returns the entities, and what was skipped."""
    problems = Problems("mewslix, candidates", budget)
    entities: list[EmbedExample] = []
    for path, _, _ in states:
        for row in read_jsonl(path, "", problems):
            with problems.skipping(path, row):
                entities += check_sentences([EmbedExample(row.id("entity_id"), _describe(row))])
    return entities, problems.found


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
