"""The toy languages: how each differs from toy English, how far that makes it, and how it says what `meaning` means.

The codes are those of real languages, so that the ordinary tasks find the toy data under their own names, but "de" here
is an invented language that shares with real German only its place near English. Toy English is real English words
without inflection; every other lexicon is made up from a seed. Words carry their part of speech, their entity tag and
the part of the clause that they say, so that tags and answer offsets need no second look.
"""

import itertools
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from stilts_jax.toy import meaning
from stilts_jax.toy.meaning import CLASS_OF, CLASSES, Clause, Entity, Thing, Utterance

CONCEPTS = (
    *("the", "in", "to", "for", "not", "is", "and", "because", "so"),
    "someone",  # nobody says it, but the lexicon of a seed is drawn for all concepts, in this order
    *("who", "what", "where", "when", "how many"),
    *(*meaning.CLASSES, *meaning.NOUNS, *meaning.ADJECTIVES, *meaning.TIMES),
    *(*meaning.HANDLE_VERBS, *meaning.MEET_VERBS, *meaning.MOTION_VERBS),
    *(*meaning.STATES, *meaning.CAUSED_VERBS, *meaning.FIRM_NOUNS, *meaning.PEOPLE_NOUNS),
    *("works", "person", "city"),
)
NAMES = tuple(dict.fromkeys(meaning.FIRST_NAMES + meaning.LAST_NAMES + meaning.PLACES + meaning.FIRMS))

_LETTERS = {
    "Cyrl": str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопкрстувшкыз"),
    "Arab": str.maketrans("abcdefghijklmnopqrstuvwxyz", "ابكدهفغحيجكلمنوبقرستوفوكيز"),
}
_HAN = (
    "天地人山水火木金土日月星云雨风雪花草树林石田竹米麦豆茶马牛羊鸟鱼虫龙虎犬口目耳手足心头身面衣食住行门户车舟刀弓"
    "东西南北中上下左右前后内外大小多少高低长短新古明白黑青红黄方圆平正直曲开关出入来去立坐飞走生老学文字书言语音乐"
    "王公士兵工农商医父母兄弟姐妹子女友爱喜怒安危吉力气光电色香味声夜晨春夏秋冬年岁时分百千万半双海河江湖岛桥城村"
)
_SYLLABLES: Mapping[str, tuple[str, str, str]] = {  # onsets, vowels, codas; each script sounds of itself
    "de": ("b br d f g gr h k kr l m n pf r s sch st t w z", "a e i o u ei au", " n r ch ck lt st t"),
    "es": ("b c ch d f g j l ll m n p r rr s t v", "a e i o u ia ue", " n s r l"),
    "sw": ("b ch d f g j k l m mb n nd ng p s sh t w y z", "a e i o u", ""),
    "tr": ("b c d g h k l m n p s t v y z", "a e i o u", " k l m n r t z"),
    "ru": ("б в г д ж з к л м н п р с т х ч ш", "а е и о у ы", " л н р с т к"),
    "ar": ("ب ت ج ح خ د ر ز س ش ص ط ع غ ف ق ك ل م ن ه", "ا و ي", " ب ت د ر س ل م ن"),
}
_ENTITY_TAG = {"person": "PER", "place": "LOC", "organisation": "ORG"}
# The word that asks for a part, and its tag; an invented language has one word for "how many".
_ASKING = {"S": "who", "O": "what", "P": "where", "T": "when", "C": "how many"}
_ASKING_TAGS = {"S": "PRON", "O": "PRON", "P": "ADV", "T": "ADV", "C": "ADV ADJ"}
# The fields of `Language` up to its lexicon; a "-" stands for none.
_DESIGN = """
en English Latn 1.00 1.00 1.0 SNVOPT -                   -              -                   .?
de German  Latn 0.60 1.00 0.9 SVNOPT -                   -              -                   .?
es Spanish Latn 0.45 1.00 1.0 SNVOPT adjective           -              -                   .?
sw Swahili Latn 0.30 1.00 0.7 SNVOPT adjective           article        noun=ki-,not=ha-    .?
tr Turkish Latn 0.15 1.00 0.8 STPOVN adposition,question article,copula object=yi,in=da,not=maz .?
ru Russian Cyrl 0.00 0.60 1.0 TSNVOP -                   article,copula object=у            .?
ar Arabic  Arab 0.00 0.40 0.8 NVSOPT adjective           article,copula the=ال-             .؟
zh Chinese Hani 0.00 0.25 0.9 STPNVO question            article,spaces -                   。？
"""


