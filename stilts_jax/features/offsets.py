"""Character offsets of subwords: what the tokenizer says, with three of its errors corrected.

A lone ``▁`` claims the first character of its word (in Chinese and Thai). Some tokenizers count the space before a
word as a part of the word. A combining mark that normalization merged into its letter, or dropped, belongs to no
subword. After the correction no subword begins with a space, and every combining mark belongs to a subword.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stilts_jax.tokenization import Encoded, Tokenizer

_JOINER = 0x200D  # shapes the letter before it (Malayalam, Sinhala), and is dropped by the tokenizer


@dataclass(frozen=True)
class Located:
    """Texts with the place of each subword, in characters of all texts laid end to end.

    Both ``starts`` and ``ends`` never decrease, so places are found by bisection.

    Attributes:
        ids: int32 [S]
        offsets: int64 [N + 1] into ``ids``, by text.
        starts: int64 [S]
        ends: int64 [S]; equal to the start where a subword has no character of its own.
        text_starts: int64 [N + 1], where each text begins.
    """

    ids: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    text_starts: np.ndarray


def locate(texts: Sequence[str], encoded: Encoded, tokenizer: Tokenizer) -> Located:
    """Repairs the character offsets of ``encoded``, which ``tokenizer`` made of ``texts``."""
    assert encoded.starts is not None and encoded.ends is not None  # of us, not of a user
    text_starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=text_starts[1:])
    characters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    space, mark = _classify(characters)
    shift = np.repeat(text_starts[:-1], np.diff(encoded.offsets))
    starts, ends = encoded.starts + shift, encoded.ends + shift

    # Spaces at the edges. ``next_solid[i]`` is the first place from i on that is no space.
    place = np.arange(len(characters) + 1)
    next_solid = np.where(np.append(space, False), len(characters), place)
    next_solid = np.minimum.accumulate(next_solid[::-1])[::-1]
    starts = np.minimum(next_solid[starts], ends)
    after_solid = np.maximum.accumulate(np.concatenate([[0], np.where(space, 0, place[1:])]))
    ends = np.maximum(after_solid[ends], starts)
    ends = np.where(encoded.ids == tokenizer.space_id, starts, ends)

    # Marks behind a subword that belong to no other.
    limit = np.append(starts[1:], len(characters))
    after_marks = np.where(np.append(mark, False), len(characters), place)
    after_marks = np.minimum.accumulate(after_marks[::-1])[::-1]
    is_last = np.zeros(len(starts), bool)
    is_last[encoded.offsets[1:][np.diff(encoded.offsets) > 0] - 1] = True
    limit = np.where(is_last, np.repeat(text_starts[1:], np.diff(encoded.offsets)), limit)
    ends = np.where(ends > starts, np.maximum(ends, np.minimum(after_marks[ends], limit)), ends)
    # Normalization can reorder or split one character; bisection needs order all the same.
    return Located(
        encoded.ids, encoded.offsets, np.maximum.accumulate(starts), np.maximum.accumulate(ends), text_starts
    )


def _classify(characters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns bool [N] twice: is it a space; is it a mark that combines with the character before."""
    seen = np.zeros(0x110000, bool)
    seen[characters] = True
    space, mark = np.zeros(0x110000, bool), np.zeros(0x110000, bool)
    for code in np.flatnonzero(seen):
        space[code] = chr(code).isspace()
        mark[code] = unicodedata.category(chr(code))[0] == "M" or code == _JOINER
    return space[characters], mark[characters]
