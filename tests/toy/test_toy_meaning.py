"""The truth model against brute force over possible worlds, and what the tasks draw from it."""

import itertools
import random

import pytest

from stilts_jax.toy import meaning, tasks
from stilts_jax.toy.meaning import CLASSES, Clause, Entity, Thing, judge

MIRA, ELNA = Entity("person", ("Mira",)), Entity("person", ("Elna",))
TORVA, OSTIA = Entity("place", ("Torva",)), Entity("place", ("Ostia",))
# A small universe. A world is one full event: who, what is done, noun, adjective, count, place, time.
NOUNS = ("dog", "cat", "bread")
WORLDS = list(
    itertools.product(
        (MIRA, ELNA),
        ("buys", "sells"),
        NOUNS,
        ("red", "old"),
        ("2", "3"),
        (TORVA, OSTIA),
        ("today", "friday"),
    )
)


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


def test_hand_made_cases():
    premise = Clause(MIRA, "buys", Thing("dog", "red", "3"), TORVA, None)
    cases = [
        (Clause(MIRA, "buys", Thing("dog")), "entailment"),  # left out
        (Clause(MIRA, "buys", Thing("animal", "red"), TORVA), "entailment"),  # generalised
        (Clause(MIRA, "buys", Thing("dog", "red"), OSTIA), "contradiction"),  # another place
        (Clause(MIRA, "buys", Thing("dog", "red", "2")), "contradiction"),  # another count
        (Clause(MIRA, "buys", Thing("food")), "contradiction"),  # another class
        (Clause(MIRA, "buys", Thing("dog"), TORVA, "friday"), "neutral"),  # added
        (Clause(MIRA, "buys", Thing("dog"), negated=True), "contradiction"),
        (Clause(MIRA, "buys", Thing("cat"), negated=True), "entailment"),
        (Clause(MIRA, "buys", Thing("dog"), None, "friday", negated=True), "neutral"),
    ]
    assert [judge(premise, hypothesis) for hypothesis, _ in cases] == [label for _, label in cases]


def test_judge_equals_enumeration_of_worlds():
    draw = random.Random(7)

    def some_clause() -> Clause:
        thing = Thing(
            draw.choice((*NOUNS, "animal")), draw.choice((None, "red", "old")), draw.choice((None, "2", "3"))
        )
        place, time = draw.choice((None, TORVA, OSTIA)), draw.choice((None, "today", "friday"))
        negated = draw.random() < 0.3
        return Clause(draw.choice((MIRA, ELNA)), draw.choice(("buys", "sells")), thing, place, time, negated)

    seen = set()
    for _ in range(400):
        premise = some_clause()
        # Often a variation of the premise: unrelated clauses nearly always contradict each other.
        hypothesis = some_clause()
        if draw.random() < 0.7:
            hypothesis = meaning.replace(premise, place=hypothesis.place, negated=hypothesis.negated)
        expected = judge_by_worlds(premise, hypothesis)
        seen.add((expected, premise.negated, hypothesis.negated))
        assert judge(premise, hypothesis) == expected, (premise, hypothesis)
    assert len(seen) >= 9  # every label, with and without negations


def test_labels_of_drawn_inferences_follow_from_their_clauses():
    draw = random.Random(3)
    pairs = [tasks.inference(draw) for _ in range(300)]
    for pair in pairs:
        assert judge(pair.first.clauses[0], pair.second.clauses[0]) == pair.label
    counts = [sum(pair.label == label for pair in pairs) for label in tasks.LABELS]
    assert min(counts) > 70  # about a third each
    for label in tasks.LABELS:  # a negation gives nothing away
        share = [pair.second.clauses[0].negated for pair in pairs if pair.label == label]
        assert 0.05 < sum(share) / len(share) < 0.3


def test_paraphrases_say_the_same_and_others_do_not():
    draw = random.Random(5)
    for _ in range(200):
        pair = tasks.paraphrase(draw)
        same = set(pair.first.clauses) == set(pair.second.clauses)
        assert same == (pair.label == "1")


@pytest.mark.parametrize("options", [2, 3, 4])
def test_one_option_alone_follows_a_causal_rule(options):
    draw = random.Random(options)

    def leads(cause: Clause, effect: Clause) -> bool:
        for rule in meaning.CAUSES:
            sides = zip((rule.cause, rule.effect), (cause, effect), strict=True)
            if all(
                said.verb == verb
                and (isinstance(said.object, Thing) if target == "?" else said.object == target)
                for (verb, target), said in sides
            ):
                return True
        return False

    for _ in range(150):
        choice = tasks.causal(options)(draw)
        premise = choice.premise.clauses[0]
        right = [
            leads(option.clauses[0], premise)
            if choice.asked == "cause"
            else leads(premise, option.clauses[0])
            for option in choice.options
        ]
        assert right == [index == choice.label for index in range(options)]
        assert len(set(choice.options)) == options


def test_each_question_fits_one_sentence():
    draw = random.Random(11)
    parts = {"S": "subject", "O": "noun", "P": "place", "T": "time", "C": "count"}
    for _ in range(150):
        passage = tasks.passage(draw)
        for question in passage.questions:
            asked = question.asked.clauses[0]
            for number, sentence in enumerate(passage.sentences):
                told = sentence.clauses[0]
                clash = told.verb != asked.verb
                clash |= parts[question.asked.asked] != "subject" and told.subject != asked.subject
                for part in ("place", "time"):
                    both = getattr(told, part), getattr(asked, part)
                    clash |= parts[question.asked.asked] != part and None not in both and both[0] != both[1]
                if number == question.sentence:
                    assert not clash
                elif isinstance(told.object, Thing) and isinstance(asked.object, Thing):
                    if question.asked.asked != "O":
                        clash |= told.object.noun != asked.object.noun
                        for part in ("adjective", "count"):
                            both = getattr(told.object, part), getattr(asked.object, part)
                            clash |= (
                                parts[question.asked.asked] != part
                                and None not in both
                                and both[0] != both[1]
                            )
                    assert clash, (question, told)
