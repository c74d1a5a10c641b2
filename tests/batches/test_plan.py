from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stilts_jax.batches.masking import Masking
from stilts_jax.batches.plan import (
    PredictionStream,
    TrainingBatches,
    bucket_lengths,
    find_bucket,
    round_lengths,
)
from stilts_jax.errors import DataError
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.records import Features, Ragged
from stilts_jax.tasks.spec import (
    ChoiceExample,
    ClassifyExample,
    EmbedExample,
    SpanExample,
    TagExample,
    TextExample,
)

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_features(lengths, seed=0) -> Features:
    """classify rows whose label is the row's number."""
    draw = np.random.default_rng(seed)
    columns = {
        "example": np.arange(len(lengths)),
        "language": np.zeros(len(lengths), np.int32),
        "tokens": Ragged.from_list([draw.integers(4, 99, length) for length in lengths]),
        "label": np.arange(len(lengths), dtype=np.int32),
    }
    return Features("classify", columns, ("en",), len(lengths), "")


def make_batches(features, **options) -> TrainingBatches:
    return TrainingBatches("t", features, **{"batch_size": 4, "seed": 7, "max_length": 64, **options})


@QUICK
@given(
    lengths=st.lists(st.integers(1, 64), min_size=1, max_size=70),
    batch_size=st.integers(1, 9),
    window=st.integers(1, 5),
    seed=st.integers(-3, 2**70),
)
def test_batches_are_exactly_full_and_epochs_see_each_row_once(lengths, batch_size, window, seed):
    batches = make_batches(make_features(lengths), batch_size=batch_size, window=window, seed=seed)
    assert batches.steps_per_epoch == -(-len(lengths) // batch_size)
    steps = window * 3 * batches.steps_per_epoch  # whole windows
    rows = [batches.rows_at(step) for step in range(steps)]
    assert all(len(each) == batch_size for each in rows)
    # At any window's end each row has come as often as any other, or once more.
    for windows in range(1, steps // window + 1):
        counts = np.bincount(np.concatenate(rows[: windows * window]), minlength=len(lengths))
        assert counts.max() - counts.min() <= 1
    if window > 1:  # inside a window no batch overlaps another in length
        sizes = np.array(lengths)
        for first in range(0, steps, window):
            spans = sorted((sizes[each].min(), sizes[each].max()) for each in rows[first : first + window])
            assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_without_windows_it_is_a_plain_shuffle_and_epochs_differ():
    batches = make_batches(make_features([5] * 40), window=1)
    epochs = [np.concatenate([batches.rows_at(e * 10 + s) for s in range(10)]) for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(40))
    assert epochs[0].tolist() != epochs[1].tolist() and epochs[0].tolist() != list(range(40))


def test_any_step_can_be_asked_for_first():
    features = make_features(np.random.default_rng(0).integers(1, 60, 90))
    inorder = [make_batches(features).batch_at(step) for step in range(50)]
    batches = make_batches(features)
    for step in (49, 3, 48, 0, 3):
        batch = batches.batch_at(step)
        np.testing.assert_array_equal(batch.rows, inorder[step].rows)
        for name, array in batch.arrays.items():
            np.testing.assert_array_equal(array, inorder[step].arrays[name])
    other = make_batches(features, seed=8)
    assert any((other.rows_at(step) != inorder[step].rows).any() for step in range(5))


@pytest.mark.parametrize("kind", ["classify", "choice", "tag", "span", "embed"])
def test_every_kind_arrives_padded_as_a_loop_would_pad_it(tokenizer, lines, kind):
    examples = {
        "classify": [ClassifyExample("", line, None, number) for number, line in enumerate(lines)],
        "choice": [ChoiceExample("", lines[i], tuple(lines[i : i + 2 + i % 3]), 0) for i in range(20)],
        "tag": [TagExample("", (words := tuple(line.split())), tuple(range(len(words)))) for line in lines],
        "span": [SpanExample("", "a b", line, ((line[:3].strip(), 0),)) for line in lines if line[0] != " "],
        "embed": [EmbedExample("", line, " ".join(lines[i : i + 3])) for i, line in enumerate(lines)],
    }[kind]
    features = build_features(kind, {"en": examples}, tokenizer, FeatureSettings(40, 20, 9), training=True)
    batches, columns = make_batches(features, max_length=40), features.columns
    assert 1 <= len(batches.shapes) <= 8
    for step in range(8):
        batch = batches.batch_at(step)
        arrays = dict(batch.arrays)
        assert arrays.pop("weight").tolist() == [1.0] * 4
        assert ("choice_mask" in arrays, "context_mask" in arrays) == (kind == "choice", False)
        if kind == "choice":
            mask, tokens, label = arrays.pop("choice_mask"), arrays.pop("tokens"), arrays.pop("label")
            assert not arrays and tokens.shape[:2] == mask.shape == (4, 4) and not label.any()
            for number, row in enumerate(batch.rows):
                count, first = 2 + row % 3, columns["first_choice"][row]
                assert mask[number].tolist() == [True] * count + [False] * (4 - count)
                for choice in range(4):
                    expected = columns["tokens"][first + choice if choice < count else first].tolist()
                    assert tokens[number, choice].tolist() == expected + [1] * (
                        tokens.shape[2] - len(expected)
                    )
            continue
        lengths = [array.shape[1] for name, array in arrays.items() if name in ("tokens", "pair_tokens")]
        assert (4, *lengths) in batches.shapes and f"{len(batches.shapes)} shapes" in batches.describe()
        for name, array in arrays.items():
            for number, row in enumerate(batch.rows):
                expected = np.atleast_1d(columns[name][row]).tolist()
                fill = [-1 if name == "tags" else 1] * (array[number].size - len(expected))
                assert np.atleast_1d(array[number]).tolist() == expected + fill


def test_running_text_is_packed_and_masked_anew_each_step(tokenizer, lines):
    examples = {"en": [TextExample("", line) for line in lines], "de": [TextExample("", lines[0])] * 9}
    features = build_features("mlm", examples, tokenizer, FeatureSettings(64), training=True)
    batches = make_batches(features, masking=Masking(tokenizer.mask_id, tokenizer.vocab_size))
    whole = {tuple(features.columns["tokens"][row].tolist()) for row in range(len(features))}
    again: dict[int, set[bytes]] = {}
    for step in range(40):
        batch = batches.batch_at(step)
        arrays = dict(batch.arrays)
        assert arrays["tokens"].shape == (4, 64) and arrays["masked_positions"].shape == (4, 10)
        used = arrays["masked_weights"] > 0
        row = np.broadcast_to(np.arange(4)[:, None], used.shape)
        restored = arrays["tokens"].copy()
        restored[row[used], arrays["masked_positions"][used]] = arrays["masked_targets"][used]
        for number in range(4):
            segments = arrays["segments"][number]
            assert ((segments == 0) == (restored[number] == 1)).all()
            for segment in range(1, segments.max() + 1):
                inside = segments == segment
                assert tuple(restored[number][inside].tolist()) in whole
                assert arrays["positions"][number][inside].tolist() == list(range(inside.sum()))
            again.setdefault(int(batch.rows[number]), set()).add(arrays["tokens"][number].tobytes())
    assert max(len(versions) for versions in again.values()) > 1  # the same row, masked in another way


def test_nothing_to_train_on_is_said():
    with pytest.raises(DataError, match="no rows"):
        make_batches(make_features([]))


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
        [batch.rows for batch in PredictionStream("t", make_features(lengths), tokens_per_batch=3200)]
    )
    assert (np.diff(lengths[rows[rows >= 0]]) <= 0).all()


def test_a_small_set_is_not_blown_up():
    (batch,) = PredictionStream("t", make_features([9, 9, 9]), tokens_per_batch=16384, row_multiple=2)
    assert batch.arrays["tokens"].shape[0] == 4


def test_spans_say_which_positions_may_answer(tokenizer, lines):
    examples = [SpanExample("", lines[i], " ".join(lines[i : i + 4])) for i in range(20)]
    features = build_features("span", {"en": examples}, tokenizer, FeatureSettings(40, 9, 9), training=False)
    for batch in PredictionStream("t", features, tokens_per_batch=320):
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
    stream = PredictionStream("t", features, tokens_per_batch=640, masking=masking)
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


def cost(lengths, buckets):
    return sum(min(bucket for bucket in buckets if bucket >= length) for length in lengths)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 80), min_size=1, max_size=25), count=st.integers(1, 4))
