"""Finds the sentences of an English paragraph, and the sentence that holds a character."""

import functools
import re
from collections.abc import Sequence

from stilts_jax.tasks.sources.documents import BadRow

# The end of a sentence may be followed by quotes, brackets and a reference such as [12]; the next sentence begins
# with a capital, a digit or an opening quote.
_END = re.compile(r"[.?!][)'\"\u201d\u2019\]]*(?:\[[\w .?]{1,20}\])*\s+(?=[\[('\"\u201c\u2018]*[A-Z0-9])")
_ABBREVIATIONS = re.compile(
    r"\b(?:Mrs?|Ms|Drs?|Prof|Fr|Rev|Sta?|Lt|Gen|Col|Maj|Adm|Capt|Sgt|Rep|Gov|Sen|Pres|Hon|Jr|Mt|Ft|Jan|Feb|Aug|Sept?"
    r"|Oct|Nov|Dec|e\.g|i\.e|vs?|pp?|cf|ca?|approx|fl|et al|[A-Z]|[A-Z]\.[A-Z])\.\s+$"
)


@functools.lru_cache(maxsize=16)  # the questions about a paragraph come one after the other
def find_sentences(text: str) -> tuple[tuple[int, int], ...]:
    """Returns start and end of each sentence, without the space between them."""
    breaks = []
    start = len(text) - len(text.lstrip())
    for match in _END.finditer(text):
        # An abbreviation or an initial goes on, unless a word that often begins a sentence comes next.
        if _ABBREVIATIONS.search(text, start, match.end()) and not _OPENERS.match(text, match.end()):
            continue
        if _NUMBERED.search(text, start, match.end()) and text[match.end()].isdecimal():
            continue
        breaks.append((start, start + len(text[start : match.end()].rstrip())))
        start = match.end()
    end = len(text.rstrip())
    return (*breaks, (start, end)) if start < end else tuple(breaks)


_NUMBERED = re.compile(r"\b(?:[Aa]rt|[Nn]o|[Vv]ol|ch|[Ss]ec)\.\s+$")
_OPENERS = re.compile(r"(?:The|This|That|These|It|In|On|However|Meanwhile|After|During|Although)\b")


def check_spans(name: str, spans: Sequence[tuple[int, int]], text: str) -> Sequence[tuple[int, int]]:
    """Returns stretches of a text, given as start and end.

    Raises:
        BadRow: one is empty or lies outside of the text; ``name`` says what was read.
    """
    for index, (start, end) in enumerate(spans):
        if not 0 <= start < end <= len(text):
            raise BadRow(f"{name}[{index}] is {start} to {end}, in a text of {len(text)} characters")
    return spans


def sentence_at(position: int, breaks: Sequence[Sequence[int]]) -> int | None:
    """Returns the index of the sentence that holds a character; None where it stands between sentences."""
    for index, (start, end) in enumerate(breaks):
        if start <= position < end:
            return index
    return None
