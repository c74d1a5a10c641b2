import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stilts_jax.features.offsets import locate

# Whole graphemes: a mark without a letter in front of it is lost in normalization.
GRAPHEMES = [*"ab é中国บ🙂,1½\t\u200b\u00a0", "ครั", "e\u0301", "น้ำ"]
TEXT = st.lists(st.sampled_from(GRAPHEMES), max_size=15).map("".join)


def place(tokenizer, texts):
    return locate(texts, tokenizer.encode(texts, characters=True), tokenizer)


def slices(located, texts, index):
    """The pieces of text that the subwords of one text stand for."""
    span = slice(located.offsets[index], located.offsets[index + 1])
    begin = located.text_starts[index]
    return [texts[index][a - begin : b - begin] for a, b in zip(located.starts[span], located.ends[span])]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_every_subword_stands_inside_its_text_and_never_on_a_space(tokenizer, texts):
    located = place(tokenizer, texts)
    assert (np.diff(located.starts) >= 0).all() and (np.diff(located.ends) >= 0).all()
    assert (located.starts <= located.ends).all()
    for index, text in enumerate(texts):
        span = slice(located.offsets[index], located.offsets[index + 1])
        assert (located.starts[span] >= located.text_starts[index]).all()
        assert (located.ends[span] <= located.text_starts[index + 1]).all()
        pieces = slices(located, texts, index)
        assert all(piece == piece.strip() for piece in pieces)
        # No letter is lost: what no subword stands for is a space, or nothing one can see.
        covered = np.zeros(len(text), bool)
        for a, b in zip(located.starts[span], located.ends[span]):
            covered[a - located.text_starts[index] : b - located.text_starts[index]] = True
        for number, character in enumerate(text):
            assert covered[number] or character in " \t\u200b\u00a0"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("北京 中国", "中国"),
        ("ครับ  กรุงเทพ", "กรุงเทพ"),
        ("\u200bمدينة كتاب", "كتاب"),
        ("a e\u0301te\u0301", "e\u0301te\u0301"),
        ("a അവന്\u200d", "അവന്\u200d"),
    ],
)
def test_the_last_word_is_sliced_exactly(tokenizer, text, word):
    located = place(tokenizer, [text])
    first = np.searchsorted(located.ends, text.rindex(word), side="right")
    assert text[located.starts[first] : located.ends[-1]] == word


def test_a_lone_word_beginning_claims_no_character(tokenizer):
    located = place(tokenizer, ["a 🙂"])
    lone = np.flatnonzero(located.ids == tokenizer.space_id)
    assert len(lone) and (located.starts[lone] == located.ends[lone]).all()
