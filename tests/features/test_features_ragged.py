import numpy as np
import pytest

from stilts_jax.features import ragged
from stilts_jax.features.ragged import Segments, find_unique, join


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


def test_unique_texts_keep_their_order():
    unique, numbers = find_unique(["b", "a", "b", "c", "a"])
    assert unique == ["b", "a", "c"] and numbers.tolist() == [0, 1, 0, 2, 1]
