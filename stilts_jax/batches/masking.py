"""Masked language modelling: which tokens are predicted, and what stands in their place.

Masks are drawn anew at every step (dynamic masking), as a function of (seed, step).
"""

from dataclasses import dataclass

import numpy as np

from stilts_jax.batches.draws import draw_uniform
from stilts_jax.errors import ConfigError
from stilts_jax.tokenization import FIRST_PIECE_ID


@dataclass(frozen=True)
class Masking:
    """How tokens are masked.

    Attributes:
        mask_id: the id of ``<mask>``.
        vocab_size: ids that random tokens are drawn from (specials excepted).
        rate: the share of tokens that are predicted.
        mask_share: of these, the share that become ``<mask>``.
        random_share: of these, the share that become a random token; the others stay.
    """

    mask_id: int
    vocab_size: int
    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or min(self.mask_share, self.random_share) < 0:
            raise ConfigError(f"mask rate {self.rate} must be between 0 and 1, and shares not negative")
        if self.mask_share + self.random_share > 1:
            raise ConfigError(
                f"mask shares {self.mask_share} and {self.random_share} are more than 1 together"
            )

    def count_places(self, length: int) -> int:
        """How many places a row of ``length`` has for predicted tokens; static, whatever is in the row."""
        return max(1, round(self.rate * length))


def mask_tokens(tokens: np.ndarray, masking: Masking, seed: int, step: int) -> dict[str, np.ndarray]:
    """Masks a global batch.

    In each row exactly the rate's share of the tokens is predicted (one at least, where there is any);
    specials (``<unk>`` among them) and padding never.

    Args:
        tokens: int32 [B, T]

    Returns:
        ``tokens`` [B, T], ``masked_positions`` and ``masked_targets`` int32 [B, M], ``masked_weights``
        float32 [B, M], 0 at places that are not used.
    """
    rows, length = tokens.shape
    places = masking.count_places(length)
    eligible = tokens >= FIRST_PIECE_ID
    order_draw, kind_draw, token_draw = draw_uniform(seed, "masking", step, 3 * tokens.size).reshape(
        3, rows, length
    )
    available = eligible.sum(axis=1)
    counts = np.minimum(np.maximum(np.rint(masking.rate * available), available > 0), places).astype(np.int64)
    # The tokens with the smallest draws, in the order of the row; unused places stand behind at position 0.
    order = np.argsort(np.where(eligible, order_draw, 2.0), axis=1, kind="stable")[:, :places]
    used = np.arange(places) < counts[:, None]
    positions = np.sort(np.where(used, order, length), axis=1)
    positions = np.where(used, positions, 0)
    targets = np.where(used, np.take_along_axis(tokens, positions, axis=1), 0)

    kind = np.take_along_axis(kind_draw, positions, axis=1)
    pieces = masking.vocab_size - FIRST_PIECE_ID - (masking.mask_id >= FIRST_PIECE_ID)
    drawn = FIRST_PIECE_ID + np.floor(np.take_along_axis(token_draw, positions, axis=1) * pieces).astype(
        np.int32
    )
    drawn += drawn >= masking.mask_id  # any piece but <mask>
    shown = np.where(kind < masking.mask_share + masking.random_share, drawn, targets)
    shown = np.where(kind < masking.mask_share, masking.mask_id, shown)
    masked = tokens.copy()
    row = np.broadcast_to(np.arange(rows)[:, None], positions.shape)
    masked[row[used], positions[used]] = shown[used]
    return {
        "tokens": masked,
        "masked_positions": positions.astype(np.int32),
        "masked_targets": targets.astype(np.int32),
        "masked_weights": used.astype(np.float32),
    }
