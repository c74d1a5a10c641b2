"""Draws what the toy data say, in no language: clauses, sentences, and the items of each task with their gold."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, NamedTuple, get_args

from stilts_jax.toy import meaning
from stilts_jax.toy.meaning import CAUSES, CLASS_OF, CLASSES, Clause, Entity, Label, Thing, Utterance, judge

LABELS: tuple[Label, ...] = get_args(Label)
_PARTS = {"S": "subject", "O": "noun", "P": "place", "T": "time", "C": "count"}  # what a question can ask for
Pair = tuple[Utterance, Utterance, str]  # two sentences and their label
# What is said, what is asked about it ("cause" or "effect"), sentences of which one answers, and which one.
Choice = tuple[Utterance, str, tuple[Utterance, ...], int]


class Question(NamedTuple):
    """A question about a passage; the answer is the asked part of sentence number ``sentence``."""

    asked: Utterance
    sentence: int


class Passage(NamedTuple):
    """Sentences and questions about them."""

    sentences: tuple[Utterance, ...]
    questions: tuple[Question, ...]


def distinct(make: Callable[[Random], Any], count: int, draw: Random, taken: set[Hashable]) -> list[Any]:
    """Draws ``count`` items that are not in ``taken``, and adds them to it: splits that share it are disjoint."""
    items: list[Any] = []
    while len(items) < count:
        item = make(draw)
        if item not in taken:
            taken.add(item)
            items.append(item)
    return items


def person(draw: Random) -> Entity:
    """Somebody, now and then with a family name."""
    first = draw.choice(meaning.FIRST_NAMES)
    family = (draw.choice(meaning.LAST_NAMES),) if draw.random() < 0.35 else ()
    return Entity("person", (first, *family))


def _place(draw: Random) -> Entity:
    return Entity("place", (draw.choice(meaning.PLACES),))


def _firm(draw: Random) -> Entity:
    return Entity("organisation", noun=draw.choice(meaning.FIRM_NOUNS), names=(draw.choice(meaning.FIRMS),))


def _actor(draw: Random) -> Entity | Thing:
    """Somebody who can do things."""
    chance = draw.random()
    if chance < 0.7:
        return person(draw)
    return Thing(draw.choice(meaning.PEOPLE_NOUNS)) if chance < 0.9 else _firm(draw)


def event(draw: Random, *, detail: float = 0.5) -> Clause:
    """Somebody handles a thing, somewhere, at some time; ``detail`` is how likely each detail is given."""
    actor, verb = _actor(draw), draw.choice(meaning.HANDLE_VERBS)
    adjective = draw.choice(meaning.ADJECTIVES) if draw.random() < detail else None
    count = draw.choice(meaning.COUNTS) if draw.random() < detail * 0.7 else None
    thing = Thing(draw.choice(meaning.NOUNS), adjective, count)
    place = _place(draw) if draw.random() < detail + 0.1 else None
    return Clause(actor, verb, thing, place, draw.choice(meaning.TIMES) if draw.random() < detail else None)


def clause(draw: Random) -> Clause:
    """Any event or state about an actor."""
    chance = draw.random()
    if chance < 0.6:
        drawn = event(draw)
    else:
        when = draw.choice(meaning.TIMES) if draw.random() < 0.5 else None
        where = _place(draw) if draw.random() < 0.4 else None
        if chance < 0.75:
            drawn = Clause(person(draw), draw.choice(meaning.MEET_VERBS), person(draw), where, when)
        elif chance < 0.85:
            drawn = Clause(person(draw), draw.choice(meaning.MOTION_VERBS), _place(draw), None, when)
        elif chance < 0.93:
            drawn = Clause(person(draw), "works", _firm(draw), where, None)
        else:
            drawn = Clause(_actor(draw), "is", draw.choice(meaning.STATES), None, when)
    return replace(drawn, negated=draw.random() < 0.08)


def _cause_and_effect(draw: Random) -> tuple[Clause, Clause]:
    """A rule's cause and effect about somebody and something."""
    cause, effect, classes = draw.choice(CAUSES)
    nouns = [noun for name in classes for noun in CLASSES[name]] or list(meaning.NOUNS)
    adjective = draw.choice(meaning.ADJECTIVES) if draw.random() < 0.3 else None
    subject = person(draw) if draw.random() < 0.7 else Thing(draw.choice(meaning.PEOPLE_NOUNS))
    thing = Thing(draw.choice(nouns), adjective)
    first, second = (Clause(subject, verb, thing if what == "?" else what) for verb, what in (cause, effect))
    return first, second


