"""The phase vocabulary: training with the embedding rows that a phase's data use, and only those.

A fine-tuning phase touches a fraction of XLM-R's 250,002 rows, and Adam reads and writes all of them every step. A row
that never occurs has no gradient, so its moments stay zero and weight decay is all that happens to it: a product of
``1 - rate * decay``. In exact arithmetic a run on the rows that occur, with the others put back at its end, is the run
on all rows. (A head for pictures begins elsewhere: at the mean of the rows that are there.)

A float32 run rounds that product at each step, where ``rate * decay`` (1e-5 * 0.01) is near the last bit. Here it is
computed in float64 and rounded once, so more exactly; over n steps the two differ by up to n * 6e-8 of the value.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from stilts_jax.settings import Settings
from stilts_jax.sharding import place
from stilts_jax.tokenization import FIRST_PIECE_ID
from stilts_jax.train.losses import check_tokens
from stilts_jax.train.optimizer import OptimizerConfig, Params, count_layers


def fits_phase_vocabulary(settings: Settings, kinds: Collection[str]) -> bool:
    """Says whether a phase trains on its own rows only: where it is to train any, and may.

    Not in bfloat16, where weight decay depends on how each step rounds, nor with masked language modelling, whose
    softmax has a gradient for every row.
    """
    wanted = settings.train.phase_vocabulary and not settings.train.freeze_embeddings
    return wanted and settings.compute.param_dtype == "float32" and "mlm" not in kinds


@dataclass(frozen=True)
class PhaseVocabulary:
    """Which rows of the word embeddings a phase trains."""

    ids: np.ndarray  # int32 [n], ascending; row i of the small table is row ``ids[i]`` of the large one
    vocab_size: int  # rows of the large table

    @classmethod
    def from_tokens(
        cls, tokens: Iterable[np.ndarray], vocab_size: int, *, mask_id: int | None = None, multiple: int = 128
    ) -> "PhaseVocabulary":
        """Collects the special ids (``mask_id``: the last row if not given) and those that occur in ``tokens``.

        Rows that do not occur fill up to the ``multiple``, which is fixed so that a run can go on with other devices.
        """
        used = np.zeros(vocab_size, bool)
        used[[*range(FIRST_PIECE_ID), vocab_size - 1 if mask_id is None else mask_id]] = True
        for array in map(np.asarray, tokens):
            check_tokens(array, vocab_size, "the data")
            used[array] = True
        used[np.flatnonzero(~used)[: -int(used.sum()) % multiple]] = True
        return cls(np.flatnonzero(used).astype(np.int32), vocab_size)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lookup(self) -> np.ndarray:
        """int32 [vocab_size], the row in the small table; -1 where there is none."""
        lookup = np.full(self.vocab_size, -1, np.int32)
        lookup[self.ids] = np.arange(len(self.ids), dtype=np.int32)
        return lookup

    def remap(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Returns columns of features with ids of the small table; special ids stay what they are."""
        own = {name: columns[name] for name in ("tokens", "pair_tokens") if name in columns}
        found = {name: replace(column, values=self.lookup[column.values]) for name, column in own.items()}
        return {**columns, **found}

    def shrink(self, params: Params) -> Params:
        """Returns ``{"encoder": ..., ...}`` with the small table in place of the large one."""
        word = params["encoder"]["embeddings"]["word"]
        take = jax.jit(lambda word, ids: word[ids], out_shardings=word.sharding)
        return _with_word(params, take(word, self.ids))

    def restore(
        self,
        params: Params,
        original: Any,
        *,
        optimizer: OptimizerConfig,
        steps: int,
        skipped: Collection[int] = (),
    ) -> Params:
        """Puts the rows that were not trained back, as ``steps`` steps, without the ``skipped``, would have left them.

        ``params`` have the small table; ``original`` is the large one [V, D] before training, of numpy or jax.
        """
        word = params["encoder"]["embeddings"]["word"]
        taken = np.setdiff1d(np.arange(steps), list(skipped))
        rates = np.asarray(jax.vmap(optimizer.rates())(taken), np.float64)
        scale = optimizer.rate_scale("encoder/embeddings/word", count_layers(params))
        factor = np.prod(1.0 - rates * scale * optimizer.weight_decay)

        def merge(original: jax.Array, trained: jax.Array, ids: jax.Array, factor: jax.Array) -> jax.Array:
            return (original * factor.astype(original.dtype)).at[ids].set(trained.astype(original.dtype))

        run = jax.jit(merge, out_shardings=word.sharding)
        return _with_word(params, run(place(original, word.sharding), word, self.ids, factor))


def _with_word(params: Params, word: Any) -> Params:
    encoder = params["encoder"]
    return {**params, "encoder": {**encoder, "embeddings": {**encoder["embeddings"], "word": word}}}
