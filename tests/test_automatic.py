"""What is chosen by the device, beside cases worked out by hand."""

import pytest

from stilts_jax.automatic import (
    Device,
    compile_tokens,
    layers_of,
    microbatches,
    prediction_tokens,
    rematerialisation,
)
from stilts_jax.model import SHAPES

CPU, H100 = Device("cpu"), Device("NVIDIA H100 80GB HBM3", memory=80 * 10**9)


def test_a_compilation_costs_what_could_be_trained_meanwhile():
    # 8 + 2.2 * 12 s at 1e11 FLOP/s are 3.44e12 FLOP; prediction: 1.5 + 0.1 * 12 s, and a third of the work a token.
    assert compile_tokens(CPU, 1e8, written_out=12) == pytest.approx(34_400)
    assert compile_tokens(CPU, 1e8, written_out=12, training=False) == pytest.approx(8_100)
    assert compile_tokens(H100, 2e9) == pytest.approx(5 * 0.4 * 989e12 / 2e9)
    assert compile_tokens(Device("NVIDIA H100", count=8), 2e9) == pytest.approx(8 * compile_tokens(H100, 2e9))


@pytest.mark.parametrize(
    ("training", "seconds", "saved"),
    # Six lengths of 12 layers compile 2.2 * 12 * 6 s longer, and save a fifth of training; or 0.1 * 12 * 6 s and an
    # eighth of prediction, which is a third of training's work.
    [(True, 158.4, 1 / 5), (False, 7.2, 1 / 24)],
)
def test_layers_are_written_out_where_there_is_much_to_do(training, seconds, saved):
    shape = SHAPES["e5-small"]
    tokens = seconds * 1e11 / (saved * shape.training_flops())
    assert layers_of(CPU, shape, 0.99 * tokens, training=training) == "loop"
    assert layers_of(CPU, shape, 1.01 * tokens, training=training) == "auto"
    assert layers_of(H100, shape, 1) == layers_of(CPU, SHAPES["tiny"], 1) == "auto"


def test_prediction_batches():
    assert prediction_tokens(CPU, 46_000) == prediction_tokens(CPU, 10**7) == 2048
    assert prediction_tokens(H100, 46_000) == 46_000 // 8
    assert prediction_tokens(H100, 10**7) == 16384
    assert prediction_tokens(Device("TPU v5 lite", count=8), 10**7) == 8 * 16384


@pytest.mark.parametrize(
    ("device", "sizes", "hidden", "whole", "expected"),
    [
        (CPU, [32], 384, False, 2),
        (CPU, [32, 8], 384, False, 2),
        (CPU, [32, 9], 384, False, 1),
        (CPU, [32], 64, False, 1),
        (CPU, [32], 384, True, 1),
        (H100, [32], 1024, False, 1),
    ],
)
def test_microbatches(device, sizes, hidden, whole, expected):
    assert microbatches(device, sizes, hidden, whole=whole) == expected


@pytest.mark.parametrize(
    ("memory", "tokens", "expected"),
    [
        (0, 10**6, "none"),
        # 4,096 tokens keep 24 layers of 2 * (12 * 1024 + 3 * 4096) + 16 * 512 * 10 bytes, and one layer more: 13.4 GB.
        (80 * 10**9, 4096, "none"),
        # 16,384 tokens: 53.7 GB of the 58.7 that the state leaves; 32,768: 107 GB, of which attention is 67.
        (80 * 10**9, 16_384, "none"),
        (80 * 10**9, 32_768, "attention"),
        (80 * 10**9, 65_536, "dots"),
        (16 * 10**9, 32_768, "full"),
    ],
)
def test_the_least_that_fits_is_computed_again(memory, tokens, expected):
    device = Device("NVIDIA H100", memory=memory)
    assert (
        rematerialisation(device, SHAPES["large"], parameters=3.3e8, tokens=tokens, length=512, width=2)
        == expected
    )
