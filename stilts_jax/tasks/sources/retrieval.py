"""Reads the files of retrieval evaluations: each ``build_...`` makes the set that one language is scored on."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stilts_jax.errors import DataError
from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.readers import read_lines
from stilts_jax.tasks.sources.rows import Problems, Row, check_example
from stilts_jax.tasks.spec import EmbedExample, RetrievalSet

Paths = Mapping[str, tuple[Path, ...]]
Gold = dict[str, tuple[str, ...]]


def build_pools(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """Two pools of ``id TAB sentence`` with pairs of ids as gold (BUCC)."""
    queries, candidates = (_read_identified(paths[role][0], problems) for role in ("queries", "candidates"))
    gold = _read_pairs(paths["gold"][0], queries, candidates, problems) if "gold" in paths else None
    return RetrievalSet(queries, candidates, gold)


def build_numbered(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """Two files of sentences; gold has the 0-based line of each English sentence's translation (Tatoeba)."""
    queries, candidates = _read_sides(paths, language, problems)
    gold = _read_numbered(paths["gold"][0], queries, candidates, problems) if "gold" in paths else None
    return RetrievalSet(queries, candidates, gold)


def build_parallel(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """Two files of sentences in the same order (LASER's release of Tatoeba)."""
    english, candidates = _read_sides(paths, language, problems)
    return _sort_english([sentence.text for sentence in english], candidates)


def build_translated(rows: Iterable[tuple[Path, Row]], language: str, problems: Problems) -> RetrievalSet:
    """Rows of a sentence and its English translation (Tatoeba of the hub and TFDS)."""
    pairs = []
    for path, row in rows:
        with problems.skipping(path, row):
            pairs.append((row["source_sentence"].strip("\n"), row["target_sentence"].strip("\n")))
    candidates = [EmbedExample(f"{language}-{line}", text) for line, (text, _) in enumerate(pairs)]
    return _sort_english([english for _, english in pairs], candidates)


def _sort_english(english: Sequence[str], candidates: Sequence[EmbedExample]) -> RetrievalSet:
    """Returns XTREME's form of sentences that stand in the order of their translations."""
    order = sorted(range(len(english)), key=english.__getitem__)
    queries = [EmbedExample(f"en-{line}", english[index]) for line, index in enumerate(order)]
    gold = {query.id: (candidates[index].id,) for query, index in zip(queries, order)}
    return RetrievalSet(queries, candidates, gold)


def check_sentences(sentences: Iterable[EmbedExample]) -> list[EmbedExample]:
    """Returns the sentences; raises ``BadRow`` if one can't be used."""
    found = list(sentences)
    for sentence in found:
        check_example(sentence)
    return found


def _read_sides(paths: Paths, language: str, problems: Problems) -> list[list[EmbedExample]]:
    """Returns English sentences and theirs; ids are ``LL-LINE``, counted from 0.

    A line that can't be used is never skipped: gold counts lines.
    """
    whole = Problems(problems.what)
    sides = []
    for role, code in (("queries", "en"), ("candidates", language)):
        path = paths[role][0]
        sentences = [
            (line, EmbedExample(f"{code}-{line - 1}", text)) for line, text in read_lines(path, whole)
        ]
        sides.append([one for line, one in sentences if _check(one, path, line, whole)])
        _refuse_empty(sides[-1], path, problems)
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{len(sides[0])} English sentences have {len(sides[1])} translations",
            where=f"{problems.what}, {paths['queries'][0]} and {paths['candidates'][0]}",
            fix="get both sides of the same release",
        )
    return sides


def _read_identified(path: Path, problems: Problems) -> list[EmbedExample]:
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
    _refuse_empty(found, path, problems)
    return list(found.values())


def _refuse_empty(sentences: Sequence | Mapping, path: Path, problems: Problems) -> None:
    if not sentences:
        raise DataError(
            "the file is empty: it has no sentences",
            where=f"{problems.what}, {path}",
            fix="fetch or copy it again, or remove it to leave this language out",
        )


def _check(sentence: EmbedExample, path: Path, line: int, problems: Problems) -> bool:
    try:
        check_example(sentence)
    except BadRow as error:
        problems.report(path, line, str(error))
        return False
    return True


def _read_numbered(
    path: Path, queries: Sequence[EmbedExample], candidates: Sequence[EmbedExample], problems: Problems
) -> Gold:
    lines = list(read_lines(path, problems))
    if len(lines) != len(queries):
        raise DataError(
            f"there are {len(queries)} queries, and gold for {len(lines)}",
            where=f"{problems.what}, {path}",
            fix="get queries and gold of the same release",
        )
    gold: Gold = {}
    numbers = {str(number): (candidate.id,) for number, candidate in enumerate(candidates)}
    whole = Problems(problems.what)  # a query without gold would count as wrong
    for (line, text), query in zip(lines, queries):
        if text.strip() not in numbers:
            whole.report(path, line, f"{text!r} is no line of the {len(candidates)} candidates (from 0 on)")
        gold[query.id] = numbers[text.strip()]
    return gold


def _read_pairs(
    path: Path, queries: Sequence[EmbedExample], candidates: Sequence[EmbedExample], problems: Problems
) -> Gold:
    """Returns gold of lines ``query id TAB candidate id``; a query may have several."""
    query_ids, candidate_ids = {query.id for query in queries}, {candidate.id for candidate in candidates}
    gold: Gold = {}
    for line, text in read_lines(path, problems):
        query, _, candidate = text.partition("\t")
        if query in query_ids and candidate in candidate_ids:
            gold[query] = (*gold.get(query, ()), candidate)
        else:
            problems.report(path, line, f"the ids of a query and of a candidate were expected: {text!r}")
    return gold
