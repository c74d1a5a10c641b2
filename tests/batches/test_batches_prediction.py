import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.batches.masking import Masking
from stilts_jax.batches.plan import PredictionStream
from stilts_jax.errors import ConfigError
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.records import Features, Ragged
from stilts_jax.tasks.spec import ChoiceExample, SpanExample, TextExample


def make_features(lengths) -> Features:
    columns = {
        "example": np.arange(len(lengths)),
        "language": np.zeros(len(lengths), np.int32),
        "tokens": Ragged.from_list([[5 + length] * length for length in lengths]),
    }
    return Features("embed", columns, ("en",), len(lengths), "")


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), max_size=120),
    tokens=st.integers(8, 2000),
    row_multiple=st.sampled_from([1, 4, 8]),
    buckets=st.integers(1, 6),
)
def test_every_row_comes_once_in_few_shapes(lengths, tokens, row_multiple, buckets):
    features = make_features(lengths)
    stream = PredictionStream(
        "t", features, tokens_per_batch=tokens, row_multiple=row_multiple, max_buckets=buckets
    )
    batches = list(stream)
    assert len(batches) == len(stream)
    seen, shapes, padding = [], set(), 0
    for batch in batches:
        array, weight = batch.arrays["tokens"], batch.arrays["weight"]
        shapes.add(array.shape)
        assert array.shape[0] % row_multiple == 0 and array.shape[1] in stream.buckets
        assert array.size <= tokens or array.shape[0] == row_multiple
        np.testing.assert_array_equal(weight, batch.rows >= 0)
        padding += int((weight == 0).sum())
        for number, row in enumerate(batch.rows):
            assert (array[number] != 1).any()  # also a row that only fills up has something to attend to
            if row >= 0:
                seen.append(int(row))
                assert (array[number] != 1).sum() == lengths[row]
    assert sorted(seen) == list(range(len(lengths)))
    assert shapes == set(stream.shapes) and len(stream.buckets) <= buckets
    assert len(shapes) <= buckets + 1
    if batches:  # only the last batch has rows that fill up
        assert padding == (batches[-1].rows < 0).sum()


def test_rows_come_longest_first():
    lengths = np.random.default_rng(0).integers(1, 200, 300)
    rows = np.concatenate(
        [batch.rows for batch in PredictionStream("t", make_features(lengths), rows_per_batch=16)]
    )
    assert (np.diff(lengths[rows[rows >= 0]]) <= 0).all()


def test_a_small_set_is_not_blown_up():
    (batch,) = PredictionStream("t", make_features([9, 9, 9]), tokens_per_batch=16384, row_multiple=2)
    assert batch.arrays["tokens"].shape[0] == 4


def test_spans_say_which_positions_may_answer(tokenizer, lines):
    examples = [SpanExample("", lines[i], " ".join(lines[i : i + 4])) for i in range(20)]
    features = build_features("span", {"en": examples}, tokenizer, FeatureSettings(40, 9, 9), training=False)
    for batch in PredictionStream("t", features, rows_per_batch=8):
        for number, row in enumerate(batch.rows):
            if row >= 0:
                expected = features.columns["max_context"][row]
                mask = batch.arrays["context_mask"][number]
                assert mask.dtype == bool and not mask[len(expected) :].any()
                np.testing.assert_array_equal(mask[: len(expected)], expected)


def test_the_choices_of_a_row_count_as_tokens(tokenizer, lines):
    examples = [ChoiceExample("", lines[i], ("a", "b", "c"[: 1 + i % 2])) for i in range(30)]
    features = build_features("choice", {"en": examples}, tokenizer, FeatureSettings(64), training=False)
    for batch in PredictionStream("t", features, tokens_per_batch=1024, row_multiple=1):
        assert batch.arrays["tokens"].ndim == 3 and batch.arrays["tokens"].size <= 1024


def test_running_text_is_masked_the_same_whenever_it_is_read(tokenizer, lines):
    examples = {"en": [TextExample("", line) for line in lines], "de": [TextExample("", lines[0])] * 3}
    features = build_features("mlm", examples, tokenizer, FeatureSettings(40), training=False)
    masking = Masking(tokenizer.mask_id, tokenizer.vocab_size)
    stream = PredictionStream("t", features, rows_per_batch=16, masking=masking)
    rows, tokens = [], 0
    for index, batch in enumerate(stream):
        for name, array in batch.arrays.items():
            np.testing.assert_array_equal(array, stream.batch_at(index).arrays[name])
        rows.extend(batch.rows[batch.rows >= 0].tolist())
        real = batch.arrays["weight"] > 0
        tokens += int((batch.arrays["tokens"][real] != 1).sum())
        assert (batch.arrays["masked_weights"].sum(axis=1) > 0).tolist() == real.tolist()
    assert sorted(rows) == list(range(len(rows)))
    assert tokens == features.columns["tokens"].lengths.sum()  # all of the text, once
    with pytest.raises(ConfigError):
        PredictionStream("t", features)