@dataclass(frozen=True)
class Language:
    """One toy language."""

    code: str
    name: str
    script: str
    cognates: float  # share of words that are spelled as in English (Latin script only)
    latin_names: float  # share of names that keep their Latin spelling; the others are written in the script
    text_share: float  # how much monolingual text there is of it, English being 1
    order: str  # places of subject S, verb V, object O, place P, time T and negation N
    last: frozenset[str]  # what stands last, not first: "adjective", "adposition" (as "in"), "question" word
    lacks: frozenset[str]  # "article" ("the"), "copula" ("is"), "spaces" between words
    # Morphemes glued to words in place of "in", "not" or "the", or to any "object" or "noun"; "ki-" is a prefix.
    affixes: Mapping[str, str]
    marks: str  # its full stop and its question mark
    words: Mapping[str, str]  # spelling of each concept
    names: Mapping[str, str]  # spelling of each name

    @property
    def distances(self) -> dict[str, float]:
        """How far it is from English by design, 0 to 1: in all, and its words' spelling and its parts' order alone."""
        words = len(CONCEPTS) + len(NAMES)
        spelling = 1 - (self.cognates * len(CONCEPTS) + self.latin_names * len(NAMES)) / words
        swapped = [self.order.index(a) > self.order.index(b) for a, b in itertools.combinations("SNVOPT", 2)]
        # Each of the three orders within phrases is worth two pairs.
        order = (sum(swapped) + 2 * len(self.last)) / (len(swapped) + 2 * 3)
        script = 0.0 if self.script == "Latn" else 1.0 if "spaces" in self.lacks else 0.8
        morphology = min(len(self.affixes) / 3, 1.0)
        whole = 0.50 * spelling + 0.20 * order + 0.15 * script + 0.15 * morphology
        return {"distance": whole, "spelling_difference": spelling, "order_difference": order}


def build_languages(seed: int, latin_names: Mapping[str, float]) -> tuple[Language, ...]:
    """The designed languages with their lexicons, all drawn from ``seed``; English comes first.

    ``latin_names`` are the shares of languages that have another than their design says.
    """
    taken = {word for concept in CONCEPTS for word in concept.split()} | {name.lower() for name in NAMES}
    rows = [row.split() for row in _DESIGN.strip().splitlines()]
    return tuple(_build(row, seed, taken, latin_names.get(row[0], float(row[4]))) for row in rows)


def _build(row: list[str], seed: int, taken: set[str], latin_names: float) -> Language:
    code, name, script, cognates, _, text_share, order, last, lacks, affixes, marks = row
    draw = random.Random(f"lexicon/{seed}/{code}")
    same = set(draw.sample(CONCEPTS, round(float(cognates) * len(CONCEPTS))))
    words = {word: word if word in same else _invent(code, draw, taken) for word in CONCEPTS}
    latin = set(draw.sample(NAMES, round(latin_names * len(NAMES))))

    def written(name: str) -> str:
        if script in _LETTERS:
            return name.lower().translate(_LETTERS[script]).capitalize()
        return _invent(code, draw, taken)  # by sound, as far as two signs can

    return Language(
        *(code, f"toy {name}", script, float(cognates), latin_names, float(text_share), order),
        last=frozenset(re.findall(r"\w+", last)),
        lacks=frozenset(re.findall(r"\w+", lacks)),
        affixes=dict(re.findall(r"(\w+)=([^,]+)", affixes)),
        marks=marks,
        words=words,
        names={name: name if name in latin else written(name) for name in NAMES},
    )


def _invent(code: str, draw: random.Random, taken: set[str]) -> str:
    while True:
        if code in _SYLLABLES:
            onsets, vowels, codas = (part.split(" ") for part in _SYLLABLES[code])
            word = "".join(
                draw.choice(onsets) + draw.choice(vowels) + (draw.choice(codas) if last else "")
                for last in ((True,) if draw.random() < 0.1 else (False, True))
            )
        else:
            word = "".join(draw.sample(_HAN, 1 if draw.random() < 0.4 else 2))
        if word not in taken:
            taken.add(word)
            return word


class Word(NamedTuple):
    """A word of a sentence. (A million of them are made: a tuple takes a third of a frozen record's time.)"""

    text: str
    tag: str  # its universal part of speech
    entity: str = "O"  # its tag in the BIO scheme
    part: str = ""  # the part of the clause that it says (S, V, O, P, T, N, C a count), if any


def say(utterance: Utterance, language: Language) -> list[Word]:
    """The sentence for ``utterance`` in ``language``."""
    said: list[Word] = []
    for number, clause in enumerate(utterance.clauses):
        phrases, front = _phrases(clause, language), "" if number else utterance.front
        if number:
            tag = "CCONJ" if utterance.connective == "and" else "SCONJ"
            said.append(Word(language.words[utterance.connective], tag))
        if utterance.asked:
            part = "O" if utterance.asked == "C" else utterance.asked
            spoken, tags = language.words[_ASKING[utterance.asked]], _ASKING_TAGS[utterance.asked]
            phrases[part] = [Word(text, tag, part="Q") for text, tag in zip(spoken.split(), tags.split())]
            if utterance.asked == "C" and isinstance(clause.object, Thing):  # with "how many" stands of what
                what = replace(clause.object, count=None)
                phrases[part] += _noun_phrase(what, language, "O", definite=False)
            front = "" if "question" in language.last else part
        order = front + language.order.replace(front, "")
        said += [word for part in order for word in phrases.get(part, ())]
    return [*said, Word(language.marks[bool(utterance.asked)], "PUNCT")]


