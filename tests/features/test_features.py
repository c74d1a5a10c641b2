"""Rows of pairs, choices, tagged words, texts to embed and running text, beside the tokenizer of ``transformers``."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.features import ragged
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.ragged import Segments, join
from stilts_jax.tasks.spec import ChoiceExample, ClassifyExample, EmbedExample, TagExample, TextExample


def ids(plain, text):
    """The subwords of one text, by the plain path."""
    return plain(text, add_special_tokens=False)["input_ids"]


def rows(ragged):
    return [ragged[index].tolist() for index in range(len(ragged))]


def test_pairs_are_those_of_transformers(tokenizer, plain, lines):
    examples = [ClassifyExample(str(i), a, b, i % 3) for i, (a, b) in enumerate(pairwise(lines))]
    examples += [ClassifyExample("empty", "", "a", 0), ClassifyExample("one", lines[0], None, 1)]
    for max_length in (12, 13, 40, 300):
        features = build_features(
            "classify", {"en": examples}, tokenizer, FeatureSettings(max_length), training=True
        )
        expected = [
            plain(e.text, e.pair, truncation=True, max_length=max_length)["input_ids"] for e in examples
        ]
        assert rows(features.columns["tokens"]) == expected
    np.testing.assert_array_equal(features.columns["label"], [e.label for e in examples])


def test_an_empty_second_text_is_still_one(tokenizer):
    examples = {"en": [ClassifyExample("1", "a", "", 0), ClassifyExample("2", "", None, 0)]}
    features = build_features("classify", examples, tokenizer, FeatureSettings(), training=True)
    first, second = rows(features.columns["tokens"])
    assert first[-3:] == [2, 2, 2] and second == [0, 2]


def test_languages_are_a_column(tokenizer):
    english, chinese = ClassifyExample("1", "a", "b", 0), ClassifyExample("2", "中国", None, 1)
    examples = {"en": [english], "th": [], "zh": [chinese] * 2}
    features = build_features(
        "classify", examples, tokenizer, FeatureSettings(), training=False, fingerprint="f"
    )
    assert features.languages == ("en", "th", "zh")
    assert features.columns["language"].tolist() == [0, 2, 2]
    assert features.columns["example"].tolist() == [0, 1, 2]
    assert (features.num_examples, features.fingerprint, len(features)) == (3, "f", 3)


def test_blanked_labels_stop_training_only(tokenizer):
    examples = {"en": [ClassifyExample("1", "a", "b", 0)], "de": [ClassifyExample("7", "a", "b")]}
    features = build_features("classify", examples, tokenizer, FeatureSettings(), training=False)
    assert features.columns["label"].tolist() == [0, -1]
    with pytest.raises(DataError) as caught:
        build_features("classify", examples, tokenizer, FeatureSettings(), training=True)
    assert "language de" in caught.value.where and "'7'" in caught.value.where


def test_a_prompt_loses_its_beginning_and_never_a_choice(tokenizer, plain, lines):
    prompt, short, long = lines[0], "中国 end.", " ".join(lines[:4])
    examples = [ChoiceExample("1", prompt, (short, "a", prompt), 2), ChoiceExample("2", "", ("b", long))]
    budget = len(ids(plain, short)) + 3
    features = build_features(
        "choice", {"en": examples}, tokenizer, FeatureSettings(budget + 4), training=False
    )
    found = iter(rows(features.columns["tokens"]))
    for example in examples:
        for choice in example.choices:
            end = ids(plain, choice)[:budget]  # only a choice longer than a row is cut
            begin = ids(plain, example.prompt)
            begin = begin[max(len(begin) - (budget - len(end)), 0) :]
            assert next(found) == [0, *begin, 2, 2, *end, 2]
    assert features.columns["first_choice"].tolist() == [0, 3]
    assert features.columns["num_choices"].tolist() == [3, 2]
    assert features.columns["label"].tolist() == [2, -1]


def test_texts_to_embed_and_their_partners(tokenizer, plain, lines):
    examples = [EmbedExample(str(i), a, b) for i, (a, b) in enumerate(pairwise(lines))]
    trained = build_features("embed", {"en": examples}, tokenizer, FeatureSettings(20, 9), training=True)
    embedded = build_features("embed", {"en": examples}, tokenizer, FeatureSettings(20, 9), training=False)
    for i, example in enumerate(examples):
        assert trained.columns["tokens"][i].tolist() == [0, *ids(plain, example.text)[:7], 2]
        assert trained.columns["pair_tokens"][i].tolist() == [0, *ids(plain, example.positive)[:18], 2]
        assert embedded.columns["tokens"][i].tolist() == [0, *ids(plain, example.text)[:18], 2]
    assert "pair_tokens" not in embedded.columns
    with pytest.raises(DataError):
        build_features("embed", {"en": [EmbedExample("1", "a")]}, tokenizer, FeatureSettings(), training=True)


def test_running_text_loses_nothing(tokenizer, plain, lines):
    texts = [*lines, "", lines[0]]
    examples = {"en": [TextExample(str(i), t) for i, t in enumerate(texts)]}
    features = build_features("mlm", examples, tokenizer, FeatureSettings(11), training=True)
    found: dict[int, list[int]] = {i: [] for i in range(len(texts))}
    for example, chunk in zip(features.columns["example"], rows(features.columns["tokens"])):
        assert chunk[0] == 0 and chunk[-1] == 2 and 2 < len(chunk) <= 11
        found[int(example)] += chunk[1:-1]
    assert [found[i] for i in range(len(texts))] == [ids(plain, text) for text in texts]


def test_a_text_is_tokenized_once(tokenizer, lines, encoded_texts):
    examples = [ClassifyExample("", lines[i % 3], lines[i % 2], 0) for i in range(20)]
    build_features("classify", {"en": examples}, tokenizer, FeatureSettings(), training=True)
    assert sorted(encoded_texts) == sorted(set(lines[:3]))


def test_settings_that_leave_no_room_are_refused():
    with pytest.raises(ConfigError):
        FeatureSettings(max_length=5)
    with pytest.raises(ConfigError):
        FeatureSettings(stride=0)


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


@pytest.mark.parametrize("block", [1, 7, 2**20])
def test_rows_are_put_together_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(ragged, "_BLOCK", block)
    draw = np.random.default_rng(block)
    values = draw.integers(0, 99, 50).astype(np.int32)
    starts, lengths = draw.integers(0, 40, 30), draw.integers(0, 10, 30)
    segments = Segments(values, starts, lengths)
    rows = join(-1, segments.tail(3), 7, 7, segments.head(4), rows=30)
    for row in range(30):
        whole = values[starts[row] : starts[row] + lengths[row]].tolist()
        assert rows[row].tolist() == [-1, *whole[max(len(whole) - 3, 0) :], 7, 7, *whole[:4]]
    assert rows.values.dtype == np.int32


def test_nothing_to_join():
    nothing = np.zeros(0, np.int64)
    assert join(rows=0).offsets.tolist() == [0]
    assert join(Segments(nothing, nothing, nothing), rows=0).offsets.tolist() == [0]
    assert join(Segments(nothing, *np.zeros((2, 3), np.int64)), rows=3).offsets.tolist() == [0, 0, 0, 0]
