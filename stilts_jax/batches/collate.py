"""Rows of features as the arrays of one batch: padded, or packed and masked for masked language modelling."""

import zlib
from dataclasses import dataclass

import numpy as np

from stilts_jax.features.records import IGNORE, Features, Ragged, Segments, count_up, join
from stilts_jax.tokenization import FIRST_PIECE_ID, PAD_ID

Arrays = dict[str, np.ndarray]
# What fills up the sequences of a column; a batch has the numbers of _NUMBERS as they are, and no other columns.
_FILL = {"tokens": PAD_ID, "pair_tokens": PAD_ID, "tags": IGNORE, "max_context": 0}
_VOTES = 10  # people who answered a question of VQA
_NUMBERS = ("label", "start", "end")


def pad(ragged: Ragged, rows: np.ndarray, length: int, fill: int) -> np.ndarray:
    """Returns int32 [B, length]: the sequences ``rows`` [B], filled up at the end."""
    starts, place = ragged.offsets[rows], np.arange(length)
    inside = place < (ragged.offsets[rows + 1] - starts)[:, None]
    padded = np.full(inside.shape, fill, np.int32)
    padded[inside] = ragged.values[(starts[:, None] + place)[inside]]
    return padded


def measure_rows(features: Features) -> np.ndarray:
    """int64 [N]: the tokens of each row; of its longest choice, and of the partner of a pair."""
    columns = features.columns
    lengths = columns["pair_tokens" if "pair_tokens" in columns else "tokens"].lengths
    if features.kind == "choice" and len(features):
        return np.maximum.reduceat(lengths, columns["first_choice"])
    return lengths


def look_up(features: Features, rows: np.ndarray) -> Arrays:
    """Returns what is seen of the pictures of rows: ``visual`` [B, K, P, F] and ``visual_mask`` [B, K]."""
    if not features.pictures:
        return {}
    places = pad(features.columns["pictures"], rows, features.sight["pictures"], -1)
    return {"visual": features.table[np.maximum(places, 0)], "visual_mask": places >= 0}


def collate(features: Features, rows: np.ndarray, length: int, query_length: int = 0) -> Arrays:
    """Returns the arrays of ``rows`` [B], padded to ``length``; ``tokens`` with partners to ``query_length``."""
    columns = features.columns
    arrays = {name: columns[name][rows] for name in _NUMBERS if name in columns}
    if features.kind == "choice":
        counts = columns["num_choices"]
        number = np.arange(int(counts.max()))
        arrays["choice_mask"] = mask = number < counts[rows][:, None]
        # The first choice is repeated where one is missing: a softmax over nothing but padding is undefined.
        sequences = columns["first_choice"][rows][:, None] + np.where(mask, number, 0)
        tokens = pad(columns["tokens"], sequences.reshape(-1), length, PAD_ID)
        arrays["tokens"] = tokens.reshape(*sequences.shape, length)
        return arrays
    for name, fill in _FILL.items():
        if name in columns:
            short = query_length and name == "tokens"
            arrays[name] = pad(columns[name], rows, query_length if short else length, fill)
    if "votes" in columns:
        arrays["votes"] = pad(columns["votes"], rows, _VOTES, IGNORE)
    if "max_context" in arrays:
        arrays["context_mask"] = arrays.pop("max_context").astype(bool)
    return arrays | look_up(features, rows)


@dataclass(frozen=True)
class Masking:
    """How tokens are masked, anew at every step; specials are neither masked nor drawn."""

    mask_id: int
    vocab_size: int
    rate: float = 0.15  # share of the tokens that are predicted
    mask_share: float = 0.8  # of these, what becomes ``<mask>``
    random_share: float = 0.1  # and what becomes another token; the others stay


