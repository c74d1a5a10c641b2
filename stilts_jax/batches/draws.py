"""Random numbers as a function of where they are used, not of what was drawn before.

Only raw bits of a counter-based generator are used: numpy keeps those the same from version to version, which
it does not promise of ``permutation`` or ``integers``. So a run that is resumed sees the same batches.
"""

import zlib

import numpy as np


def draw_bits(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """Returns uint64 [count], a pure function of its arguments.

    Args:
        seed: the run's seed.
        purpose: keeps streams apart (order, masking, ...).
        index: epoch, window, step: what the draw belongs to.
    """
    key = np.array([seed % 2**64, zlib.crc32(purpose.encode())], np.uint64)
    counter = np.array([0, 0, index, 0], np.uint64)  # the lowest word counts the draws
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def draw_permutation(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """Returns int64 [count], the numbers below ``count`` in random order."""
    return np.argsort(draw_bits(seed, purpose, index, count), kind="stable")


def draw_uniform(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """Returns float64 [count] in [0, 1)."""
    return (draw_bits(seed, purpose, index, count) >> np.uint64(11)) * 2.0**-53
