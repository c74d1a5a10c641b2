"""The sentence breaker behind LAReQA's training pairs."""

import pytest

from stilts_jax.tasks.sources.retrieval import find_sentences, sentence_at


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rained.", "We left!", '"Why?" he asked.', "Nobody knew."],
        ["Mr. A. B. Smith met Dr. Jones on Jan. 5.", "They spoke of e.g. Kant."],
        ["It was built in 1900.[12]", "The architect (a friend of J. R. Hope.)", "He died."],
        ["See No. 5 of vol. 2.", "He was Dr. No.", "He left."],
        ["The U.S. Army came.", "In the U.S.", "However, it left."],
    ],
)
def test_sentences_end_where_people_end_them(sentences):
    text = "  " + " ".join(sentences) + " "
    assert [text[start:end] for start, end in find_sentences(text)] == sentences


def test_the_sentence_of_a_character():
    breaks = find_sentences("One. Two.")
    assert [sentence_at(position, breaks) for position in (0, 3, 4, 5, 8, 9)] == [0, 0, None, 1, 1, None]
    assert find_sentences("  ") == ()
