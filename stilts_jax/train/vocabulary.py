"""The phase vocabulary: training with the embedding rows that a phase's data use, and only those.

A fine-tuning phase touches a fraction of XLM-R's 250,002 rows, and Adam reads and writes all of them
every step. A row that never occurs has no gradient, so its moments stay zero and weight decay is all that
happens to it: a product that is known beforehand. In exact arithmetic a run on the rows that occur, with the
others put back at its end, is the run on all rows. (A head for pictures begins elsewhere: at the mean of the rows
that are there.)

Rounding: a float32 run multiplies an untouched row step by step, and where ``rate * decay`` is near the last
bit (1e-5 * 0.01 = 1e-7, against 1.2e-7) each step rounds to one whole last bit, or to none. The closed form
is computed in float64 and rounded once, so it is the more exact of the two; over n steps they differ by up to
n * 6e-8 of the value.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stilts_jax.errors import TrainingError
from stilts_jax.sharding import place
from stilts_jax.train.losses import check_tokens
from stilts_jax.train.optimizer import OptimizerConfig, Params, count_layers

_SPECIAL_IDS = (0, 1, 2, 3)  # <s>, <pad>, </s>, <unk>


def fits_phase_vocabulary(param_dtype: str, kinds: Collection[str]) -> bool:
    """Says whether a phase may train on its own rows only.

    Not with bfloat16 parameters: what weight decay makes of them there depends on how each step rounds. Not
    where masked language modelling is in the mixture: its softmax has a gradient for every row.
    """
    return param_dtype == "float32" and "mlm" not in kinds


@dataclass(frozen=True)
class PhaseVocabulary:
    """Which rows of the word embeddings a phase trains."""

    ids: np.ndarray  # int32 [n], ascending; row i of the small table is row ``ids[i]`` of the large one
    vocab_size: int  # rows of the large table

    @classmethod
    def from_tokens(
        cls, tokens: Iterable[np.ndarray], vocab_size: int, *, mask_id: int | None = None, multiple: int = 128
    ) -> "PhaseVocabulary":
        """Collects the ids that occur in all that the phase trains and selects on.

        Args:
            mask_id: kept like the other special ids; the last row if not given, as in XLM-R.
            multiple: of the number of rows. Fixed, not taken from the mesh, so that a run can go on with
                other devices. What is missing to it is filled up with rows that do not occur.
        """
        used = np.zeros(vocab_size, bool)
        used[[*_SPECIAL_IDS, vocab_size - 1 if mask_id is None else mask_id]] = True
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

    def remap(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns a batch's arrays with ids of the small table; special ids stay what they are."""
        changed = dict(arrays)
        for name in {"tokens", "pair_tokens", "masked_targets"} & arrays.keys():
            changed[name] = self.lookup[arrays[name]]
            strange = np.unique(np.asarray(arrays[name])[changed[name] < 0])
            if len(strange):
                what = f"The batch has {len(strange)} token id(s) that the phase vocabulary lacks."
                fix = "build it from all training and selection data, or set train.phase_vocabulary=false"
                raise TrainingError(what, where=f"{name}: {', '.join(map(str, strange[:10]))}", fix=fix)
        return changed

    def shrink(self, params: Params) -> Params:
        """Returns ``{"encoder": ..., ...}`` with the small table in place of the large one."""
        word = params["encoder"]["embeddings"]["word"]
        if not isinstance(word, jax.Array):
            return _with_word(params, word[self.ids])
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
        """Puts the rows that were not trained back, as ``steps`` steps would have left them.

        Args:
            params: after training, with the small table.
            original: the large table [V, D] before training; numpy or jax.
            steps: which the parameters have seen (``TrainingResult.step``).
            skipped: steps that changed nothing (``TrainingResult.skipped``).
        """
        path, word = "encoder/embeddings/word", jnp.asarray(params["encoder"]["embeddings"]["word"])
        factor = optimizer.untouched_factor(path, count_layers(params), steps, skipped)

        def merge(original: jax.Array, trained: jax.Array, ids: jax.Array, factor: jax.Array) -> jax.Array:
            return (original * factor.astype(original.dtype)).at[ids].set(trained.astype(original.dtype))

        run = jax.jit(merge, out_shardings=word.sharding)
        return _with_word(params, run(place(original, word.sharding), word, self.ids, np.float64(factor)))


def _with_word(params: Params, word: Any) -> Params:
    encoder = params["encoder"]
    return {**params, "encoder": {**encoder, "embeddings": {**encoder["embeddings"], "word": word}}}
