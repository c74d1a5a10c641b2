"""The few lengths that batches are padded to; each costs a compilation."""

import numpy as np

_WORTH = 1.01  # fewer lengths are taken where they compute no more than this beside the best
# Up to here lengths are multiples of a quarter, and up to twice that of a half, of what longer ones are multiples of: a
# fixed step would be half of a short row.
_SHORT = 32


def round_up(value: int, multiple: int) -> int:
    """Returns the least multiple that is not below ``value``."""
    return -(-value // multiple) * multiple


def round_lengths(lengths: np.ndarray, multiple: int) -> np.ndarray:
    """Rounds up to what buckets may have: multiples of ``multiple``, of a quarter of it up to 32, of half up to 64."""
    step = np.where(
        lengths <= _SHORT, multiple // 4, np.where(lengths <= 2 * _SHORT, multiple // 2, multiple)
    )
    step = np.maximum(step, 1)
    return -(-lengths // step) * step


def bucket_lengths(
    lengths: np.ndarray, longest: int, *, max_count: int = 8, multiple: int = 8, limit: int | None = None
) -> tuple[int, ...]:
    """Chooses the lengths that waste the least padding, by dynamic programming.

    Takes fewer than ``max_count`` where more would save next to nothing.

    Args:
        lengths: [N] the lengths to pad: of batches in training, of rows in prediction.
        longest: what must fit, whether or not it is among ``lengths``.
        multiple: what a length is a multiple of, for the hardware; see ``round_lengths``.
        limit: what no length may exceed (the encoder's positions); wins over ``multiple``.

    Returns:
        Ascending lengths; the last one holds ``longest``.
    """
    rounded = round_lengths(np.append(lengths, longest), multiple)
    sizes, counts = np.unique(np.minimum(rounded, limit or rounded[-1]), return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    # costs[j]: the least padded size of the first j sizes, with k lengths; cut[k][j]: where the last one
    # begins.
    costs = np.where(np.arange(len(sizes) + 1) == 0, 0.0, np.inf)
    totals, cuts = [], []
    for _ in range(min(max_count, len(sizes))):
        step = costs[:-1, None] + (before[None, 1:] - before[:-1, None]) * sizes[None, :]
        step[np.tril_indices(len(sizes), -1)] = np.inf
        cut = np.argmin(step, axis=0)
        costs = np.concatenate([[np.inf], step[cut, np.arange(len(sizes))]])
        totals.append(costs[-1])
        cuts.append(cut)
    count = next(k for k, total in enumerate(totals) if total <= _WORTH * min(totals))
    chosen, end = [], len(sizes) - 1
    for cut in reversed(cuts[: count + 1]):
        chosen.append(int(sizes[end]))
        end = int(cut[end]) - 1
    return tuple(reversed(chosen))


def find_bucket(buckets: tuple[int, ...], length: int) -> int:
    """Returns the least of the ascending ``buckets`` that holds ``length``."""
    return buckets[int(np.searchsorted(buckets, length))]
