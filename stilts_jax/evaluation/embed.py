"""Embeds texts: the mean of a layer's hidden states, or the output of a trained dual encoder."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stilts_jax.evaluation.predict import Layer, predict
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.ragged import find_unique
from stilts_jax.model import Model
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.spec import EmbedExample
from stilts_jax.tokenization import Tokenizer


@jax.jit
def _sample_entries(params: Any) -> Any:
    """Takes 256 entries of every array, evenly spread."""

    def sample(array: jax.Array) -> jax.Array:
        places = np.linspace(0, max(array.size - 1, 0), 256, dtype=np.int64)
        return array[np.unravel_index(places, array.shape)]

    return jax.tree.map(sample, params)


@dataclass(frozen=True)
class Embedder:
    """Embeds texts; equal texts get equal vectors.

    Attributes:
        model: what to compute.
        params: ``{"encoder"}`` or, with a head, ``{"encoder", "head"}``.
        tokenizer: the encoder's.
        max_length: tokens of a text at most, special ones included; a longer text loses its end.
        layer: without a head, whose states are averaged; None is 14 of 24, "all" gives every layer.
        head: name of a dual encoder's head; None averages.
        tokens_per_batch: padded tokens of a batch.
        mesh: devices that share each batch.
        progress: counts texts.
    """

    model: Model
    params: Mapping[str, Any]
    tokenizer: Tokenizer
    max_length: int = 512
    layer: Layer | None = None
    head: str | None = None
    tokens_per_batch: int = 16384
    mesh: Mesh | None = None
    progress: Progress = SILENT

    @property
    def fingerprint(self) -> str:
        """A hash of all that the vectors depend on; of each weight, 256 entries stand for the whole."""
        what = (self.model, self.layer, self.head, self.max_length, self.tokenizer.fingerprint)
        digest = hashlib.blake2b(repr(what).encode(), digest_size=16)
        for sample in jax.tree.leaves(_sample_entries(dict(self.params))):
            digest.update(np.asarray(sample).tobytes())
        return digest.hexdigest()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D] (for all layers [N, L + 1, D])."""
        unique, numbers = find_unique(texts)
        if not unique:
            return np.zeros((0, self.model.encoder.hidden_size), np.float32)
        features = build_features(
            "embed",
            {"": [EmbedExample(str(number), text) for number, text in enumerate(unique)]},
            self.tokenizer,
            FeatureSettings(max_length=self.max_length),
            training=False,
            progress=self.progress,
        )
        rows = predict(
            self.model,
            self.params,
            features,
            head=self.head,
            layer=self.layer,
            tokens_per_batch=self.tokens_per_batch,
            length_multiple=16,
            mesh=self.mesh,
            progress=self.progress,
        )
        return rows["vectors"][numbers]
