import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.batches.packing import lay_out, pack, pack_by_group
from stilts_jax.features.records import Ragged


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_each_sequence_is_packed_once_and_rows_are_not_over_full(lengths):
    lengths = np.array(lengths)
    packed = pack(lengths, 30)
    assert sorted(packed.values.tolist()) == list(range(len(lengths)))
    loads = [int(lengths[packed[row]].sum()) for row in range(len(packed))]
    assert max(loads) <= 30
    # Of any two rows at most one is half empty or emptier; else one of them would not have been opened.
    assert sum(load <= 15 for load in loads) <= 1


def test_many_short_sequences_fill_rows():
    lengths = np.random.default_rng(0).integers(3, 120, 3000)
    packed = pack(lengths, 256)
    assert lengths.sum() / (256 * len(packed)) > 0.99


def test_groups_do_not_mix():
    lengths, group = np.array([5, 6, 7, 8, 9]), np.array([4, 9, 4, 9, 4])
    packed, of_row = pack_by_group(lengths, group, 16)
    assert sorted(packed.values.tolist()) == [0, 1, 2, 3, 4]
    for row in range(len(packed)):
        assert set(group[packed[row]]) == {(4, 9)[of_row[row]]}


def test_segments_and_positions_beside_a_loop():
    draw = np.random.default_rng(1)
    tokens = Ragged.from_list([draw.integers(4, 50, n) for n in draw.integers(1, 14, 40)])
    packed = pack(tokens.lengths, 20)
    rows = draw.permutation(len(packed))[:7]
    found = lay_out(packed, tokens, rows, 20, 1)
    for number, row in enumerate(rows):
        expected = ([], [], [])
        for segment, sequence in enumerate(packed[row]):
            expected[0].extend(tokens[sequence])
            expected[1].extend([segment + 1] * len(tokens[sequence]))
            expected[2].extend(range(len(tokens[sequence])))
        for array, values, fill in zip(found, expected, (1, 0, 0)):
            assert array[number].tolist() == values + [fill] * (20 - len(values))
