"""The lexicons and word orders of the toy languages against what their design states."""

import random
import re
import unicodedata

import pytest

from stilts_jax.toy.draw import statement
from stilts_jax.toy.grammar import Utterance, say, spell, spell_with_offsets
from stilts_jax.toy.languages import CONCEPTS, NAMES, build_languages
from stilts_jax.toy.meaning import Clause, Entity, Thing

LANGUAGES = build_languages(0)
BY_CODE = {language.code: language for language in LANGUAGES}


def test_measured_spelling_falls_with_the_stated_distance():
    def measured(language):
        same = sum(language.words[concept] == concept for concept in CONCEPTS)
        return (same + sum(language.names[name] == name for name in NAMES)) / (len(CONCEPTS) + len(NAMES))

    distances = [language.distance for language in LANGUAGES]
    overlaps = [measured(language) for language in LANGUAGES]
    assert distances == sorted(distances) and distances[0] == 0
    assert overlaps == sorted(overlaps, reverse=True) and overlaps[0] == 1
    for language, overlap in zip(LANGUAGES, overlaps, strict=True):
        assert overlap == pytest.approx(language.shared_spelling, abs=0.01)


def test_no_word_of_one_language_means_something_else_in_another():
    meanings: dict[str, set[str]] = {}
    for language in LANGUAGES:
        for concept, word in language.words.items():
            meanings.setdefault(word, set()).add(concept)
    assert all(len(concepts) == 1 for concepts in meanings.values())


def test_scripts_are_what_they_are_called():
    names = {"Latn": "LATIN", "Cyrl": "CYRILLIC", "Arab": "ARABIC", "Hani": "CJK"}
    for language in LANGUAGES:
        letters = [letter for word in language.words.values() for letter in word if letter.isalpha()]
        assert {unicodedata.name(letter).split()[0] for letter in letters} == {names[language.script]}
    arabic = [unicodedata.bidirectional(letter) for word in BY_CODE["ar"].words.values() for letter in word]
    assert set(arabic) <= {"AL", "R"} and BY_CODE["ar"].right_to_left


def test_chinese_writes_no_space_between_its_words():
    draw = random.Random(1)
    for _ in range(200):
        text = spell(say(statement(draw), BY_CODE["zh"]), BY_CODE["zh"])
        assert not re.search(r"[\u4e00-\u9fff] [\u4e00-\u9fff]", text)


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
    assert (
        spell(say(Utterance((clause,)), BY_CODE["en"]), BY_CODE["en"])
        == "Mira buys 3 red apple in Torva friday."
    )
    fronted = spell(say(Utterance((clause,), front="P"), BY_CODE["en"]), BY_CODE["en"])
    assert fronted == "in Torva Mira buys 3 red apple friday."
    asked = spell(say(Utterance((clause,), asked="O"), BY_CODE["en"]), BY_CODE["en"])
    assert asked == "what Mira buys in Torva friday?"
    turkish = BY_CODE["tr"]
    words = spell(say(Utterance((clause,)), turkish), turkish).split()
    assert words[2] == "Torva'" + turkish.affixes["place"]  # a suffix instead of "in"
    assert words[5] == turkish.words["apple"] + turkish.affixes["object"]


def test_offsets_slice_the_words():
    draw = random.Random(2)
    for language in LANGUAGES:
        for _ in range(60):
            words = say(statement(draw), language)
            text, offsets = spell_with_offsets(words, language)
            assert [text[start:end] for start, end in offsets] == [word.text for word in words]
            assert text == text.strip() and "  " not in text


def test_lexicons_depend_on_the_seed_alone():
    assert build_languages(0) == LANGUAGES
    other = build_languages(1)
    assert other != LANGUAGES
    assert [language.distance for language in other] == [language.distance for language in LANGUAGES]
