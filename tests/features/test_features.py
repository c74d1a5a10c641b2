"""Rows of pairs, choices, tagged words, texts to embed and running text, beside the tokenizer of ``transformers``."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stilts_jax.features.build import FeatureSettings, build_features
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
        options = FeatureSettings(max_length)
        features = build_features("classify", {"en": examples}, tokenizer, options, training=True)
        cut = {"truncation": True, "max_length": max_length}
        expected = [plain(one.text, one.pair, **cut)["input_ids"] for one in examples]
        assert rows(features.columns["tokens"]) == expected
    empty = {"en": [ClassifyExample("an empty second text is still one", "a", "", 0)]}
    features_of_empty = build_features("classify", empty, tokenizer, FeatureSettings(), training=True)
    assert rows(features_of_empty.columns["tokens"])[0][-3:] == [2, 2, 2]
    np.testing.assert_array_equal(features.columns["label"], [e.label for e in examples])


@pytest.mark.parametrize(
    ("kind", "example", "column"),
    [
        ("classify", partial(ClassifyExample, text="a", label=0), "label"),
        ("tag", partial(TagExample, words=("a", "b"), tags=(3, 4)), "tags"),
    ],
)
def test_languages_are_a_column_and_gold_may_be_blanked(tokenizer, kind, example, column):
    examples = {"en": [example("1")], "th": [], "de": [example("7", **{column: None}), example("8")]}
    features = build_features(kind, examples, tokenizer, FeatureSettings(), training=False)
    assert features.languages == ("en", "th", "de") and features.num_examples == 3
    assert features.columns["language"].tolist() == [0, 2, 2]
    assert features.columns["example"].tolist() == [0, 1, 2]
    assert np.max(features.columns[column][1]) == -1 < np.max(features.columns[column][2])


def test_a_prompt_loses_its_beginning_and_never_a_choice(tokenizer, plain, lines):
    prompt, short, long = lines[0], "中国 end.", " ".join(lines[:4])
    examples = [ChoiceExample("1", prompt, (short, "a", prompt), 2), ChoiceExample("2", "", ("b", long))]
    budget = len(ids(plain, short)) + 3
    options = FeatureSettings(budget + 4)
    features = build_features("choice", {"en": examples}, tokenizer, options, training=False)
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


def test_running_text_loses_nothing(tokenizer, plain, lines):
    texts = [*lines, "", lines[0]]
    examples = {"en": [TextExample(str(i), t) for i, t in enumerate(texts)]}
    features = build_features("mlm", examples, tokenizer, FeatureSettings(11), training=True)
    found: dict[int, list[int]] = {i: [] for i in range(len(texts))}
    for example, chunk in zip(features.columns["example"], rows(features.columns["tokens"])):
        assert chunk[0] == 0 and chunk[-1] == 2 and 2 < len(chunk) <= 11
        found[int(example)] += chunk[1:-1]
    assert [found[i] for i in range(len(texts))] == [ids(plain, text) for text in texts]


WORDS = ["a", "中国", "กรุงเทพ", "unbelievable", "\u200b", "\ufe0f", "", " ", "🙂🙂🙂", "x" * 130, "b c"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sentences=st.lists(st.lists(st.sampled_from(WORDS), max_size=14), min_size=1, max_size=4),
    max_length=st.integers(6, 30),
)
def test_every_word_has_one_slot_with_its_own_subwords_and_tag(tokenizer, plain, sentences, max_length):
    examples = [TagExample(f"{i}", (*words,), (*range(len(words)),)) for i, words in enumerate(sentences)]
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