def statement(draw: Random) -> Utterance:
    """One sentence that is no question."""
    chance = draw.random()
    if chance < 0.12:  # what kind of thing something is
        chance = draw.random()
        if chance < 0.6:
            noun = draw.choice(meaning.NOUNS)
            fact = Clause(Thing(noun), "is", Thing(CLASS_OF[noun]))
        elif chance < 0.8:
            fact = Clause(_place(draw), "is", Thing("city"))
        else:
            fact = Clause(person(draw), "is", Thing(draw.choice(("person", *meaning.PEOPLE_NOUNS))))
        return Utterance((fact,))
    if chance < 0.3:
        cause, effect = _cause_and_effect(draw)
        because = draw.random() < 0.5
        return Utterance((effect, cause), "because") if because else Utterance((cause, effect), "so")
    if chance < 0.42:
        return Utterance((clause(draw), clause(draw)), "and")
    return _fronted(clause(draw), draw)


def _fronted(said: Clause, draw: Random) -> Utterance:
    """A clause, now and then with its time or place first."""
    parts = [part for part in "PT" if getattr(said, _PARTS[part])]
    return Utterance((said,), front=draw.choice(parts) if parts and draw.random() < 0.25 else "")


def _shortened(said: Clause, draw: Random, *, kept: str = "", details: float = 0.4) -> Clause:
    """A clause that leaves out some of ``said``, each detail of its thing with probability ``details``."""
    chances = {"place": 0.4, "time": 0.4}
    if isinstance(said.object, Thing):
        chances |= {"adjective": details, "count": details}
    for part, chance in chances.items():
        if part != kept and draw.random() < chance:
            said = meaning.change(said, part, None)
    return said


def question(said: Clause, draw: Random) -> Utterance:
    """A question that the clause answers; some of what it says besides is left out."""
    # "whom" is not a word of ours, and what somebody is or where somebody goes is not asked.
    parts = "SOPTC" if isinstance(said.object, Thing) and said.verb != "is" else "SPT"
    known = meaning.constraints(said)
    asked = draw.choice([part for part in parts if _PARTS[part] in known])
    return Utterance((_shortened(said, draw, kept=_PARTS[asked], details=0.5),), asked=asked)


def _weaker(said: Clause, draw: Random) -> Clause:
    """A clause that leaves out or generalises some of ``said``; `meaning.implies` holds."""
    said = _shortened(said, draw)
    if isinstance(said.object, Thing) and said.object.noun in CLASS_OF and draw.random() < 0.3:
        said = meaning.change(said, "noun", CLASS_OF[said.object.noun])
    return said


def sentence(draw: Random, *, questions: float) -> Utterance:
    """A statement, or with probability ``questions`` a question."""
    return question(event(draw), draw) if draw.random() < questions else statement(draw)


udpos = partial(sentence, questions=0.15)
panx = partial(sentence, questions=0.15)  # a second object: sets of the same one share no sentence


def retrieved(draw: Random) -> Utterance:
    """A sentence of some length, for retrieval."""
    while (said := statement(draw)).clauses[0].verb == "is" and len(said.clauses) == 1:
        pass
    return said


def running_text(draw: Random) -> tuple[Utterance, ...]:
    """A line of text: one to three sentences that have to do with each other."""
    chance = draw.random()
    if chance < 0.3:  # said, and said again in fewer words
        said = event(draw, detail=0.6)
        return (_fronted(said, draw), Utterance((_weaker(said, draw),)))
    if chance < 0.6:  # told, asked and answered
        told = [event(draw), clause(draw)]
        draw.shuffle(told)
        asked = draw.choice(told)
        sentences = tuple(_fronted(said, draw) for said in told)
        return sentences if asked.negated else (*sentences, question(asked, draw))
    return (statement(draw), statement(draw)) if chance < 0.8 else (statement(draw),)


def inference(draw: Random) -> Pair:
    """A premise and a hypothesis; the three labels are equally likely, with and without a negation."""
    label = draw.choice(LABELS)
    negated = draw.random() < 0.15
    while True:
        premise = event(draw, detail=0.55)
        for _ in range(8):
            varied = _weaker(premise, draw)
            if label != "entailment" or draw.random() >= 0.8:  # another value of a part of it
                details = ("adjective", "adjective", "count", "count")
                part = draw.choice(("subject", "verb", "noun", *details, "place", "time"))
                while part not in (other := meaning.constraints(event(draw, detail=1.0))):
                    pass
                varied = meaning.change(varied, part, next(iter(other[part])))
            hypothesis = replace(varied, negated=negated)
            if hypothesis != premise and judge(premise, hypothesis) == label:
                return _fronted(premise, draw), Utterance((hypothesis,)), label