def draw_bits(seed: int, purpose: str, index: int, count: int) -> np.ndarray:
    """Returns uint64 [count], a pure function of seed, purpose and ``index`` (of an epoch, window or step)."""
    # Raw bits alone, which numpy keeps the same from version to version.
    key = np.array([seed % 2**64, zlib.crc32(purpose.encode())], np.uint64)
    counter = np.array([0, 0, index, 0], np.uint64)  # the lowest word counts the draws
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def mask_tokens(tokens: np.ndarray, masking: Masking, seed: int, step: int) -> Arrays:
    """Masks the ``tokens`` [B, T] of a global batch: in each row exactly the rate's share, one at least.

    Returns ``tokens`` [B, T], ``masked_positions`` and ``masked_targets`` int32 [B, M], and ``masked_weights`` float32
    [B, M], which is 0 at places that are not used.
    """
    rows, length = tokens.shape
    places = max(1, round(masking.rate * length))  # static, whatever is in the rows
    eligible = tokens >= FIRST_PIECE_ID
    bits = draw_bits(seed, "masking", step, 3 * tokens.size).reshape(3, rows, length)
    draws = (bits >> np.uint64(11)) * 2.0**-53  # in [0, 1)
    available = eligible.sum(axis=1)
    counts = np.minimum(np.maximum(np.rint(masking.rate * available), available > 0), places).astype(np.int64)
    # The tokens with the smallest draws, in the order of the row; unused places stand behind at position 0.
    order = np.argsort(np.where(eligible, draws[0], 2.0), axis=1, kind="stable")[:, :places]
    used = np.arange(places) < counts[:, None]
    positions = np.where(used, np.sort(np.where(used, order, length), axis=1), 0)
    arrays = (tokens, draws[1], draws[2])
    original, kind, share = (np.take_along_axis(array, positions, axis=1) for array in arrays)
    targets = np.where(used, original, 0)
    # Any piece but <mask>.
    drawn = FIRST_PIECE_ID + np.floor(share * (masking.vocab_size - FIRST_PIECE_ID - 1)).astype(np.int32)
    drawn += drawn >= masking.mask_id
    shown = np.where(kind < masking.mask_share + masking.random_share, drawn, targets)
    shown = np.where(kind < masking.mask_share, masking.mask_id, shown)
    masked = tokens.copy()
    masked[np.nonzero(used)[0], positions[used]] = shown[used]
    return {
        "tokens": masked,
        "masked_positions": positions.astype(np.int32),
        "masked_targets": targets.astype(np.int32),
        "masked_weights": used.astype(np.float32),
    }


def pack(lengths: np.ndarray, capacity: int) -> Ragged:
    """Returns the numbers of each row's sequences: the longest come first, each to the fullest row that holds it."""
    rows: list[list[int]] = []
    by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces = 0  # bit s is set where a row with s free places exists
    for number in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[number])
        if fitting := spaces >> length:
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


class PackedText:
    """The chunks of mlm features in rows of one language, which ``group`` numbers; several a row if packed."""

    def __init__(self, features: Features, length: int, packed: bool = True) -> None:
        self._tokens, self.length, self._features = features.columns["tokens"], length, features
        rows, groups, languages = list[np.ndarray](), list[int](), features.columns["language"]
        for number, language in enumerate(np.unique(languages)):
            members = np.flatnonzero(languages == language)
            sizes = self._tokens.lengths[members]
            found = pack(sizes if packed else np.full_like(sizes, length), length)
            rows += [members[found[row]] for row in range(len(found))]
            groups += [number] * len(found)
        self._rows, self.group = Ragged.from_list(rows, np.int64), np.array(groups)

    def __len__(self) -> int:
        return len(self._rows)

    def mask(self, rows: np.ndarray, masking: Masking, seed: int, step: int) -> Arrays:
        """Lays out and masks rows; ``segments`` count from 1 (0: padding), ``positions`` in each from 0."""
        tokens, packed = self._tokens, self._rows
        members = join(Segments(packed.values, packed.offsets[rows], packed.lengths[rows]))
        chunks = Segments(tokens.values, tokens.offsets[members.values], tokens.lengths[members.values])
        flat = join(chunks)

        def lay_out(values: np.ndarray, fill: int) -> np.ndarray:
            return pad(Ragged(values, flat.offsets[members.offsets]), np.arange(len(rows)), self.length, fill)

        segment = 1 + count_up(members.lengths)
        return {
            "segments": lay_out(np.repeat(segment, flat.lengths), 0),
            "positions": lay_out(count_up(flat.lengths), 0),
            **mask_tokens(lay_out(flat.values, PAD_ID), masking, seed, step),
            **look_up(self._features, packed.values[packed.offsets[rows]]),
        }
