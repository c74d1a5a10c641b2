"""Packing of short sequences into full rows, for masked language modelling."""

import numpy as np

from stilts_jax.batches.collate import Arrays, flat, ragged
from stilts_jax.batches.masking import Masking, mask_tokens
from stilts_jax.features.ragged import Segments, copy_ranges, join
from stilts_jax.features.records import PAD_ID, Features, Ragged


def pack(lengths: np.ndarray, capacity: int) -> Ragged:
    """Puts sequences into as few rows as it can: the longest first, each into the fullest row that holds it.

    Args:
        lengths: [N], each at most ``capacity``.

    Returns:
        The sequence numbers of each row.
    """
    rows: list[list[int]] = []
    by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces = 0  # bit s is set where a row with s free places exists
    for number in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[number])
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = by_space[space].pop()
            if not by_space[space]:
                spaces &= ~(1 << space)
            rows[row].append(number)
        else:
            space, row = capacity, len(rows)
            rows.append([number])
        by_space[space - length].append(row)
        spaces |= 1 << (space - length)
    return Ragged.from_list(rows, np.int64)


def pack_by_group(lengths: np.ndarray, group: np.ndarray, capacity: int) -> tuple[Ragged, np.ndarray]:
    """Packs each group by itself; returns the rows, and each row's group (numbered anew from 0)."""
    packs, groups = [], []
    for number, value in enumerate(np.unique(group)):
        members = np.flatnonzero(group == value)
        packed = pack(lengths[members], capacity)
        packs.append(Ragged(members[packed.values], packed.offsets))
        groups.append(np.full(len(packed), number))
    starts = np.cumsum([0] + [len(packed.values) for packed in packs])
    offsets = np.concatenate([[0]] + [packed.offsets[1:] + start for packed, start in zip(packs, starts)])
    return Ragged(np.concatenate([packed.values for packed in packs]), offsets), np.concatenate(groups)


class PackedText:
    """The chunks of mlm features, packed into rows of one language each.

    Attributes:
        group: [rows] the language of each row, numbered from 0.
        length: tokens of a row.
    """

    def __init__(self, features: Features, length: int) -> None:
        self._tokens = ragged(features, "tokens")
        self._rows, self.group = pack_by_group(self._tokens.lengths, flat(features, "language"), length)
        self.length = length

    def __len__(self) -> int:
        return len(self._rows)

    def mask(self, rows: np.ndarray, masking: Masking, seed: int, step: int) -> Arrays:
        """Lays out the rows of a batch and masks them."""
        tokens, segments, positions = lay_out(self._rows, self._tokens, rows, self.length, PAD_ID)
        arrays = {"segments": segments, "positions": positions}
        arrays.update(mask_tokens(tokens, masking, seed, step))
        return arrays


def lay_out(
    packed: Ragged, tokens: Ragged, rows: np.ndarray, length: int, pad: int
) -> tuple[np.ndarray, ...]:
    """Returns tokens, segments (from 1; 0 = pad) and positions (from 0 in each segment), [B, length]."""
    chosen = Segments(packed.values, packed.offsets[rows], packed.lengths[rows])
    members = join(chosen, rows=len(rows))
    sizes = tokens.lengths[members.values]
    row = np.repeat(np.arange(len(rows)), members.lengths)
    before = np.cumsum(sizes) - sizes
    first_in_row = before[members.offsets[:-1]]
    starts = row * length + before - first_in_row[row]
    number = np.arange(len(members.values)) - members.offsets[:-1][row] + 1
    result = np.full(len(rows) * length, pad, np.int32)
    copy_ranges(result, starts, tokens.values, tokens.offsets[members.values], sizes)
    place = np.repeat(starts - before, sizes) + np.arange(sizes.sum())
    segments, positions = np.zeros_like(result), np.zeros_like(result)
    segments[place] = np.repeat(number, sizes)
    positions[place] = np.arange(sizes.sum()) - np.repeat(before, sizes)
    shape = (len(rows), length)
    return result.reshape(shape), segments.reshape(shape), positions.reshape(shape)
