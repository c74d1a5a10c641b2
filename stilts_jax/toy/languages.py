"""The toy languages: how each one differs from toy English, and how far that makes it.

The codes are those of real languages, so that the ordinary tasks find the toy data under their own names, but
"de" here is an invented language that shares with real German only its place near English. Toy English is
real English words without inflection; every other lexicon is made up from a seed.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from stilts_jax.toy import meaning

FUNCTION_WORDS = (
    *("the", "in", "to", "for", "not", "is", "and", "because", "so", "someone"),
    *("who", "what", "where", "when", "how many", "?"),
)
CONTENT_WORDS = (
    *meaning.CLASSES,
    *meaning.NOUNS,
    *meaning.ADJECTIVES,
    *meaning.TIMES,
    *meaning.HANDLE_VERBS,
    *meaning.MEET_VERBS,
    *meaning.MOTION_VERBS,
    *meaning.STATES,
    *meaning.CAUSED_VERBS,
    *meaning.FIRM_NOUNS,
    *meaning.PEOPLE_NOUNS,
    *("works", "person", "city"),
)
CONCEPTS = tuple(word for word in FUNCTION_WORDS if word != "?") + CONTENT_WORDS
NAMES = tuple(dict.fromkeys(meaning.FIRST_NAMES + meaning.LAST_NAMES + meaning.PLACES + meaning.FIRMS))

_CYRILLIC = dict(zip("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопкрстувшкыз", strict=True))
_ARABIC = dict(zip("abcdefghijklmnopqrstuvwxyz", "ابكدهفغحيجكلمنوبقرستوفوكيز", strict=True))
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


@dataclass(frozen=True)
class Language:
    """One toy language.

    Attributes:
        cognates: share of words that are spelled as in English (Latin script only).
        latin_names: share of names that keep their Latin spelling; the others are written in the script.
        text_share: how much monolingual text there is of it, English being 1.
        order: places of subject S, verb V, object O, place P, time T and negation N.
        adjective_first, adposition_first, question_first: adjectives before nouns, "in" before places, question
            words at the front.
        affixes: morphemes glued to words: "object", "place" (instead of "in"), "negation" (instead of "not"),
            "noun", "verb", "definite"; a trailing hyphen marks a prefix.
        words: spelling of each concept; `build_languages` fills it.
        names: spelling of each name.
    """

    code: str
    name: str
    script: str = "Latn"
    cognates: float = 0.0
    latin_names: float = 1.0
    text_share: float = 1.0
    order: str = "SNVOPT"
    adjective_first: bool = True
    adposition_first: bool = True
    question_first: bool = True
    article: bool = True
    copula: bool = True
    spaces: bool = True
    right_to_left: bool = False
    stop: str = "."
    question_mark: str = "?"
    affixes: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def shared_spelling(self) -> float:
        """The share of word types, names included, that are spelled as in English, as it was designed."""
        if self.code == "en":
            return 1.0
        return (self.cognates * len(CONCEPTS) + self.latin_names * len(NAMES)) / (len(CONCEPTS) + len(NAMES))

    @property
    def order_difference(self) -> float:
        """Share of pairs of clause parts, and of parts of phrases, that stand in another order than in English."""
        english = "SNVOPT"
        pairs = [(a, b) for i, a in enumerate(english) for b in english[i + 1 :]]
        swapped = [self.order.index(a) > self.order.index(b) for a, b in pairs]
        swapped += (
            [not self.adjective_first] * 2 + [not self.adposition_first] * 2 + [not self.question_first] * 2
        )
        return sum(swapped) / len(swapped)

    @property
    def distance(self) -> float:
        """The known distance from English, 0 to 1: half lexicon, the rest order, script and morphology."""
        script = 0.0 if self.script == "Latn" else 1.0 if not self.spaces else 0.8
        morphology = min(len(self.affixes) / 3, 1.0)
        return (
            0.50 * (1 - self.shared_spelling)
            + 0.20 * self.order_difference
            + 0.15 * script
            + 0.15 * morphology
        )


DESIGN: tuple[Language, ...] = (
    Language("en", "toy English", cognates=1.0),
    Language("de", "toy German", cognates=0.60, order="SVNOPT", text_share=0.9),
    Language("es", "toy Spanish", cognates=0.45, adjective_first=False),
    Language(
        "sw",
        "toy Swahili",
        cognates=0.30,
        text_share=0.7,
        adjective_first=False,
        article=False,
        affixes={"noun": "ki-", "negation": "ha-"},
    ),
    Language(
        "tr",
        "toy Turkish",
        cognates=0.15,
        text_share=0.8,
        order="STPOVN",
        adposition_first=False,
        question_first=False,
        article=False,
        copula=False,
        affixes={"object": "yi", "place": "da", "negation": "maz"},
    ),
    Language(
        "ru",
        "toy Russian",
        script="Cyrl",
        latin_names=0.6,
        order="TSNVOP",
        article=False,
        copula=False,
        affixes={"object": "у"},
    ),
    Language(
        "ar",
        "toy Arabic",
        script="Arab",
        latin_names=0.4,
        text_share=0.8,
        order="NVSOPT",
        adjective_first=False,
        copula=False,
        right_to_left=True,
        question_mark="؟",
        affixes={"definite": "ال-"},
    ),
    Language(
        "zh",
        "toy Chinese",
        script="Hani",
        latin_names=0.25,
        text_share=0.9,
        order="STPNVO",
        question_first=False,
        article=False,
        spaces=False,
        stop="。",
        question_mark="？",
    ),
)


def build_languages(seed: int) -> tuple[Language, ...]:
    """The languages of `DESIGN` with their lexicons, all drawn from ``seed``; English comes first."""
    taken = {word for concept in CONCEPTS for word in concept.split()} | {name.lower() for name in NAMES}
    built = [
        replace(DESIGN[0], words={word: word for word in CONCEPTS}, names={name: name for name in NAMES})
    ]
    for language in DESIGN[1:]:
        draw = random.Random(f"lexicon/{seed}/{language.code}")
        cognates = set(draw.sample(CONCEPTS, round(language.cognates * len(CONCEPTS))))
        words = {
            concept: concept if concept in cognates else _invent(language, draw, taken)
            for concept in CONCEPTS
        }
        latin = set(draw.sample(NAMES, round(language.latin_names * len(NAMES))))
        names = {
            name: name if name in latin else _transliterate(name, language, draw, taken) for name in NAMES
        }
        built.append(replace(language, words=words, names=names))
    return tuple(built)


def _invent(language: Language, draw: random.Random, taken: set[str]) -> str:
    while True:
        if language.script == "Hani":
            word = "".join(draw.sample(_HAN, 1 if draw.random() < 0.4 else 2))
        else:
            onsets, vowels, codas = (part.split(" ") for part in _SYLLABLES[language.code])
            word = "".join(
                draw.choice(onsets) + draw.choice(vowels) + (draw.choice(codas) if last else "")
                for last in ((True,) if draw.random() < 0.1 else (False, True))
            )
        if word not in taken:
            taken.add(word)
            return word


def _transliterate(name: str, language: Language, draw: random.Random, taken: set[str]) -> str:
    if language.script == "Hani":  # by sound, as far as two signs can
        return _invent(language, draw, taken)
    letters = {"Cyrl": _CYRILLIC, "Arab": _ARABIC}[language.script]
    word = "".join(letters[letter] for letter in name.lower())
    return word.capitalize()
