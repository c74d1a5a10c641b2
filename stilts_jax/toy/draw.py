"""Draws what is said from the toy world: entities, clauses, sentences, stretches of text."""

from dataclasses import replace
from random import Random

from stilts_jax.toy import meaning
from stilts_jax.toy.grammar import Utterance
from stilts_jax.toy.meaning import CAUSES, CLASS_OF, CLASSES, Cause, Clause, Entity, Thing

_PARTS = {"S": "subject", "O": "noun", "P": "place", "T": "time", "C": "count"}


def person(draw: Random) -> Entity:
    """Somebody, now and then with a family name."""
    names: tuple[str, ...] = (draw.choice(meaning.FIRST_NAMES),)
    if draw.random() < 0.35:
        names += (draw.choice(meaning.LAST_NAMES),)
    return Entity("person", names)


def place(draw: Random) -> Entity:
    """A town."""
    return Entity("place", (draw.choice(meaning.PLACES),))


def firm(draw: Random) -> Entity:
    """An organisation."""
    noun = draw.choice(meaning.FIRM_NOUNS)
    return Entity("organisation", (draw.choice(meaning.FIRMS),), noun)


def thing(draw: Random, *, detail: float = 0.5) -> Thing:
    """A thing, each detail of it (how many, what like) given with probability ``detail``."""
    adjective = draw.choice(meaning.ADJECTIVES) if draw.random() < detail else None
    count = draw.choice(meaning.COUNTS) if draw.random() < detail * 0.7 else None
    return Thing(draw.choice(meaning.NOUNS), adjective, count)


def actor(draw: Random) -> Entity | Thing:
    """Somebody who can do things."""
    chance = draw.random()
    if chance < 0.7:
        return person(draw)
    return Thing(draw.choice(meaning.PEOPLE_NOUNS)) if chance < 0.9 else firm(draw)


def event(draw: Random, *, detail: float = 0.5) -> Clause:
    """Somebody handles a thing, somewhere, at some time."""
    return Clause(
        actor(draw),
        draw.choice(meaning.HANDLE_VERBS),
        thing(draw, detail=detail),
        place(draw) if draw.random() < detail + 0.1 else None,
        draw.choice(meaning.TIMES) if draw.random() < detail else None,
    )


def clause(draw: Random) -> Clause:
    """Any event or state about an actor."""
    chance = draw.random()
    if chance < 0.6:
        drawn = event(draw)
    else:
        when = draw.choice(meaning.TIMES) if draw.random() < 0.5 else None
        where = place(draw) if draw.random() < 0.4 else None
        if chance < 0.75:
            drawn = Clause(person(draw), draw.choice(meaning.MEET_VERBS), person(draw), where, when)
        elif chance < 0.85:
            drawn = Clause(person(draw), draw.choice(meaning.MOTION_VERBS), place(draw), None, when)
        elif chance < 0.93:
            drawn = Clause(person(draw), "works", firm(draw), where, None)
        else:
            drawn = Clause(actor(draw), "is", draw.choice(meaning.STATES), None, when)
    return replace(drawn, negated=draw.random() < 0.08)


def fact(draw: Random) -> Clause:
    """What kind of thing something is."""
    chance = draw.random()
    if chance < 0.6:
        noun = draw.choice(meaning.NOUNS)
        return Clause(Thing(noun), "is", Thing(CLASS_OF[noun]))
    if chance < 0.8:
        return Clause(place(draw), "is", Thing("city"))
    return Clause(person(draw), "is", Thing(draw.choice(("person", *meaning.PEOPLE_NOUNS))))


def fill(rule: Cause, draw: Random) -> tuple[Clause, Clause]:
    """A rule's cause and effect about somebody and something."""
    nouns = [noun for name in rule.classes for noun in CLASSES[name]] or list(meaning.NOUNS)
    adjective = draw.choice(meaning.ADJECTIVES) if draw.random() < 0.3 else None
    subject = person(draw) if draw.random() < 0.7 else Thing(draw.choice(meaning.PEOPLE_NOUNS))
    return meaning.cause_clauses(rule, subject, Thing(draw.choice(nouns), adjective))


def statement(draw: Random) -> Utterance:
    """One sentence that is no question."""
    chance = draw.random()
    if chance < 0.12:
        return Utterance((fact(draw),))
    if chance < 0.3:
        cause, effect = fill(draw.choice(CAUSES), draw)
        if draw.random() < 0.5:
            return Utterance((effect, cause), "because")
        return Utterance((cause, effect), "so")
    if chance < 0.42:
        return Utterance((clause(draw), clause(draw)), "and")
    return fronted(clause(draw), draw)


def fronted(said: Clause, draw: Random) -> Utterance:
    """A clause, now and then with its time or place first."""
    parts = [part for part in "PT" if getattr(said, _PARTS[part])]
    return Utterance((said,), front=draw.choice(parts) if parts and draw.random() < 0.25 else "")


def askable(said: Clause) -> list[str]:
    """The parts that one can ask for, of those that the clause gives."""
    known = meaning.constraints(said)
    parts = [part for part, name in _PARTS.items() if name in known]
    if said.verb == "is" or (isinstance(said.object, Entity) and said.object.kind != "person"):
        parts = [part for part in parts if part != "O"]
    if isinstance(said.object, Entity) and "O" in parts:
        parts.remove("O")  # "whom" is not a word of ours
    return parts


def question(said: Clause, draw: Random, *, asked: str = "") -> Utterance:
    """A question that the clause answers; some of what it says besides is left out."""
    asked = asked or draw.choice(askable(said))
    for part in ("place", "time"):
        if _PARTS[asked] != part and draw.random() < 0.4:
            said = meaning.change(said, part, None)
    if isinstance(said.object, Thing):
        for part in ("adjective", "count"):
            if _PARTS[asked] != part and draw.random() < 0.5:
                said = meaning.change(said, part, None)
    return Utterance((said,), asked=asked)


def weaker(said: Clause, draw: Random) -> Clause:
    """A clause that leaves out or generalises some of ``said``; `meaning.implies` holds."""
    for part in ("place", "time"):
        if draw.random() < 0.4:
            said = meaning.change(said, part, None)
    if isinstance(said.object, Thing):
        noun = said.object.noun
        for part in ("adjective", "count"):
            if draw.random() < 0.4:
                said = meaning.change(said, part, None)
        if noun in CLASS_OF and draw.random() < 0.3:
            said = meaning.change(said, "noun", CLASS_OF[noun])
    return said


def passage(draw: Random) -> tuple[Utterance, ...]:
    """A line of running text: one to three sentences that have to do with each other."""
    chance = draw.random()
    if chance < 0.3:  # said, and said again in fewer words
        said = event(draw, detail=0.6)
        return (fronted(said, draw), Utterance((weaker(said, draw),)))
    if chance < 0.6:  # told, asked and answered
        told = [event(draw), clause(draw)]
        draw.shuffle(told)
        asked = draw.choice(told)
        parts = askable(asked)
        if parts and not asked.negated:
            return (*(fronted(said, draw) for said in told), question(asked, draw))
        return tuple(fronted(said, draw) for said in told)
    return (statement(draw), statement(draw)) if chance < 0.8 else (statement(draw),)