def paraphrase(draw: Random) -> Pair:
    """Two sentences of the same words that do ("1") or do not ("0") say the same."""
    same = draw.random() < 0.5
    if draw.random() < 0.5:  # who does it to whom
        one, other = distinct(person, 2, draw, set())
        said = Clause(one, draw.choice(meaning.MEET_VERBS), other, _place(draw), draw.choice(meaning.TIMES))
        changed = said if same else replace(said, subject=other, object=one)
        fronts = draw.sample(("", "P", "T"), 2)
        return Utterance((said,), front=fronts[0]), Utterance((changed,), front=fronts[1]), "01"[same]
    first, second = (event(draw, detail=0.2) for _ in range(2))
    third, fourth = first, second
    if not same:
        third, fourth = replace(first, object=second.object), replace(second, object=first.object)
    if first.object == second.object or (not same and {third, fourth} == {first, second}):
        return paraphrase(draw)
    if draw.random() < 0.5 or same:
        third, fourth = fourth, third
    return Utterance((first, second), "and"), Utterance((third, fourth), "and"), "01"[same]


def passage(draw: Random) -> Passage:
    """Three sentences about different events, two of them alike, and one or two questions with one answer each."""
    first = event(draw, detail=0.6)
    second = replace(event(draw, detail=0.6), verb=first.verb)  # alike in what is done: only the rest tells
    told = [first, second, clause(draw)]
    draw.shuffle(told)
    questions = []
    for number in draw.sample(range(3), 3):
        if told[number].negated:
            continue
        asked = question(told[number], draw)
        wanted = meaning.constraints(asked.clauses[0])
        for part in ("noun", "adjective", "count") if asked.asked == "O" else (_PARTS[asked.asked],):
            wanted.pop(part, None)
        others = (meaning.constraints(other) for i, other in enumerate(told) if i != number)
        # No other sentence could be taken for the one that the question means.
        if not any(meaning.compatible(known, wanted) for known in others):
            questions.append(Question(asked, number))
    if not questions:
        return passage(draw)
    return Passage(tuple(_fronted(said, draw) for said in told), tuple(questions[:2]))


def causal(draw: Random, *, options: int) -> Choice:
    """A question for a cause or effect with so many options; wrong ones are about the same thing half the time.

    A wrong one that names a person keeps that name: if only the rule told them apart, scarce training would stay at
    chance from some seeds.
    """
    cause, effect = _cause_and_effect(draw)
    asked = draw.choice(("cause", "effect"))
    premise, right = (effect, cause) if asked == "cause" else (cause, effect)
    chosen: list[Clause] = []
    while len(chosen) < options - 1:
        wrong = _cause_and_effect(draw)[asked == "effect"]
        if not isinstance(wrong.subject, Entity):
            wrong = replace(wrong, subject=premise.subject)
        if isinstance(wrong.object, Thing) and isinstance(premise.object, Thing) and draw.random() < 0.5:
            wrong = replace(wrong, object=premise.object)
        pair = (wrong, premise) if asked == "cause" else (premise, wrong)
        sides = tuple((said.verb, "?" if isinstance(said.object, Thing) else said.object) for said in pair)
        if wrong not in chosen and all(rule[:2] != sides for rule in CAUSES):
            chosen.append(wrong)
    label = draw.randrange(options)
    chosen.insert(label, right)
    return Utterance((premise,)), asked, tuple(Utterance((option,)) for option in chosen), label


copa = partial(causal, options=2)
siqa = partial(causal, options=3)


def continuation(draw: Random) -> Choice:
    """What happens and, of four things, the one that happens next."""
    while (choice := causal(draw, options=4))[1] != "effect":
        pass
    return choice


def kind_question(draw: Random) -> tuple[str, tuple[str, ...], int]:
    """A class, five nouns of which one is of that class, and which one."""
    name = draw.choice(tuple(CLASSES))
    nouns = draw.sample([noun for other, members in CLASSES.items() if other != name for noun in members], 4)
    label = draw.randrange(5)
    nouns.insert(label, draw.choice(CLASSES[name]))
    return name, tuple(nouns), label
