"""Says what `meaning` means: turns clauses into the words of one toy language.

Words carry their part of speech, their entity tag and the part of the clause that they say, so that tags and
answer offsets need no second look at the text.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from stilts_jax.toy.languages import Language
from stilts_jax.toy.meaning import CLASS_OF, CLASSES, STATES, Clause, Entity, Thing

_ENTITY_TAG = {"person": "PER", "place": "LOC", "organisation": "ORG"}
_QUESTION_TAG = {"who": "PRON", "what": "PRON", "where": "ADV", "when": "ADV", "how": "ADV", "many": "ADJ"}
_ASKED = {"S": "who", "O": "what", "P": "where", "T": "when", "C": "how many"}


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a sentence.

    Attributes:
        tag: its universal part of speech.
        entity: its tag in the BIO scheme.
        part: which part of the clause it says (S, V, O, P, T, N, C a count); "" for what belongs to none.
    """

    text: str
    tag: str
    entity: str = "O"
    part: str = ""


Sentence = tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a sentence is to say, in whatever language.

    Attributes:
        clauses: one, or two that ``connective`` ("and", "because", "so") joins.
        front: "T" or "P" moves the first clause's time or place to the beginning.
        asked: the part (S, O, P, T or C) that the sentence asks for; "" for a statement.
    """

    clauses: tuple[Clause, ...]
    connective: str = ""
    front: str = ""
    asked: str = ""


def say(utterance: Utterance, language: Language) -> Sentence:
    """The sentence for ``utterance`` in ``language``."""
    if utterance.asked:
        return _ask(utterance.clauses[0], utterance.asked, language)
    words: list[Word] = []
    for index, clause in enumerate(utterance.clauses):
        if index:
            tag = "CCONJ" if utterance.connective == "and" else "SCONJ"
            words.append(Word(language.words[utterance.connective], tag))
        front = utterance.front if not index else ""
        phrases = _phrases(clause, language)
        words += [
            word for part in front + language.order.replace(front, "", 1) for word in phrases.get(part, ())
        ]
    return (*words, Word(language.stop, "PUNCT"))


def _ask(clause: Clause, part: str, language: Language) -> Sentence:
    phrases = _phrases(clause, language)
    words = language.words[_ASKED[part]].split()
    english = _ASKED[part].split()
    question = [
        Word(word, _QUESTION_TAG[english[i]] if len(words) == len(english) else "ADV", part="Q")
        for i, word in enumerate(words)
    ]
    if part == "C":  # "how many red apple Mira buys"
        assert isinstance(clause.object, Thing)
        noun = _thing(replace(clause.object, count=None), language, "O", definite=False)
        question += [*noun]
        part = "O"
    if language.question_first:
        order = part + language.order.replace(part, "")
    else:
        order = language.order
    phrases[part] = question
    words_out = [word for place in order for word in phrases.get(place, ())]
    return (*words_out, Word(language.question_mark, "PUNCT"))


def spell(words: Iterable[Word], language: Language) -> str:
    """The text of a sentence."""
    return spell_with_offsets(words, language)[0]


def spell_with_offsets(words: Iterable[Word], language: Language) -> tuple[str, list[tuple[int, int]]]:
    """The text of a sentence and where each word begins and ends in it."""
    text = ""
    offsets = []
    for word in words:
        foreign = text and (text[-1].isascii() or word.text[0].isascii())
        if text and word.tag != "PUNCT" and (language.spaces or foreign):
            text += " "  # a language without spaces still sets off Latin names and figures
        offsets.append((len(text), len(text) + len(word.text)))
        text += word.text
    return text, offsets


def _phrases(clause: Clause, language: Language) -> dict[str, list[Word]]:
    words = language.words
    phrases = {"S": _noun_phrase(clause.subject, language, "S", definite=True)}
    target = clause.object
    if clause.verb == "is":
        if language.copula:
            phrases["V"] = [Word(words["is"], "AUX", part="V")]
        if isinstance(target, str):
            tag = "ADJ" if target in STATES else "NOUN"
            phrases["O"] = [Word(words[target], tag, part="O")]
        elif target is not None:
            phrases["O"] = _noun_phrase(target, language, "O", definite=False)
    else:
        phrases["V"] = [Word(words[clause.verb], "VERB", part="V")]
        if isinstance(target, Entity) and target.kind == "organisation":
            phrases["O"] = _adposition("for", _noun_phrase(target, language, "O", definite=False), language)
        elif isinstance(target, Entity) and target.kind == "place":
            phrases["O"] = _adposition("to", _noun_phrase(target, language, "O", definite=False), language)
        elif isinstance(target, (Entity, Thing)):
            phrases["O"] = _accusative(_noun_phrase(target, language, "O", definite=True), language)
    if clause.place:
        phrases["P"] = _adposition("in", _noun_phrase(clause.place, language, "P", definite=False), language)
    if clause.time:
        phrases["T"] = [Word(words[clause.time], "ADV", part="T")]
    if clause.negated:
        _negate(phrases, language)
    return phrases


def _noun_phrase(what: Entity | Thing, language: Language, part: str, *, definite: bool) -> list[Word]:
    if isinstance(what, Thing):
        return _thing(what, language, part, definite=definite)
    tag = _ENTITY_TAG[what.kind]
    texts = [(language.names[name], "PROPN") for name in what.names]
    if what.noun:
        noun = (language.words[what.noun], "NOUN")
        texts = [*texts, noun] if language.adjective_first else [noun, *texts]
    return [Word(text, pos, ("B-" if i == 0 else "I-") + tag, part) for i, (text, pos) in enumerate(texts)]


def _thing(thing: Thing, language: Language, part: str, *, definite: bool) -> list[Word]:
    concept = thing.noun
    if concept == "someone":
        return [Word(language.words["someone"], "PRON", part=part)]
    text = language.words[concept]
    known = concept in CLASS_OF or concept in CLASSES
    if known and "noun" in language.affixes:
        text = _affix(text, language.affixes["noun"])
    definite = definite and thing.count is None
    if definite and "definite" in language.affixes:
        text = _affix(text, language.affixes["definite"])
    noun = [Word(text, "NOUN", part=part)]
    adjective = [Word(language.words[thing.adjective], "ADJ", part=part)] if thing.adjective else []
    phrase = [*adjective, *noun] if language.adjective_first else [*noun, *adjective]
    if thing.count:
        return [Word(thing.count, "NUM", part="C"), *phrase]
    if definite and language.article and "definite" not in language.affixes:
        return [Word(language.words["the"], "DET", part=""), *phrase]
    return phrase


def _accusative(phrase: list[Word], language: Language) -> list[Word]:
    if "object" not in language.affixes:
        return phrase
    return [
        _glue(word, language.affixes["object"])
        if word.tag in ("NOUN", "PROPN") and i == len(phrase) - 1
        else word
        for i, word in enumerate(phrase)
    ]


def _adposition(concept: str, phrase: list[Word], language: Language) -> list[Word]:
    if "place" in language.affixes and concept == "in":
        return [*phrase[:-1], _glue(phrase[-1], language.affixes["place"])]
    word = Word(language.words[concept], "ADP")
    return [word, *phrase] if language.adposition_first else [*phrase, word]


def _negate(phrases: dict[str, list[Word]], language: Language) -> None:
    affix = language.affixes.get("negation")
    if affix and phrases.get("V"):
        phrases["V"] = [replace(phrases["V"][0], text=_affix(phrases["V"][0].text, affix))]
    else:
        phrases["N"] = [Word(language.words["not"], "PART", part="N")]


def _glue(word: Word, affix: str) -> Word:
    # A name keeps its own letters: an apostrophe parts it from a suffix, and foreign letters take none.
    if word.entity != "O" and word.tag == "PROPN":
        foreign = word.text[0].isascii() != affix[0].isascii()
        return word if foreign else replace(word, text=f"{word.text}'{affix}")
    return replace(word, text=_affix(word.text, affix))


def _affix(text: str, affix: str) -> str:
    return affix[:-1] + text if affix.endswith("-") else text + affix
