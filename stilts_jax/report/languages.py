"""Names and a few public facts of the languages of both benchmarks; see the head of ``languages.csv``."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Language:
    """What is known of a language.

    Attributes:
        iso639_3: candidates in order of preference (macrolanguages have several).
        path: language family, branch, sub-branch, as far as told apart here.
        latitude: of a place in the middle of where it is spoken, whole degrees; so is ``longitude``.
        corpus_megabytes: the size of the language's file in CC-100; 0 where it has none.
    """

    code: str
    name: str
    iso639_3: tuple[str, ...]
    script: str
    path: tuple[str, ...]
    latitude: float
    longitude: float
    corpus_megabytes: float


@cache
def known_languages() -> dict[str, Language]:
    """Languages by the codes that the benchmarks use."""
    text = resources.files("stilts_jax.report").joinpath("languages.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {
        row["code"]: Language(
            row["code"],
            row["name"],
            tuple(row["iso639_3"].split("/")),
            row["script"],
            tuple(row["family"].split("/")),
            float(row["latitude"]),
            float(row["longitude"]),
            float(row["corpus_megabytes"]),
        )
        for row in csv.DictReader(lines)
    }


def language_name(code: str) -> str:
    """``Swahili`` for ``sw``; an empty string for what is not known."""
    language = known_languages().get(code)
    return language.name if language else ""
