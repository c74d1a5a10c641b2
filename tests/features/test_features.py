"""Rows of pairs, choices, texts to embed and running text, beside the tokenizer of ``transformers``."""

from itertools import pairwise

import numpy as np
import pytest

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.features.build import FeatureSettings, build_features, truncate_longest_first
from stilts_jax.tasks.spec import KINDS, ChoiceExample, ClassifyExample, EmbedExample, TextExample


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


def test_truncation_takes_from_the_longer_side():
    first, second = np.meshgrid(np.arange(12), np.arange(12))
    first, second = first.ravel(), second.ravel()
    for budget in range(2, 15):
        for a, b, kept_a, kept_b in zip(first, second, *truncate_longest_first(first, second, budget)):
            assert kept_a + kept_b == min(a + b, budget)
            assert kept_a == a or kept_b == b or abs(kept_a - kept_b) <= 1
            assert (kept_a == a or kept_a >= kept_b - 1) and (kept_b == b or kept_b >= kept_a - 1)


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


def test_no_examples_make_no_rows(tokenizer):
    for kind in KINDS:
        features = build_features(kind, {"en": []}, tokenizer, FeatureSettings(), training=False)
        assert len(features) == 0 and len(features.columns["tokens"]) == 0


def test_settings_that_leave_no_room_are_refused():
    with pytest.raises(ConfigError):
        FeatureSettings(max_length=5)
    with pytest.raises(ConfigError):
        FeatureSettings(stride=0)
