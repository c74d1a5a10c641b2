"""KerasHub's XLM-R classifier on the JAX backend, as its users run it: `fit` and `predict`, rows of one length."""

import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from measured import host_memory_used
from peer import PeerSettings

from stilts_jax.batches.collate import collate
from stilts_jax.bench import Round, Workload
from stilts_jax.errors import ConfigError
from stilts_jax.model import EncoderConfig
from stilts_jax.tokenization import PAD_ID


class KerasPeer:
    """A classifier of the shape with fresh weights; optimizer, loss and precision are those that it takes by itself."""

    def __init__(
        self,
        settings: PeerSettings,
        workload: Workload,
        encoder: EncoderConfig,
        dtype: str,
        *,
        training: bool,
    ) -> None:
        os.environ["KERAS_BACKEND"] = "jax"
        try:
            import keras_hub
        except ImportError as error:
            raise ConfigError(
                "The peer is not installed.", where="--peer=keras", fix="pip install keras-hub"
            ) from error
        if workload.features.kind != "classify":
            raise ConfigError(
                "KerasHub is timed on classification.", where="--lengths", fix="take nli, or such a task"
            )
        self._workload, self._training = workload, training
        backbone = keras_hub.models.XLMRobertaBackbone(
            vocabulary_size=encoder.vocab_size,
            num_layers=encoder.num_layers,
            num_heads=encoder.num_heads,
            hidden_dim=encoder.hidden_size,
            intermediate_dim=encoder.intermediate_size,
            max_sequence_length=encoder.max_positions,
            dtype=dtype if dtype == "float32" else f"mixed_{dtype}",
        )
        self._model: Any = keras_hub.models.XLMRobertaTextClassifier(backbone, workload.num_labels)

    def describe(self, settings: PeerSettings) -> str:
        """What is used, in words."""
        names = ", ".join(f"{name} {version(name)}" for name in ("keras", "keras-hub", "jax"))
        return f"rows padded to {self._workload.max_length}, defaults of fit and predict; {names}"

    def take_round(self, batches: Sequence[np.ndarray]) -> Round:
        """Trains on batches of rows, or predicts them."""
        rows, length = np.concatenate(batches), self._workload.max_length
        arrays = collate(self._workload.features, rows, length)
        inputs = {"token_ids": arrays["tokens"], "padding_mask": arrays["tokens"] != PAD_ID}
        size = len(batches[0])
        began = time.perf_counter()
        if self._training:
            self._model.fit(inputs, arrays["label"], batch_size=size, verbose=0)
        else:
            self._model.predict(inputs, batch_size=size, verbose=0)
        seconds = time.perf_counter() - began
        return Round(seconds, self._workload.lengths[rows], [(len(part), length) for part in batches])

    def memory_used(self) -> dict[str, float]:
        """Returns the peaks of this process in GiB."""
        return host_memory_used()
