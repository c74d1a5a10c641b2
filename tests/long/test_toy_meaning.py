"""The truth model against brute force over possible worlds."""

import itertools
import random
from dataclasses import replace

from stilts_jax.toy.meaning import CLASSES, Clause, Entity, Thing, judge

MIRA, ELNA = Entity("person", ("Mira",)), Entity("person", ("Elna",))
TORVA, OSTIA = Entity("place", ("Torva",)), Entity("place", ("Ostia",))
# A small universe. A world is one full event: who, what is done, noun, adjective, count, place, time.
NOUNS = ("dog", "cat", "bread")
DETAILS = (("red", "old"), ("2", "3"), (TORVA, OSTIA), ("today", "friday"))
WORLDS = list(itertools.product((MIRA, ELNA), ("buys", "sells"), NOUNS, *DETAILS))


def holds(said: Clause, world: tuple) -> bool:
    """Whether ``said`` is true in a world, spelled out part by part."""
    subject, verb, noun, adjective, count, place, time = world
    true = said.subject == subject and said.verb == verb
    wanted = said.object
    true = true and (wanted.noun == noun or noun in CLASSES.get(wanted.noun, ()))
    true = true and wanted.adjective in (None, adjective) and wanted.count in (None, count)
    true = true and said.place in (None, place) and said.time in (None, time)
    return true != said.negated


def judge_by_worlds(premise: Clause, hypothesis: Clause) -> str:
    outcomes = {holds(hypothesis, world) for world in WORLDS if holds(premise, world)}
    return {frozenset([True]): "entailment", frozenset([False]): "contradiction"}.get(
        frozenset(outcomes), "neutral"
    )


def test_judge_equals_enumeration_of_worlds():
    draw = random.Random(7)

    def some_clause() -> Clause:
        adjective, count, place, time = (draw.choice((None, *values)) for values in DETAILS)
        thing = Thing(draw.choice((*NOUNS, "animal")), adjective, count)
        who, verb = draw.choice((MIRA, ELNA)), draw.choice(("buys", "sells"))
        return Clause(who, verb, thing, place, time, negated=draw.random() < 0.3)

    seen = set()
    for _ in range(400):
        premise = some_clause()
        # Often a variation of the premise: unrelated clauses nearly always contradict each other.
        hypothesis = some_clause()
        if draw.random() < 0.7:
            hypothesis = replace(premise, place=hypothesis.place, negated=hypothesis.negated)
        expected = judge_by_worlds(premise, hypothesis)
        seen.add((expected, premise.negated, hypothesis.negated))
        assert judge(premise, hypothesis) == expected, (premise, hypothesis)
    assert len(seen) >= 9  # every label, with and without negations
