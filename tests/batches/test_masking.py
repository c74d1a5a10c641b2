import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stilts_jax.batches.collate import Masking, mask_tokens, pack

MASKING = Masking(mask_id=99, vocab_size=100)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 98), max_size=40), min_size=1, max_size=5),
    step=st.integers(0, 2**40),
)
def test_specials_and_padding_are_never_masked(rows, step):
    tokens = np.full((len(rows), 40), 1, np.int32)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    masked = mask_tokens(tokens, MASKING, seed=3, step=step)
    assert masked["masked_positions"].shape == (len(rows), 6)
    for number, row in enumerate(rows):
        used = masked["masked_weights"][number] > 0
        places = masked["masked_positions"][number][used]
        eligible = [t for t in row if t > 3]
        expected = 0 if not eligible else min(max(1, round(0.15 * len(eligible))), 6)
        assert len(places) == len(set(places.tolist())) == expected
        assert (tokens[number][places] > 3).all()
        np.testing.assert_array_equal(masked["masked_targets"][number][used], tokens[number][places])
        untouched = np.setdiff1d(np.arange(40), places)
        np.testing.assert_array_equal(masked["tokens"][number][untouched], tokens[number][untouched])
        assert (masked["tokens"][number][places] > 3).all()
    again = mask_tokens(tokens, MASKING, seed=3, step=step)
    assert all((masked[name] == again[name]).all() for name in masked)


def test_shares_and_randomness():
    tokens = np.random.default_rng(0).integers(4, 99, (400, 128)).astype(np.int32)
    first, second = (mask_tokens(tokens, MASKING, 0, step) for step in (0, 1))
    assert (first["masked_positions"] != second["masked_positions"]).mean() > 0.9
    places = first["masked_positions"][first["masked_weights"] > 0]
    row = np.repeat(np.arange(400), first["masked_weights"].sum(axis=1).astype(int))
    shown, target = first["tokens"][row, places], tokens[row, places]
    assert len(places) == 400 * round(0.15 * 128)
    kinds = [(shown == 99).mean(), ((shown != 99) & (shown != target)).mean(), (shown == target).mean()]
    # A random token is the target itself in one of 95 draws; the error of a share here is about 0.005.
    np.testing.assert_allclose(kinds, [0.8, 0.1 * 94 / 95, 0.1 + 0.1 / 95], atol=0.02)
    assert set(np.unique(shown)) == set(range(4, 100))  # every piece, no special
    assert 55 < places.mean() < 72  # no part of a row is preferred


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