def spell(sentences: Iterable[list[Word]], language: Language) -> tuple[str, list[list[tuple[int, int]]]]:
    """The text of sentences one after the other, and where each word of each begins and ends in it."""
    text, spaces = "", "spaces" not in language.lacks
    offsets: list[list[tuple[int, int]]] = []
    for words in sentences:
        text += " " if text and spaces else ""
        offsets.append([])
        for number, word in enumerate(words):
            # A language without spaces still sets off Latin names and figures.
            apart = spaces or text[-1:].isascii() or word.text[0].isascii()
            text += " " if number and word.tag != "PUNCT" and apart else ""
            offsets[-1].append((len(text), len(text) + len(word.text)))
            text += word.text
    return text, offsets


def text_of(utterances: Utterance | Iterable[Utterance], language: Language) -> str:
    """The text of one sentence, or of several one after the other."""
    several = [utterances] if isinstance(utterances, Utterance) else utterances
    return spell((say(said, language) for said in several), language)[0]


def _phrases(clause: Clause, language: Language) -> dict[str, list[Word]]:
    words, target, copula = language.words, clause.object, clause.verb == "is"
    phrases = {"S": _noun_phrase(clause.subject, language, "S")}
    if not copula or "copula" not in language.lacks:
        phrases["V"] = [Word(words[clause.verb], "AUX" if copula else "VERB", part="V")]
    if isinstance(target, str):
        phrases["O"] = [Word(words[target], "ADJ", part="O")]
    elif target is not None:
        kind = "thing" if isinstance(target, Thing) else target.kind
        role = "" if copula else {"organisation": "for", "place": "to"}.get(kind, "object")
        phrases["O"] = _in_role(role, _noun_phrase(target, language, "O", definite=not copula), language)
    if clause.place:
        phrases["P"] = _in_role("in", _noun_phrase(clause.place, language, "P"), language)
    if clause.time:
        phrases["T"] = [Word(words[clause.time], "ADV", part="T")]
    if clause.negated and "not" in language.affixes and "V" in phrases:
        phrases["V"] = [_glue(phrases["V"][0], language.affixes["not"])]
    elif clause.negated:
        phrases["N"] = [Word(words["not"], "PART", part="N")]
    return phrases


def _noun_phrase(what: Entity | Thing, language: Language, part: str, definite: bool = True) -> list[Word]:
    if isinstance(what, Entity):
        texts = [(language.names[name], "PROPN") for name in what.names]
        if what.noun:
            noun = (language.words[what.noun], "NOUN")
            texts = [noun, *texts] if "adjective" in language.last else [*texts, noun]
        tag = _ENTITY_TAG[what.kind]
        return [Word(text, pos, ("I-" if i else "B-") + tag, part) for i, (text, pos) in enumerate(texts)]
    head = Word(language.words[what.noun], "NOUN", part=part)
    if "noun" in language.affixes and (what.noun in CLASS_OF or what.noun in CLASSES):
        head = _glue(head, language.affixes["noun"])
    definite = definite and what.count is None
    if definite and "the" in language.affixes:
        head = _glue(head, language.affixes["the"])
    phrase = [head]
    if what.adjective:
        adjective = Word(language.words[what.adjective], "ADJ", part=part)
        phrase = [head, adjective] if "adjective" in language.last else [adjective, head]
    if what.count:
        return [Word(what.count, "NUM", part="C"), *phrase]
    article = definite and "article" not in language.lacks
    return [Word(language.words["the"], "DET"), *phrase] if article else phrase


def _in_role(role: str, phrase: list[Word], language: Language) -> list[Word]:
    """A phrase as an object, or with its adposition "in", "to" or "for"; some languages have a suffix instead."""
    if role in language.affixes:
        return [*phrase[:-1], _glue(phrase[-1], language.affixes[role])]
    if role not in language.words:
        return phrase
    word = Word(language.words[role], "ADP")
    return [*phrase, word] if "adposition" in language.last else [word, *phrase]


def _glue(word: Word, affix: str) -> Word:
    # A name keeps its own letters: an apostrophe parts it from a suffix, and foreign letters take none.
    if word.tag == "PROPN":
        foreign = word.text[0].isascii() != affix[0].isascii()
        return word if foreign else word._replace(text=f"{word.text}'{affix}")
    return word._replace(text=affix[:-1] + word.text if affix.endswith("-") else word.text + affix)
