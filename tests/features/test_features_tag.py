import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stilts_jax.errors import DataError
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.tasks.spec import TagExample

WORDS = [
    "a",
    "中国",
    "กรุงเทพ",
    "unbelievable",
    "\u200b",
    "\ufe0f",
    "",
    " ",
    "🙂🙂🙂",
    "1995",
    "x" * 130,
    "b c",
    ":",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sentences=st.lists(st.lists(st.sampled_from(WORDS), max_size=14), min_size=1, max_size=4),
    max_length=st.integers(6, 30),
)
def test_every_word_has_one_slot_with_its_own_subwords_and_tag(tokenizer, plain, sentences, max_length):
    examples = [
        TagExample(str(i), tuple(words), tuple(range(len(words)))) for i, words in enumerate(sentences)
    ]
    features = build_features("tag", {"en": examples}, tokenizer, FeatureSettings(max_length), training=True)
    columns = features.columns
    found: dict[int, list[list[int]]] = {i: [] for i in range(len(sentences))}
    for row, example in enumerate(columns["example"].tolist()):
        tokens, tags, word = (columns[name][row].tolist() for name in ("tokens", "tags", "word"))
        assert len(tokens) == len(tags) == len(word) <= max_length
        assert (tokens[0], tokens[-1]) == (0, 2) and {tags[0], tags[-1], word[0], word[-1]} == {-1}
        assert tags == word  # because tags were numbered like words
        for token, number in zip(tokens[1:-1], word[1:-1]):
            if number >= 0:
                assert number == len(found[example])
                found[example].append([])
            found[example][-1].append(token)
    assert sorted(set(columns["example"].tolist())) == list(range(len(sentences)))
    for index, words in enumerate(sentences):
        alone = [plain(word, add_special_tokens=False)["input_ids"] for word in words]
        limit = min(100, max_length - 2)
        assert found[index] == [piece if 0 < len(piece) <= limit else [3] for piece in alone]


def test_blanked_tags_are_ignored_but_not_trained_on(tokenizer):
    examples = {"en": [TagExample("1", ("a", "b"), (3, 4))], "sw": [TagExample("9", ("a", "b"))]}
    features = build_features("tag", examples, tokenizer, FeatureSettings(), training=False)
    assert (features.columns["tags"][1] == -1).all() and (features.columns["word"][1] >= 0).sum() == 2
    with pytest.raises(DataError, match="no gold") as caught:
        build_features("tag", examples, tokenizer, FeatureSettings(), training=True)
    assert "language sw" in caught.value.where


@pytest.mark.real
@pytest.mark.parametrize("name", ["panx", "udpos"])
def test_every_real_word_gets_one_slot(name, real_root, real_tokenizer):

    from stilts_jax.tasks import get_task
    from stilts_jax.tasks.sources.read import DataSource, available_languages, read_examples

    task, source = get_task(name), DataSource(real_root)
    languages = available_languages(task, "test", source)
    examples = {language: read_examples(task, "test", language, source) for language in languages}
    features = build_features("tag", examples, real_tokenizer, FeatureSettings(128), training=False)
    word, example = features.columns["word"], features.columns["example"]
    everything = [each for language in languages for each in examples[language]]
    counts = np.array([len(each.words) for each in everything])
    at = word.values >= 0
    owner = np.repeat(example, word.lengths)[at]
    np.testing.assert_array_equal(np.bincount(owner, minlength=len(counts)), counts)
    # In order, from 0, once each: the k-th slot of a sentence is its k-th word.
    expected = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    np.testing.assert_array_equal(word.values[at], expected)
    np.testing.assert_array_equal(
        features.columns["tags"].values[at], np.concatenate([each.tags for each in everything])
    )
    assert len(languages) > 4 and counts.sum() > 50_000
