"""Reads the files of retrieval evaluations."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from stilts_jax.errors import DataError
from stilts_jax.tasks.sources.checks import check_example
from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.readers import read_lines
from stilts_jax.tasks.sources.rows import Problems
from stilts_jax.tasks.spec import EmbedExample


def read_sentences(path: Path, language: str, problems: Problems) -> list[EmbedExample]:
    """Returns a sentence for each line; ids are ``LL-LINE``, counted from 0.

    A line that can't be used is never skipped: gold counts lines.
    """
    whole = Problems(problems.what)
    sentences = [EmbedExample(f"{language}-{line - 1}", text) for line, text in read_lines(path, whole)]
    for line, sentence in enumerate(sentences, start=1):
        _check(sentence, path, line, whole)
    return _refuse_empty(sentences, path, problems)


def _refuse_empty(sentences: list[EmbedExample], path: Path, problems: Problems) -> list[EmbedExample]:
    if not sentences:
        raise DataError(
            "the file is empty: it has no sentences",
            where=f"{problems.what}, {path}",
            fix="fetch or copy it again, or remove it to leave this language out",
        )
    return sentences


def check_sentences(sentences: Iterable[EmbedExample]) -> list[EmbedExample]:
    """Returns the sentences; raises ``BadRow`` if one can't be used."""
    found = list(sentences)
    for sentence in found:
        check_example(sentence)
    return found


def read_identified(path: Path, problems: Problems) -> list[EmbedExample]:
    """Returns sentences of lines ``id TAB sentence``."""
    found: dict[str, EmbedExample] = {}
    for line, text in read_lines(path, problems):
        name, tab, sentence = text.partition("\t")
        if not tab:
            problems.report(path, line, f"an id, a tab and a sentence were expected: {text!r}")
        elif name in found:
            problems.report(path, line, f"the id {name!r} occurred before")
        elif _check(EmbedExample(name, sentence), path, line, problems):
            found[name] = EmbedExample(name, sentence)
    return _refuse_empty(list(found.values()), path, problems)


def _check(sentence: EmbedExample, path: Path, line: int, problems: Problems) -> bool:
    try:
        check_example(sentence)
    except BadRow as error:
        problems.report(path, line, str(error))
        return False
    return True


def read_numbered(
    path: Path, queries: Sequence[EmbedExample], candidates: Sequence[EmbedExample], problems: Problems
) -> dict[str, tuple[str, ...]]:
    """Returns gold of a file with the 0-based line of each query's candidate."""
    lines = list(read_lines(path, problems))
    if len(lines) != len(queries):
        raise DataError(
            f"there are {len(queries)} queries, and gold for {len(lines)}",
            where=f"{problems.what}, {path}",
            fix="get queries and gold of the same release",
        )
    gold: dict[str, tuple[str, ...]] = {}
    numbers = {str(number): (candidate.id,) for number, candidate in enumerate(candidates)}
    whole = Problems(problems.what)  # a query without gold would count as wrong
    for (line, text), query in zip(lines, queries):
        if text.strip() not in numbers:
            whole.report(path, line, f"{text!r} is no line of the {len(candidates)} candidates (from 0 on)")
        gold[query.id] = numbers[text.strip()]
    return gold


def read_pairs(
    path: Path, queries: Sequence[EmbedExample], candidates: Sequence[EmbedExample], problems: Problems
) -> dict[str, tuple[str, ...]]:
    """Returns gold of lines ``query id TAB candidate id``; a query may have several."""
    query_ids, candidate_ids = {query.id for query in queries}, {candidate.id for candidate in candidates}
    gold: dict[str, tuple[str, ...]] = {}
    for line, text in read_lines(path, problems):
        query, _, candidate = text.partition("\t")
        if query in query_ids and candidate in candidate_ids:
            gold[query] = (*gold.get(query, ()), candidate)
        else:
            problems.report(path, line, f"the ids of a query and of a candidate were expected: {text!r}")
    return gold
