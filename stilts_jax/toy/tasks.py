"""Draws the items of each toy task, without a language: what is said, and the gold that follows from meaning."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from stilts_jax.toy import meaning
from stilts_jax.toy.draw import (
    askable,
    clause,
    event,
    fill,
    fronted,
    person,
    place,
    question,
    statement,
    weaker,
)
from stilts_jax.toy.grammar import Utterance
from stilts_jax.toy.meaning import CAUSES, CLASSES, Clause, Label, Thing, judge

LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences and their label."""

    first: Utterance
    second: Utterance
    label: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a passage; the answer is the asked part of sentence number ``sentence``."""

    asked: Utterance
    sentence: int


@dataclass(frozen=True, slots=True)
class Passage:
    """Sentences and questions about them."""

    sentences: tuple[Utterance, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Something said, what is asked about it ("cause" or "effect"), and sentences of which one answers."""

    premise: Utterance
    asked: str
    options: tuple[Utterance, ...]
    label: int


def distinct(make: Callable[[Random], Item], count: int, draw: Random, taken: set[Hashable]) -> list[Item]:
    """Draws ``count`` items that are not in ``taken``, and adds them to it: splits that share it are disjoint."""
    items: list[Item] = []
    while len(items) < count:
        item = make(draw)
        if item not in taken:
            taken.add(item)
            items.append(item)
    return items


def inference(draw: Random) -> Pair:
    """A premise and a hypothesis; the three labels are equally likely, with and without a negation."""
    label = draw.choice(LABELS)
    negated = draw.random() < 0.15
    while True:
        premise = event(draw, detail=0.55)
        for _ in range(8):
            hypothesis = _vary(premise, draw, label)
            hypothesis = replace(hypothesis, negated=negated)
            if hypothesis != premise and judge(premise, hypothesis) == label:
                return Pair(fronted(premise, draw), Utterance((hypothesis,)), label)


def _vary(premise: Clause, draw: Random, label: Label) -> Clause:
    varied = weaker(premise, draw)
    if label == "entailment" and draw.random() < 0.8:
        return varied
    part = draw.choice(
        ("subject", "verb", "noun", "adjective", "adjective", "count", "count", "place", "time")
    )
    other = meaning.constraints(event(draw, detail=1.0))
    while part not in other:
        other = meaning.constraints(event(draw, detail=1.0))
    return meaning.change(varied, part, next(iter(other[part])))


def paraphrase(draw: Random) -> Pair:
    """Two sentences of the same words that do ("1") or do not ("0") say the same."""
    same = draw.random() < 0.5
    if draw.random() < 0.5:  # who does it to whom
        one, other = distinct(person, 2, draw, set())
        said = Clause(one, draw.choice(meaning.MEET_VERBS), other, place(draw), draw.choice(meaning.TIMES))
        changed = said if same else replace(said, subject=other, object=one)
        fronts = draw.sample(("", "P", "T"), 2)
        return Pair(Utterance((said,), front=fronts[0]), Utterance((changed,), front=fronts[1]), "01"[same])
    first, second = (event(draw, detail=0.2) for _ in range(2))
    if first.object == second.object:
        return paraphrase(draw)
    third, fourth = first, second
    if not same:
        third, fourth = replace(first, object=second.object), replace(second, object=first.object)
        if {third, fourth} == {first, second}:
            return paraphrase(draw)
    if draw.random() < 0.5 or same:
        third, fourth = fourth, third
    return Pair(Utterance((first, second), "and"), Utterance((third, fourth), "and"), "01"[same])


def tagged(draw: Random) -> Utterance:
    """A sentence to tag: a statement, now and then a question."""
    if draw.random() < 0.15:
        return question(event(draw), draw)
    return statement(draw)


def passage(draw: Random) -> Passage:
    """Three sentences about different events, two of them alike, and one or two questions with one answer each."""
    first = event(draw, detail=0.6)
    second = event(draw, detail=0.6)
    assert isinstance(first.object, Thing) and isinstance(second.object, Thing)
    second = replace(second, verb=first.verb)  # alike in what is done: only the rest tells them apart
    told = [first, second, clause(draw)]
    draw.shuffle(told)
    questions = []
    for number in draw.sample(range(3), 3):
        said = told[number]
        parts = askable(said)
        if said.negated or not parts:
            continue
        asked = question(said, draw)
        if any(_fits(asked, other) for i, other in enumerate(told) if i != number):
            continue
        questions.append(Question(asked, number))
    if not questions:
        return passage(draw)
    return Passage(tuple(fronted(said, draw) for said in told), tuple(questions[:2]))


def _fits(asked: Utterance, other: Clause) -> bool:
    """Whether another sentence could be taken for the one that the question means."""
    wanted = meaning.constraints(asked.clauses[0])
    wanted.pop({"S": "subject", "O": "noun", "P": "place", "T": "time", "C": "count"}[asked.asked])
    if asked.asked == "O":
        wanted.pop("adjective", None), wanted.pop("count", None)
    known = meaning.constraints(other)
    return all(part not in known or known[part] & allowed for part, allowed in wanted.items())


def causal(options: int) -> Callable[[Random], Choice]:
    """Returns a way to draw questions for causes and effects with so many options."""

    def make(draw: Random) -> Choice:
        rule = draw.choice(CAUSES)
        cause, effect = fill(rule, draw)
        asked = draw.choice(("cause", "effect"))
        premise, right = (effect, cause) if asked == "cause" else (cause, effect)
        chosen: list[Clause] = []
        while len(chosen) < options - 1:
            wrong = _other_end(premise, asked, draw)
            if wrong not in chosen:
                chosen.append(wrong)
        label = draw.randrange(options)
        chosen.insert(label, right)
        return Choice(Utterance((premise,)), asked, tuple(Utterance((option,)) for option in chosen), label)

    return make


def continuation(draw: Random) -> Choice:
    """What happens and, of four things, the one that happens next."""
    while True:
        choice = causal(4)(draw)
        if choice.asked == "effect":
            return choice


def _other_end(premise: Clause, asked: str, draw: Random) -> Clause:
    """A cause or effect about the same people and things that does not belong to the premise."""
    while True:
        pair = fill(draw.choice(CAUSES), draw)
        wrong = replace(pair[asked == "effect"], subject=premise.subject)
        if isinstance(wrong.object, Thing) and isinstance(premise.object, Thing) and draw.random() < 0.5:
            wrong = replace(wrong, object=premise.object)
        if not _belongs(premise, wrong, asked):
            return wrong


def _belongs(premise: Clause, other: Clause, asked: str) -> bool:
    """Whether some rule leads from one to the other."""
    cause, effect = (other, premise) if asked == "cause" else (premise, other)

    def side(said: Clause) -> tuple[str, str | None]:
        return said.verb, "?" if isinstance(said.object, Thing) else said.object  # type: ignore[return-value]

    return any((rule.cause, rule.effect) == (side(cause), side(effect)) for rule in CAUSES)


def kind_question(draw: Random) -> tuple[str, tuple[str, ...], int]:
    """A class, five nouns of which one is of that class, and which one."""
    name = draw.choice(tuple(CLASSES))
    others = [noun for other, nouns in CLASSES.items() if other != name for noun in nouns]
    nouns = draw.sample(others, 4)
    label = draw.randrange(5)
    nouns.insert(label, draw.choice(CLASSES[name]))
    return name, tuple(nouns), label


def sentence(draw: Random) -> Utterance:
    """A sentence of some length, for retrieval."""
    while True:
        said = statement(draw)
        if said.clauses[0].verb != "is" or len(said.clauses) > 1:
            return said
