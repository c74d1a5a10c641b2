from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.batches.buckets import bucket_lengths, find_bucket, round_lengths


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


def test_by_hand():
    lengths = np.array([10] * 100 + [60] * 100)
    assert bucket_lengths(lengths, 60, max_count=8, multiple=8) == (10, 60)
    assert bucket_lengths(lengths, 60, max_count=1, multiple=8) == (60,)
    assert bucket_lengths(lengths + 9, 69, max_count=8, multiple=8) == (20, 72)
    assert bucket_lengths(lengths, 100, max_count=8, multiple=8, limit=100)[-1] == 100  # the limit wins
    assert bucket_lengths(lengths, 60, max_count=8, multiple=128) == (32, 64)
    assert bucket_lengths(np.zeros(0, int), 5, max_count=8, multiple=8) == (6,)
