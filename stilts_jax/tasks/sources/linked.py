"""Reads LAReQA and Mewsli-X: questions and the sentences that answer them, mentions and the entities that they name."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.sources.documents import BadRow, read_object
from stilts_jax.tasks.sources.files import state_of
from stilts_jax.tasks.sources.readers import read_jsonl, read_squad
from stilts_jax.tasks.sources.retrieval import Gold, Paths, check_sentences
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.sources.sentences import check_spans, find_sentences, sentence_at
from stilts_jax.tasks.spec import EmbedExample, RetrievalSet, SpanExample

_read_span = span(stripped=True)


def _read_question(row: Row) -> SpanExample:
    question = _read_span(row, ())
    if not question.answers:
        raise BadRow("answers is empty: the question has no answer")
    return question


def _answer_text(sentence: str, paragraph: str) -> str:
    return (sentence + paragraph).replace("\n", "")


def answer_pair(row: Row, labels: tuple[str, ...]) -> EmbedExample | None:
    """Returns a question of SQuAD and the sentence with its answer; None where that stands between sentences."""
    question = _read_question(row)
    breaks = find_sentences(question.context)
    found = sentence_at(question.answers[0][1], breaks)
    if found is None:
        return None
    start, end = breaks[found]
    return EmbedExample(
        question.id, question.question, _answer_text(question.context[start:end], question.context)
    )


def build_answers(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """The questions of a language, and the sentences of all languages (LAReQA)."""
    queries, candidates, answers, skipped = _read_sentences(state_of(paths["candidates"]))
    problems.add_all(skipped)
    ours = queries.get(language, [])
    return RetrievalSet(ours, candidates, {query.id: answers[query.id.rpartition("_")[0]] for query in ours})


@functools.lru_cache(maxsize=1)  # every language has the same pool, the very same object
def _read_sentences(
    states: tuple[tuple[Path, int, int], ...],
) -> tuple[dict[str, list[EmbedExample]], list[EmbedExample], Gold, Problems]:
    """Returns queries by language, candidates, the right ones by question, and what was skipped."""
    problems = Problems.collecting("lareqa, test, all languages")
    queries: dict[str, list[EmbedExample]] = {}
    candidates: list[EmbedExample] = []
    answers: Gold = {}
    for path, _, _ in states:
        language = path.name.partition(".")[0]
        ours = queries[language] = []
        seen: set[str] = set()
        number, sentences = 0, []
        for row in read_squad(path, language, problems):
            with problems.skipping(path, row):
                question = _read_question(row)
                context, place, name = question.context, row.integer("paragraph"), question.id
                breaks = check_spans("sentence_breaks", row.pairs("sentence_breaks"), context)
                if place != number:
                    cut = [context[start:end] for start, end in breaks]
                    texts = [_answer_text(sentence, context) for sentence in cut]
                    ids = (f"{language}_{place}_{index}" for index in range(len(cut)))
                    candidates += check_sentences(map(EmbedExample, ids, texts))
                    number, sentences = place, cut
                if name in seen:
                    raise BadRow(f"the id {name!r} occurred before")
                seen.add(name)
                found = sentence_at(question.answers[0][1], breaks)
                if found is None:
                    raise BadRow(f"the answer of question {name!r} is in no sentence")
                ours += check_sentences([EmbedExample(f"{name}_{language}", question.question)])
                # A sentence that stands twice in its paragraph is right at both places.
                right = [index for index, sentence in enumerate(sentences) if sentence == sentences[found]]
                ids = (f"{language}_{number}_{index}" for index in right)
                answers[name] = (*answers.get(name, ()), *ids)
    return queries, candidates, answers, problems


def mention_pair(row: Row, labels: tuple[str, ...]) -> EmbedExample:
    """Returns a mention of Wikipedia in its sentence, and the description of its entity."""
    contextual = row.part("contextual_mention")
    mention = contextual.part("mention")
    text = _mention_text(contextual.part("context"), mention)
    return EmbedExample(mention.id("example_id"), text, _describe_entity(row.part("entity")))


def build_mentions(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """The mentions of a language, and all entities (Mewsli-X)."""
    queries: dict[str, EmbedExample] = {}
    gold: Gold = {}
    blank: list[tuple[Row, str]] = []
    (path,) = paths["queries"]
    for row in read_jsonl(path, language, problems):
        with problems.skipping(path, row):
            for mention in row.parts("mentions"):
                name = mention.id("example_id")
                if name in queries:
                    raise BadRow(f"the id {name!r} occurred before")
                (queries[name],) = check_sentences(
                    [EmbedExample(name, _mention_text(row.part("context"), mention))]
                )
                if mention.get("entity_id"):
                    gold[name] = (mention.id("entity_id"),)
                else:
                    blank.append(
                        (row, f"gold of the mention {name!r} is blank (entity_id), and others have it")
                    )
    if "gold" in paths:
        gold = _read_links(paths["gold"][0], queries, problems)
    else:
        for row, reason in blank if gold else ():
            problems.report(path, row.line, reason)
    entities, skipped = _read_entities(state_of(paths["candidates"]))
    problems.add_all(skipped)
    return RetrievalSet(list(queries.values()), entities, gold or None)


def _read_links(path: Path, queries: dict[str, EmbedExample], problems: Problems) -> Gold:
    labels = Row(1, 0, read_object(path))
    gold: Gold = {}
    for name in labels.fields:
        with problems.skipping(path, labels):
            right = labels.texts(name)
            if any(right):
                gold[name] = tuple(right)
    for name in sorted(queries.keys() - labels.fields.keys()) if gold else ():
        problems.report(path, 0, f"the mention {name!r} is missing")
    return gold


@functools.lru_cache(maxsize=1)  # every language has the same pool, the very same object
def _read_entities(states: tuple[tuple[Path, int, int], ...]) -> tuple[list[EmbedExample], Problems]:
    problems = Problems.collecting("mewslix, candidates")
    entities: list[EmbedExample] = []
    for path, _, _ in states:
        for row in read_jsonl(path, "", problems):
            with problems.skipping(path, row):
                entities += check_sentences([EmbedExample(row.id("entity_id"), _describe_entity(row))])
    return entities, problems


def _tidy(text: str) -> str:
    return " ".join(text.splitlines()).replace("  ", " ").strip()


def _read_spans(row: Row, text: str) -> Sequence[tuple[int, int]]:
    spans = [(span.integer("start"), span.integer("end")) for span in row.parts("sentence_spans")]
    return check_spans("sentence_spans", spans, text)


def _describe_entity(entity: Row) -> str:
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
