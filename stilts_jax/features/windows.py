"""Windows over texts that are longer than a row."""

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Stretches of documents.

    Attributes:
        document: int64 [W]
        start: int64 [W], first token.
        length: int64 [W]
    """

    document: np.ndarray
    start: np.ndarray
    length: np.ndarray


def plan_windows(lengths: np.ndarray, capacity: np.ndarray, stride: int) -> Windows:
    """Covers documents with windows that begin at multiples of ``stride``; an empty document has one empty window.

    Args:
        lengths: int64 [D] tokens of each document.
        capacity: int64 [D] tokens that a window of it may have, 1 or more.
        stride: tokens from the start of one window to that of the next; at most the capacity is taken, so that no
            token is left out.
    """
    step = np.minimum(stride, capacity)
    counts = 1 + np.maximum(-(-(lengths - capacity) // step), 0)
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    start = number * step[document]
    return Windows(document, start, np.minimum(capacity[document], lengths[document] - start))


def find_max_context(windows: Windows, lengths: np.ndarray) -> np.ndarray:
    """Says which window sees the most context on both sides of each token.

    The score is BERT's: the smaller of the tokens on its left and on its right, plus a hundredth of the
    window's length; the first window wins a tie. Each token of a document is True in exactly one window.

    Args:
        lengths: int64 [D] tokens of each document.

    Returns:
        bool [sum of ``windows.length``], window by window.
    """
    total = int(windows.length.sum())
    size = np.repeat(windows.length, windows.length)
    left = np.arange(total) - np.repeat(np.cumsum(windows.length) - windows.length, windows.length)
    score = 100 * np.minimum(left, size - 1 - left) + size
    # One number that orders by score, then by the earlier window; so that the maximum is unique.
    window = np.repeat(np.arange(len(windows.start)), windows.length)
    score = score * len(windows.start) - window
    document_start = np.cumsum(lengths) - lengths
    token = np.repeat(document_start[windows.document] + windows.start, windows.length) + left
    best = np.full(int(lengths.sum()), np.iinfo(np.int64).min)
    np.maximum.at(best, token, score)
    return best[token] == score
