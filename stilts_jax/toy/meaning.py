"""What the toy world talks about, in no language: things and names, clauses about them, and when a clause is true.

`judge` compares two clauses about the same event, and every label of the toy data follows from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from stilts_jax.tasks.spec import names

CLASSES: Mapping[str, tuple[str, ...]] = {
    "animal": ("dog", "cat", "horse", "bird"),
    "food": ("bread", "apple", "rice", "cake"),
    "tool": ("hammer", "knife", "rope", "lamp"),
    "vehicle": ("car", "boat", "train", "plane"),
    "clothing": ("coat", "hat", "shirt", "glove"),
}
CLASS_OF: Mapping[str, str] = {noun: name for name, nouns in CLASSES.items() for noun in nouns}
NOUNS: tuple[str, ...] = tuple(CLASS_OF)
ADJECTIVES = ("red", "blue", "green", "black", "old", "big", "small")
TIMES = ("yesterday", "today", "monday", "friday", "tonight")
COUNTS = ("2", "3", "4", "5", "6", "7")

# Verbs by what they join: a person or firm and a thing, two persons, a person and a place.
HANDLE_VERBS = ("buys", "sells", "finds", "loses", "paints", "wants", "steals")
MEET_VERBS = ("sees", "helps", "calls")
MOTION_VERBS = ("leaves", "reaches")
STATES = ("hungry", "tired", "sick", "happy", "rich", "cold")
CAUSED_VERBS = ("eats", "repairs", "seeks", "breaks", "cooks", "washes", "wears", "sleeps", "rests", "smiles")

FIRST_NAMES = names("Mira Tomas Elna Rubo Sanka Dario Lenka Pavo Yara Fenno Zita Halim")
LAST_NAMES = names("Bareno Tolvik Sardu Velar Moradi Petrak")
PLACES = names("Torva Kelmar Ostia Sardu Nevka Alteo Moradi Zelun")
FIRMS = ("Velar", "Karvo", "Nevka", "Quint", "Dosana")  # some are also people and places: only context tells
FIRM_NOUNS = ("bank", "company", "school")
PEOPLE_NOUNS = ("doctor", "teacher", "farmer", "child", "singer")

Label = Literal["entailment", "neutral", "contradiction"]


@dataclass(frozen=True, slots=True)
class Entity:
    """Somebody or something with a name: ``Mira Bareno``, ``Torva``, ``Karvo bank`` (noun behind the name)."""

    kind: Literal["person", "place", "organisation"]
    names: tuple[str, ...]
    noun: str | None = None


@dataclass(frozen=True, slots=True)
class Thing:
    """Something without a name: ``3 red apple``, ``the doctor``, ``food``."""

    noun: str
    adjective: str | None = None
    count: str | None = None


@dataclass(frozen=True, slots=True)
class Clause:
    """One event or state; what is None is not said."""

    subject: Entity | Thing
    verb: str  # a verb, or "is" with a state or class as its object
    object: Entity | Thing | str | None = None  # a string is a state
    place: Entity | None = None
    time: str | None = None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a sentence is to say, in whatever language."""

    clauses: tuple[Clause, ...]  # one, or two that the connective joins
    connective: str = ""  # "and", "because" or "so"
    front: str = ""  # "T" or "P" moves the first clause's time or place to the beginning
    asked: str = ""  # the part (S, O, P, T or C) that the sentence asks for; "" for a statement


# Cause, effect, and the classes of the things that they are about. A cause or effect is a verb and its object:
# a state, none, or "?" for the thing that both are about.
Side = tuple[str, str | None]
CAUSES: tuple[tuple[Side, Side, tuple[str, ...]], ...] = (
    (("is", "hungry"), ("eats", "?"), ("food",)),
    (("is", "tired"), ("sleeps", None), ()),
    (("is", "sick"), ("rests", None), ()),
    (("is", "cold"), ("wears", "?"), ("clothing",)),
    (("is", "happy"), ("smiles", None), ()),
    (("loses", "?"), ("seeks", "?"), ("animal", "tool", "clothing")),
    (("breaks", "?"), ("repairs", "?"), ("tool", "vehicle")),
    (("sells", "?"), ("is", "rich"), ("vehicle", "animal")),
    (("cooks", "?"), ("eats", "?"), ("food",)),
    (("finds", "?"), ("is", "happy"), ("animal", "tool", "clothing")),
)


def constraints(clause: Clause) -> dict[str, frozenset]:
    """What a clause (without its negation) demands of the event, by part: the values that it allows."""
    said: dict[str, Any] = {"subject": clause.subject, "verb": clause.verb, "noun": clause.object}
    if isinstance(clause.object, Thing):
        said |= {part: getattr(clause.object, part) for part in ("noun", "adjective", "count")}
    said |= {"place": clause.place, "time": clause.time}
    known = {part: value for part, value in said.items() if value is not None}
    return {part: frozenset(CLASSES.get(value, (value,))) for part, value in known.items()}


def implies(first: Clause, second: Clause) -> bool:
    """Whether every event that fits ``first`` fits ``second`` (negations aside)."""
    known = constraints(first)
    return all(part in known and known[part] <= allowed for part, allowed in constraints(second).items())


def compatible(known: Mapping[str, frozenset], wanted: Mapping[str, frozenset]) -> bool:
    """Whether some event meets the constraints of both."""
    return all(part not in known or known[part] & allowed for part, allowed in wanted.items())


def judge(premise: Clause, hypothesis: Clause) -> Label:
    """Whether the premise makes the hypothesis true, false or neither.

    Both speak about one and the same event, which has exactly one value for each part. So another place is a
    contradiction, a place that the premise does not give is neutral, and leaving the place out is entailed.
    """
    if premise.negated:  # all that is known is what the event is not like
        possible = not implies(hypothesis, premise)
    elif implies(premise, hypothesis):
        return "contradiction" if hypothesis.negated else "entailment"
    else:
        possible = compatible(constraints(premise), constraints(hypothesis))
    if possible:
        return "neutral"
    return "entailment" if hypothesis.negated else "contradiction"


def change(clause: Clause, part: str, value: object) -> Clause:
    """The clause with another value of a field of it, or of the thing that is its object; None leaves it out."""
    changes: dict[str, Any] = {part: value}
    if isinstance(clause.object, Thing) and hasattr(clause.object, part):
        changes = {"object": replace(clause.object, **changes)}
    return replace(clause, **changes)
