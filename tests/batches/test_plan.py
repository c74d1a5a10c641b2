import threading
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stilts_jax.batches.collate import Masking
from stilts_jax.batches.plan import (
    PredictionStream,
    TrainingBatches,
    bucket_lengths,
    made_ahead,
    round_lengths,
)
from stilts_jax.errors import ConfigError
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.records import Features, Ragged
from stilts_jax.tasks import spec

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
    return Features("classify", columns, ("en",), len(lengths))


def make_batches(features, **options) -> TrainingBatches:
    return TrainingBatches("t", features, **{"batch_size": 4, "seed": 7, "max_length": 64, **options})


@pytest.mark.parametrize("window", [1, 8])
def test_rare_labels_may_be_drawn_more_often(window):
    """By hand: 64 rows of one label and 4 of another to the power 0.5 are drawn as 8 to 2, to the power 0 as 1 to 1."""
    features = make_features([5] * 68)
    features.columns["label"][:] = [7] * 64 + [3] * 4
    for alpha, share in ((1.0, 4 / 68), (0.5, 0.2), (0.0, 0.5)):
        batches = make_batches(features, window=window, label_alpha=alpha)
        rows = np.concatenate([batches.rows_at(step) for step in range(2560)])
        assert abs((rows >= 64).mean() - share) < 0.002
        counts = np.bincount(rows, minlength=68)
        for label in (counts[:64], counts[64:]):  # rows of one label come in turn
            assert label.max() - label.min() <= 1
    # Labels that are no classes can't be drawn by their number.
    features = Features("tag", make_features([5, 6]).columns, ("en",), 2)
    with pytest.raises(ConfigError, match="label_alpha of t"):
        make_batches(features, window=window, label_alpha=0.5)


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
    window = min(window, max(len(lengths) // batch_size, 1))  # none is longer than an epoch
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


@pytest.mark.parametrize("kind", ["classify", "choice", "tag", "span", "embed"])
def test_every_kind_arrives_padded_as_a_loop_would_pad_it(tokenizer, lines, kind):
    examples = {
        "classify": [spec.ClassifyExample("", line, None, number) for number, line in enumerate(lines)],
        "choice": [spec.ChoiceExample("", lines[i], tuple(lines[i : i + 2 + i % 3]), 0) for i in range(20)],
        "tag": [
            spec.TagExample("", (words := tuple(line.split())), tuple(range(len(words)))) for line in lines
        ],
        "span": [
            spec.SpanExample("", "a b", line, ((line[:3].strip(), 0),)) for line in lines if line[0] != " "
        ],
        "embed": [spec.EmbedExample("", line, " ".join(lines[i : i + 3])) for i, line in enumerate(lines)],
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
                    fill = [1] * (tokens.shape[2] - len(expected))
                    assert tokens[number, choice].tolist() == expected + fill
            continue
        lengths = [array.shape[1] for name, array in arrays.items() if name in ("tokens", "pair_tokens")]
        assert (4, *lengths) in batches.shapes and f"{len(batches.shapes)} shapes" in batches.describe()
        for name, array in arrays.items():
            for number, row in enumerate(batch.rows):
                expected = np.atleast_1d(columns[name][row]).tolist()
                fill = [-1 if name == "tags" else 1] * (array[number].size - len(expected))
                assert np.atleast_1d(array[number]).tolist() == expected + fill


def test_running_text_is_packed_and_masked_anew_each_step(tokenizer, lines):
    examples = {
        "en": [spec.TextExample("", line) for line in lines],
        "de": [spec.TextExample("", lines[0])] * 9,
    }
    features = build_features("mlm", examples, tokenizer, FeatureSettings(64), training=True)
    batches = make_batches(features, masking=Masking(tokenizer.mask_id, tokenizer.vocab_size))
    whole = {tuple(features.columns["tokens"][row].tolist()) for row in range(len(features))}
    again: dict[int, set[bytes]] = {}
    for step in range(40):
        batch = batches.batch_at(step)
        arrays = dict(batch.arrays)
        assert arrays["tokens"].shape == (4, 64) and arrays["masked_positions"].shape == (4, 10)
        used = arrays["masked_weights"] > 0
        row, restored = np.broadcast_to(np.arange(4)[:, None], used.shape), arrays["tokens"].copy()
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


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), max_size=120),
    tokens=st.integers(8, 2000),
    row_multiple=st.sampled_from([1, 4, 8]),
    buckets=st.integers(1, 6),
)
def test_every_row_comes_once_in_few_shapes(lengths, tokens, row_multiple, buckets):
    features = make_features(lengths)
    options = {"tokens_per_batch": tokens, "row_multiple": row_multiple, "max_buckets": buckets}
    stream = PredictionStream(features, **options)
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
    assert (np.diff([lengths[row] for row in seen]) <= 0).all()  # the longest first
    assert shapes == set(stream.shapes) and len(stream.buckets) <= buckets
    assert len(shapes) <= buckets + 1
    if batches:  # only the last batch has rows that fill up
        assert padding == (batches[-1].rows < 0).sum()


def cost(lengths, buckets):
    return sum(min(bucket for bucket in buckets if bucket >= length) for length in lengths)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=25), st.integers(1, 4), st.sampled_from([0, 5, 40]))
def test_no_choice_of_as_many_lengths_costs_less(lengths, count, price):
    buckets = bucket_lengths(np.array(lengths), max(lengths), count, multiple=8, limit=None, price=price)
    assert len(buckets) <= count and list(buckets) == sorted(set(buckets))
    sizes = sorted(set(round_lengths(np.array(lengths), 8).tolist()))
    best = min(
        cost(lengths, (*some, sizes[-1])) + price * number
        for number in range(min(count, len(sizes)))
        for some in combinations(sizes[:-1], number)
    )
    # One more row of the longest takes part in the choice. Without a price a hundredth is next to nothing.
    most = (best + buckets[-1]) * (1 if price else 1.01) - buckets[-1]
    assert cost(lengths, buckets) + price * (len(buckets) - 1) <= most


def running():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_results_come_in_order_whatever_finishes_first():
    gates = {step: threading.Event() for step in range(4)}
    gates[3].set()

    def make(step):
        # A step waits for the one behind it, so that they finish in the reverse order.
        assert gates[step].wait(10)
        if step:
            gates[step - 1].set()
        return step * step

    with made_ahead(make, 4, threads=4, ahead=3) as made_at:
        assert [made_at(step) for step in range(4)] == [0, 1, 4, 9]
    assert not running()


def test_an_error_comes_where_its_batch_would_have_come():
    def make(step):
        if step == 2:
            raise ValueError("broken row")
        return step

    with made_ahead(make, 9, threads=2) as made_at:
        assert [made_at(0), made_at(1)] == [0, 1]
        with pytest.raises(ValueError, match="broken row"):
            made_at(2)
    assert not running()


def test_batches_are_made_ahead_from_any_step():
    made = []

    def make(step):
        made.append(step)
        return 2 * step

    with made_ahead(make) as made_at:
        assert [made_at(step) for step in (7, 8, 3, 4, 4)] == [14, 16, 6, 8, 8]
    assert not running() and {7, 8, 9, 3, 4, 5} <= set(made) and max(made) <= 12
