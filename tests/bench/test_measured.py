import numpy as np
import pytest

from stilts_jax.bench.device import Device
from stilts_jax.bench.measured import Contender, Round, compare
from stilts_jax.model import EncoderConfig

ENCODER = EncoderConfig(vocab_size=100, hidden_size=8, num_layers=3, num_heads=2, intermediate_size=16)
DEVICE = Device(kind="x", count=1, dtype="float32", matmul=1e6, peak=4e6, traffic=1e9)


def test_flops_are_those_of_the_matrix_products():
    # Row by row: 4 projections, 2 dense layers, scores and weighted sum; forward, and twice that backward.
    def row(length):
        products = 4 * 2 * length * 8 * 8 + 2 * 2 * length * 8 * 16 + 2 * 2 * length * length * 8
        return 3 * 3 * products

    one = Round(2.0, np.array([3, 5]), [(2, 6)])
    assert one.flops(ENCODER, padded=False) == row(3) + row(5)
    assert one.flops(ENCODER, padded=True) == 2 * row(6)


def test_summary_and_ratios():
    lengths = np.array([3, 5])
    ours = Contender("ours", "", [Round(s, lengths, [(2, 6)]) for s in (1.0, 2.0, 4.0)])
    peer = Contender("peer", "", [Round(s, lengths, [(2, 8)]) for s in (4.0, 4.0, 8.0)])
    found = ours.summarise(ENCODER, DEVICE, training=True)
    assert found["examples_per_second"] == 1.0 and found["spread"] == [0.5, 2.0]
    assert found["real_tokens_per_second"] == 4.0
    assert found["padding_share"] == pytest.approx(1 - 8 / 12)
    work = ours.rounds[0].flops(ENCODER, padded=False) * 3 / 7
    assert found["utilisation"] == pytest.approx(work / 1e6)
    assert found["utilisation_of_peak"] == pytest.approx(work / 4e6)
    assert ours.summarise(ENCODER, DEVICE, training=False)["utilisation"] == pytest.approx(work / 3e6)
    ratios = compare(ours, peer)
    assert ratios["ratio_of_medians"] == 2.0
    assert ratios["paired_ratios"] == [4.0, 2.0, 2.0] and ratios["median_of_paired_ratios"] == 2.0
