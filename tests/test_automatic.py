"""What is chosen by the device, beside cases worked out by hand."""

from dataclasses import replace
from functools import partial

import jax
import pytest

from stilts_jax.automatic import Device, fit_memory, layers_of, this_device
from stilts_jax.host_memory import total_memory
from stilts_jax.model import SHAPES, Compute

CPU, H100 = Device("cpu"), Device("NVIDIA H100 80GB HBM3", memory=80 * 10**9)


@pytest.mark.parametrize(
    ("memory", "tokens", "expected"),
    [
        (0, 10**6, "none"),
        # The state takes 16 bytes of each of 560 million parameters: 55 of 80 GB, a fifth of them kept back, are left.
        # 4,096 tokens keep 24 layers of 2 * (12 * 1024 + 3 * 4096) + 16 * 512 * 10 bytes, and one layer more: 13.4 GB.
        (80 * 10**9, 4096, "none"),
        # 16,384 tokens: 53.7 GB; 32,768: 107 GB, of which attention is 67.
        (80 * 10**9, 16_384, "none"),
        (80 * 10**9, 32_768, "attention"),
        (80 * 10**9, 65_536, "dots"),
        (10 * 10**9, 32_768, "full"),  # the state leaves nothing: it is the last that could help
    ],
)
def test_the_least_that_fits_is_computed_again(memory, tokens, expected):
    device, compute = Device("NVIDIA H100", memory=memory), Compute(dtype="bfloat16", remat="auto")
    tasks = [("classify", tokens // 512, 512)]
    assert fit_memory(device, SHAPES["large"], compute, (1, 1, 1), tasks, 1) == (1, expected)


def test_microbatches_are_taken_where_rematerialisation_does_not_suffice():
    """On 16 GB the state of Large leaves about 5: 64 rows of 512 take 1.6 as inputs of layers, and 4.5 within one."""
    small, compute = Device("NVIDIA H100", memory=16 * 10**9), Compute(dtype="bfloat16", remat="auto")
    run = partial(fit_memory, small, SHAPES["large"], compute, (1, 1, 1))
    assert run([("classify", 2, 512)], 0) == (1, "none")
    assert run([("classify", 256, 512)], 0) in ((4, "full"), (8, "full"))
    assert run([("classify", 256, 512)], 2) == (2, "full")  # as the user has set it
    assert run([("classify", 255, 512)], 0) == (1, "full")  # no number of microbatches divides it
    assert run([("embed", 256, 512)], 0) == (1, "full")  # pairs are each other's wrong answers
    given = replace(compute, remat="none")  # 1,024 tokens take 3.4 GB
    assert fit_memory(small, SHAPES["large"], given, (1, 1, 1), [("classify", 256, 512)], 0) == (128, "none")
    # Half of what the state leaves on a CPU is 5.5 GB; 4,096 tokens take 5.9, in one microbatch or two at a time.
    cpu, base = Device("cpu", memory=16 * 10**9), SHAPES["e5-small"]
    assert fit_memory(cpu, base, Compute(), (1, 1, 1), [("classify", 8, 512)], 0) == (4, "none")
    assert this_device(1).memory == total_memory() // jax.local_device_count() > 10**8


@pytest.mark.parametrize(
    ("device", "shape", "steps", "expected"),
    [
        # 24 layers: 0.3 ms a layer and step; written out each of six lengths takes 27.6 s longer, an eighth of it here.
        (H100, "large", 2_000, "loop"),  # 14 s saved, 21 s paid
        (H100, "large", 10_000, "auto"),  # 72 s saved
        (H100, "e5-small", 500, "loop"),
        (Device("TPU v5e"), "large", 10**6, "auto"),  # there it means a loop
        (CPU, "e5-small", 50, "loop"),  # 32 s saved, six lengths take 72 s longer, half of it here
        (CPU, "e5-small", 100, "auto"),  # 64 s saved
    ],
)
def test_layers_are_written_out_where_that_saves_more_than_it_costs(device, shape, steps, expected):
    assert layers_of(device, SHAPES[shape], tokens=steps * 2000, steps=steps) == expected
