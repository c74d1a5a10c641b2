"""The truth model against brute force over possible worlds; scripts and word orders against their design."""

import itertools
import random
import re
import unicodedata
from dataclasses import replace

from stilts_jax.toy import tasks
from stilts_jax.toy.languages import Utterance, build_languages, say, spell, text_of
from stilts_jax.toy.meaning import CLASSES, Clause, Entity, Thing, judge

LANGUAGES = build_languages(0)
BY_CODE = {language.code: language for language in LANGUAGES}
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


def test_drawn_inferences_are_balanced_and_a_negation_gives_nothing_away():
    draw = random.Random(3)
    pairs = [tasks.inference(draw) for _ in range(300)]
    for label in tasks.LABELS:
        negated = [second.clauses[0].negated for _, second, given in pairs if given == label]
        assert len(negated) > 70  # about a third each
        assert 0.05 < sum(negated) / len(negated) < 0.3


def test_scripts_are_what_they_are_called():
    names = {"Latn": "LATIN", "Cyrl": "CYRILLIC", "Arab": "ARABIC", "Hani": "CJK"}
    for language in LANGUAGES:
        letters = [letter for word in language.words.values() for letter in word if letter.isalpha()]
        assert {unicodedata.name(letter).split()[0] for letter in letters} == {names[language.script]}
    arabic = [unicodedata.bidirectional(letter) for word in BY_CODE["ar"].words.values() for letter in word]
    assert set(arabic) <= {"AL", "R"}


def test_word_order_by_hand():
    clause = Clause(
        Entity("person", ("Mira",)), "buys", Thing("apple", "red", "3"), Entity("place", ("Torva",)), "friday"
    )
    order = {}
    for language in LANGUAGES:
        parts = [word.part for word in say(Utterance((clause,)), language) if word.part in tuple("SVOPT")]
        order[language.code] = "".join(dict.fromkeys(parts))
    assert order == {
        **dict.fromkeys(("en", "de", "es", "sw"), "SVOPT"),
        "tr": "STPOV",
        "ru": "TSVOP",
        "ar": "VSOPT",
        "zh": "STPVO",
    }
    english, turkish = BY_CODE["en"], BY_CODE["tr"]
    assert text_of(Utterance((clause,)), english) == "Mira buys 3 red apple in Torva friday."
    assert text_of(Utterance((clause,), front="P"), english) == "in Torva Mira buys 3 red apple friday."
    assert text_of(Utterance((clause,), asked="O"), english) == "what Mira buys in Torva friday?"
    assert (
        text_of(Utterance((clause,), asked="C"), english) == "how many red apple Mira buys in Torva friday?"
    )
    words = text_of(Utterance((clause,)), turkish).split()
    assert words[2] == "Torva'" + turkish.affixes["in"]  # a suffix instead of "in"
    assert words[5] == turkish.words["apple"] + turkish.affixes["object"]


def test_offsets_slice_the_words():
    draw = random.Random(2)
    for language in LANGUAGES:
        for _ in range(30):
            sentences = [say(tasks.statement(draw), language) for _ in range(2)]
            text, offsets = spell(sentences, language)
            for words, spans in zip(sentences, offsets, strict=True):
                assert [text[start:end] for start, end in spans] == [word.text for word in words]
            assert text == text.strip() and "  " not in text
            assert language.code != "zh" or not re.search(r"[\u4e00-\u9fff] [\u4e00-\u9fff]", text)
