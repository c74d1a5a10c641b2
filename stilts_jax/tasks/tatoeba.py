"""Tatoeba: which sentence of a language translates an English one? Nearest neighbours, untrained, test only.

Queries are English, candidates the other language. In XTREME the English side is sorted, and the hidden gold
of English line i is the line of its translation; LASER's release has both sides in the same order, and is
read into the same form.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stilts_jax.errors import DataError
from stilts_jax.tasks.panx import LANGUAGES as PANX
from stilts_jax.tasks.sources.retrieval import read_numbered, read_sentences
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.spec import (
    EmbedExample,
    Hyperparameters,
    Pools,
    Prepared,
    RetrievalSet,
    Sources,
    Task,
    names,
)

_LASER = """
    af:afr ar:ara az:aze be:bel bg:bul bn:ben br:bre bs:bos ca:cat cs:ces cy:cym da:dan de:deu el:ell eo:epo
    es:spa et:est eu:eus fa:pes fi:fin fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg he:heb hi:hin hr:hrv hu:hun
    hy:hye ia:ina id:ind io:ido is:isl it:ita ja:jpn jv:jav ka:kat kk:kaz km:khm ko:kor ku:kur kw:cor la:lat
    lt:lit lv:lvs mk:mkd ml:mal mn:mon mr:mar ms:zsm nb:nob nl:nld nn:nno oc:oci pl:pol pt:por ro:ron ru:rus
    sk:slk sl:slv sq:sqi sr:srp sv:swe sw:swh ta:tam te:tel th:tha tk:tuk tl:tgl tr:tur tt:tat ug:uig uk:ukr
    ur:urd uz:uzb vi:vie yi:yid zh:cmn
"""
LANGUAGES = tuple(language for language in PANX if language not in ("en", "ms", "my", "yo"))
LASER = dict(pair.split(":") for pair in names(_LASER))


def _build_xtreme(paths: Mapping[str, tuple[Path, ...]], language: str, problems: Problems) -> RetrievalSet:
    queries = read_sentences(paths["queries"][0], "en", problems)
    candidates = read_sentences(paths["candidates"][0], language, problems)
    if len(queries) != len(candidates):
        raise _unequal(queries, candidates, f"{problems.what}, {paths['candidates'][0]}")
    if "gold" not in paths:
        return RetrievalSet(queries, candidates, None)
    return RetrievalSet(queries, candidates, read_numbered(paths["gold"][0], queries, candidates, problems))


def _build_laser(paths: Mapping[str, tuple[Path, ...]], language: str, problems: Problems) -> RetrievalSet:
    english = read_sentences(paths["queries"][0], "en", problems)
    candidates = read_sentences(paths["candidates"][0], language, problems)
    where = f"{problems.what}, {paths['queries'][0]} and {paths['candidates'][0]}"
    return _sort_english([sentence.text for sentence in english], candidates, where)


def _build_prepared(rows: Iterable[tuple[Path, Row]], language: str, problems: Problems) -> RetrievalSet:
    pairs = []
    for path, row in rows:
        with problems.skipping(path, row):
            pairs.append((row["source_sentence"].strip("\n"), row["target_sentence"].strip("\n")))
    candidates = [EmbedExample(f"{language}-{line}", text) for line, (text, _) in enumerate(pairs)]
    return _sort_english([english for _, english in pairs], candidates, problems.what)


def _sort_english(english: Sequence[str], candidates: Sequence[EmbedExample], where: str) -> RetrievalSet:
    """Returns XTREME's form of sentences that stand in the order of their translations."""
    if len(english) != len(candidates):
        raise _unequal(english, candidates, where)
    order = sorted(range(len(english)), key=english.__getitem__)
    queries = [EmbedExample(f"en-{line}", english[index]) for line, index in enumerate(order)]
    gold = {query.id: (candidates[index].id,) for query, index in zip(queries, order)}
    return RetrievalSet(queries, candidates, gold)


def _unequal(english: Sequence[object], candidates: Sequence[object], where: str) -> DataError:
    return DataError(
        f"{len(english)} English sentences have {len(candidates)} translations",
        where=where,
        fix="get both sides of the same release",
    )


TASK = Task(
    name="tatoeba",
    version=1,
    kind="embed",
    group="retrieval",
    description="nearest translation of English sentences among up to 1,000 (Tatoeba)",
    languages=LANGUAGES,
    metric="nearest_accuracy",
    retrieval="nearest",
    hyperparameters={"paper": Hyperparameters(max_length=512)},
    sources=Sources(
        pools=(
            Pools(
                paths={
                    "test": {
                        "queries": "tatoeba/{language}-en.en",
                        "candidates": "tatoeba/{language}-en.{language}",
                        "gold": "tatoeba/{language}-en.gold",
                    }
                },
                build=_build_xtreme,
            ),
            Pools(
                paths={
                    "test": {
                        "queries": "tatoeba/tatoeba.{language}-eng.eng",
                        "candidates": "tatoeba/tatoeba.{language}-eng.{language}",
                    }
                },
                build=_build_laser,
                codes=LASER,
            ),
        ),
        hub=(
            Prepared(
                name="google/xtreme",
                config="tatoeba.{language}",
                splits={"test": "validation"},
                codes=LASER,
                languages=LANGUAGES,
                build=_build_prepared,
            ),
        ),
        tfds=(
            Prepared(
                name="tatoeba",
                config="tatoeba_{language}",
                splits={"test": "train"},
                languages=LANGUAGES,
                build=_build_prepared,
            ),
        ),
    ),
)