def test_no_choice_of_as_many_lengths_pads_less(lengths, count):
    longest = max(lengths)
    buckets = bucket_lengths(np.array(lengths), longest, max_count=count, multiple=8)
    assert len(buckets) <= count and list(buckets) == sorted(set(buckets))
    sizes = sorted(set(round_lengths(np.array(lengths), 8).tolist()))
    best = min(
        cost(lengths, (*some, sizes[-1]))
        for number in range(min(count, len(sizes)))
        for some in combinations(sizes[:-1], number)
    )
    # One more row of the longest takes part in the choice, which is worth at most its own length.
    assert cost(lengths, buckets) <= 1.01 * (best + buckets[-1])
    for length in lengths:
        assert find_bucket(buckets, length) == min(bucket for bucket in buckets if bucket >= length)


def test_lengths_by_hand():
    lengths = np.array([10] * 100 + [60] * 100)
    assert bucket_lengths(lengths, 60, max_count=8, multiple=8) == (10, 60)
    assert bucket_lengths(lengths, 60, max_count=1, multiple=8) == (60,)
    assert bucket_lengths(lengths + 9, 69, max_count=8, multiple=8) == (20, 72)
    assert bucket_lengths(lengths, 100, max_count=8, multiple=8, limit=100)[-1] == 100  # the limit wins
    assert bucket_lengths(lengths, 60, max_count=8, multiple=128) == (32, 64)
    assert bucket_lengths(np.zeros(0, int), 5, max_count=8, multiple=8) == (6,)
    # 100 rows padded from 10 to 60 are 5,000 tokens more: worth it up to that price.
    assert bucket_lengths(lengths, 60, price=4700) == (10, 60)
    assert bucket_lengths(lengths, 60, price=5100) == (60,)
