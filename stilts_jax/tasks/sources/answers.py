"""Answers to questions about pictures: spelled alike, and scored against those of ten people (VQA v2)."""

import re
from collections.abc import Sequence

from stilts_jax.tasks.spec import names, pairs

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32  # the official script hands re.UNICODE, which is 32, to `sub` as a count
_DIGITS = pairs("none:0 zero:0 one:1 two:2 three:3 four:4 five:5 six:6 seven:7 eight:8 nine:9 ten:10")
_ARTICLES = ("a", "an", "the")
# The contractions of the official script. What lacks one of the apostrophes gets it.
_CONTRACTED = names("""
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""")
_MENDED = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # so it stands there


def normalise_answer(text: str) -> str:
    """Returns an answer as the official script spells it: no punctuation, no articles, digits, lower case."""
    found = text
    in_number = _COMMA_IN_NUMBER.search(text)
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in text or f" {sign}" in text
        found = found.replace(sign, "" if beside_space or in_number else " ")
    found = _PERIOD.sub("", found, count=_MOST_PERIODS)
    words = [_DIGITS.get(word, word) for word in found.lower().split()]
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def score_answer(predicted: str, answers: Sequence[str]) -> float:
    """Returns the accuracy of one answer, 0 to 1: the mean of ``min(matches / 3, 1)`` over all nine of ten people.

    Answers are normalised only where people disagree, as in the official script.
    """
    predicted, people = _clean(predicted), [_clean(answer) for answer in answers]
    if len(set(people)) > 1:
        predicted, people = normalise_answer(predicted), [normalise_answer(answer) for answer in people]
    matches = [answer.lower() == predicted.lower() for answer in people]
    return sum(min((sum(matches) - match) / 3, 1.0) for match in matches) / len(matches)


def _clean(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
