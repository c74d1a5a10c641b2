"""What the toy world talks about: its things and names, clauses about them, and when a clause is true.

Nothing here belongs to a language. A clause describes one event by its parts; a part that is left out is
unknown. `judge` compares two clauses about the same event, and every label of the toy data follows from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

CLASSES: Mapping[str, tuple[str, ...]] = {
    "animal": ("dog", "cat", "horse", "bird"),
    "food": ("bread", "apple", "rice", "cake"),
    "tool": ("hammer", "knife", "rope", "lamp"),
    "vehicle": ("car", "boat", "train", "plane"),
    "clothing": ("coat", "hat", "shirt", "glove"),
}
CLASS_OF: Mapping[str, str] = {noun: name for name, nouns in CLASSES.items() for noun in nouns}
NOUNS: tuple[str, ...] = tuple(CLASS_OF)
COLOURS = ("red", "blue", "green", "black")
QUALITIES = ("old", "big", "small")
ADJECTIVES = COLOURS + QUALITIES
TIMES = ("yesterday", "today", "monday", "friday", "tonight")
COUNTS = ("2", "3", "4", "5", "6", "7")

HANDLE_VERBS = (
    "buys",
    "sells",
    "finds",
    "loses",
    "paints",
    "wants",
    "steals",
)  # a person or firm and a thing
MEET_VERBS = ("sees", "helps", "calls")  # a person and a person
MOTION_VERBS = ("leaves", "reaches")  # a person and a place
STATES = ("hungry", "tired", "sick", "happy", "rich", "cold")
CAUSED_VERBS = ("eats", "repairs", "seeks", "breaks", "cooks", "washes", "wears", "sleeps", "rests", "smiles")

FIRST_NAMES = (
    "Mira",
    "Tomas",
    "Elna",
    "Rubo",
    "Sanka",
    "Dario",
    "Lenka",
    "Pavo",
    "Yara",
    "Fenno",
    "Zita",
    "Halim",
)
LAST_NAMES = ("Bareno", "Tolvik", "Sardu", "Velar", "Moradi", "Petrak")
PLACES = ("Torva", "Kelmar", "Ostia", "Sardu", "Nevka", "Alteo", "Moradi", "Zelun")
FIRMS = ("Velar", "Karvo", "Nevka", "Quint", "Dosana")  # some are also people and places: only context tells
FIRM_NOUNS = ("bank", "company", "school")
PEOPLE_NOUNS = ("doctor", "teacher", "farmer", "child", "singer")

EntityKind = Literal["person", "place", "organisation"]
Label = Literal["entailment", "neutral", "contradiction"]


@dataclass(frozen=True, slots=True)
class Entity:
    """Somebody or something with a name: ``Mira Bareno``, ``Torva``, ``Karvo bank`` (noun behind the name)."""

    kind: EntityKind
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
    """One event or state; what is None is not said.

    Attributes:
        verb: a verb, or "is" with a state or class as its object.
        object: a Thing, an Entity, or a state's name.
    """

    subject: Entity | Thing
    verb: str
    object: Entity | Thing | str | None = None
    place: Entity | None = None
    time: str | None = None
    negated: bool = False


def constraints(clause: Clause) -> dict[str, frozenset]:
    """What a clause (without its negation) demands of the event, by part: the values that it allows."""
    demanded: dict[str, frozenset] = {
        "subject": frozenset([clause.subject]),
        "verb": frozenset([clause.verb]),
    }
    if isinstance(clause.object, Thing):
        noun = clause.object.noun
        demanded["noun"] = frozenset(CLASSES.get(noun, (noun,)))
        if clause.object.adjective:
            demanded["adjective"] = frozenset([clause.object.adjective])
        if clause.object.count:
            demanded["count"] = frozenset([clause.object.count])
    elif clause.object is not None:
        demanded["noun"] = frozenset([clause.object])
    if clause.place:
        demanded["place"] = frozenset([clause.place])
    if clause.time:
        demanded["time"] = frozenset([clause.time])
    return demanded


def implies(first: Clause, second: Clause) -> bool:
    """Whether every event that fits ``first`` fits ``second`` (negations aside)."""
    known = constraints(first)
    return all(part in known and known[part] <= allowed for part, allowed in constraints(second).items())


def excludes(first: Clause, second: Clause) -> bool:
    """Whether no event fits both (negations aside)."""
    known = constraints(first)
    return any(part in known and not known[part] & allowed for part, allowed in constraints(second).items())


def judge(premise: Clause, hypothesis: Clause) -> Label:
    """Whether the premise makes the hypothesis true, false or neither.

    Both speak about one and the same event, which has exactly one value for each part. So another place is a
    contradiction, a place that the premise does not give is neutral, and leaving the place out is entailed.
    """
    if premise.negated:  # all that is known is what the event is not like
        if not implies(hypothesis, premise):
            return "neutral"
        return "entailment" if hypothesis.negated else "contradiction"
    if implies(premise, hypothesis):
        return "contradiction" if hypothesis.negated else "entailment"
    if excludes(premise, hypothesis):
        return "entailment" if hypothesis.negated else "contradiction"
    return "neutral"


@dataclass(frozen=True, slots=True)
class Cause:
    """One rule of how things lead to each other; ``{}`` objects are filled with the same thing on both sides.

    Attributes:
        cause, effect: ``(verb, object)``; the object is a state, None, or "?" for the shared thing.
        classes: the classes of things that the rule is about.
    """

    cause: tuple[str, str | None]
    effect: tuple[str, str | None]
    classes: tuple[str, ...] = ()


CAUSES: tuple[Cause, ...] = (
    Cause(("is", "hungry"), ("eats", "?"), ("food",)),
    Cause(("is", "tired"), ("sleeps", None)),
    Cause(("is", "sick"), ("rests", None)),
    Cause(("is", "cold"), ("wears", "?"), ("clothing",)),
    Cause(("is", "happy"), ("smiles", None)),
    Cause(("loses", "?"), ("seeks", "?"), ("animal", "tool", "clothing")),
    Cause(("breaks", "?"), ("repairs", "?"), ("tool", "vehicle")),
    Cause(("sells", "?"), ("is", "rich"), ("vehicle", "animal")),
    Cause(("cooks", "?"), ("eats", "?"), ("food",)),
    Cause(("finds", "?"), ("is", "happy"), ("animal", "tool", "clothing")),
)


def cause_clauses(rule: Cause, subject: Entity | Thing, thing: Thing) -> tuple[Clause, Clause]:
    """The two clauses of a rule about ``subject`` (and ``thing``, where the rule has one)."""

    def clause(side: tuple[str, str | None]) -> Clause:
        verb, target = side
        return Clause(subject, verb, thing if target == "?" else target)

    return clause(rule.cause), clause(rule.effect)


def change(clause: Clause, part: str, value: object) -> Clause:
    """The clause with another value of one part; None leaves the part out.

    Args:
        part: a field of `Clause`, or "noun", "adjective" or "count" of the thing that is its object.
    """
    changes: dict[str, Any] = {part: value}
    if part in ("noun", "adjective", "count"):
        assert isinstance(clause.object, Thing)
        changes = {"object": replace(clause.object, **changes)}
    return replace(clause, **changes)
