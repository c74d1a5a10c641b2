"""The loop that people use today: transformers' PyTorch model of the same shape, on the same rows."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from measured import host_memory_used

from stilts_jax.batches.collate import collate
from stilts_jax.bench import Round, Workload
from stilts_jax.errors import ConfigError, StiltsError
from stilts_jax.model import EncoderConfig
from stilts_jax.tokenization import PAD_ID

_IGNORED = -100  # PyTorch's label that is not scored
_CLASSES = {"classify": "SequenceClassification", "tag": "TokenClassification", "span": "QuestionAnswering"}


@dataclass(frozen=True)
class PeerSettings:
    """One way to run PyTorch.

    Attributes:
        attention: of transformers: "sdpa" or "eager"; None: whatever it takes by itself.
        sorted: batches of rows of nearly one length (training: of the whole measurement's rows).
        fused: AdamW in one kernel; else PyTorch's default, which is ``foreach`` on a GPU.
        compiled: ``torch.compile``.
        library: "torch" or "keras".
    """

    name: str
    attention: str | None = None
    sorted: bool = False
    fused: bool = False
    compiled: bool = False
    library: str = "torch"

    @property
    def model(self) -> "PeerSettings":
        """What concerns the model, the same for peers that can share one."""
        return replace(self, name="", sorted=False)

    def describe(self, *, training: bool) -> str:
        """What is set, in words."""
        order = "length grouping" if self.sorted else "shuffled" if training else "in the data's order"
        adam = f", AdamW {'fused' if self.fused else 'as by default'}, clipping at 1" if training else ""
        compiled = ", torch.compile" if self.compiled else ", eager"
        attention = (
            f"attention {self.attention}" if self.attention else "transformers' own choice of attention"
        )
        return f"{order}, padded to the longest row{compiled}, {attention}{adam}"


def list_peers(libraries: Sequence[str], *, training: bool, gpu: bool) -> list[PeerSettings]:
    """Returns PyTorch's loop as people run it and with the best common settings, and KerasHub at its defaults."""
    keras = [PeerSettings("KerasHub", library="keras")] if "keras" in libraries else []
    if "torch" not in libraries:
        return keras
    if training:
        peers = [
            PeerSettings("torch, as people run it"),
            PeerSettings("the same, length grouping", sorted=True),
            PeerSettings("torch, best common settings", "sdpa", sorted=True, fused=True, compiled=gpu),
        ]
    else:
        peers = [
            PeerSettings("torch, unsorted", "sdpa"),
            PeerSettings("torch, sorted by length", "sdpa", sorted=True),
        ]
        if gpu:
            peers.append(PeerSettings("torch, sorted, compiled", "sdpa", sorted=True, compiled=True))
    if gpu:
        peers.append(PeerSettings("torch, eager attention", "eager"))
    return [*peers, *keras]


class TorchPeer:
    """A model of the shape with fresh weights, trained or predicting, in rounds.

    Args:
        dtype: "bfloat16" computes under autocast and keeps float32 weights, as we do.
    """

    def __init__(
        self,
        settings: PeerSettings,
        workload: Workload,
        encoder: EncoderConfig,
        dtype: str,
        *,
        training: bool,
    ) -> None:
        try:
            import torch
            import transformers as library
        except ImportError as error:
            raise ConfigError(
                "The peer is not installed.", where="--peer=torch", fix="pip install torch transformers"
            ) from error
        self._torch: Any = torch
        transformers: Any = library
        self._workload, self._dtype, self._training = workload, dtype, training
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        config = transformers.XLMRobertaConfig(**encoder.to_transformers(), num_labels=workload.num_labels)
        if settings.attention:
            config._attn_implementation = settings.attention
        kind = getattr(transformers, f"XLMRobertaFor{_CLASSES[workload.features.kind]}")
        self._model: Any = kind(config).to(self._device).train(training)
        self.attention = self._model.config._attn_implementation
        plain = self._model
        if settings.compiled:
            self._model = torch.compile(self._model, dynamic=True)
        if training:
            decayed = [p for p in plain.parameters() if p.ndim > 1]
            rest = [p for p in plain.parameters() if p.ndim <= 1]
            self._optimizer = torch.optim.AdamW(
                [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}],
                lr=1e-5,
                fused=settings.fused or None,
            )
            self._parameters = decayed + rest

    def describe(self, settings: PeerSettings) -> str:
        """What is set and used, in words; ``settings`` may differ from our own in what concerns batches."""
        return f"{settings.describe(training=self._training)} ({self.attention}); {self.versions}"

    @property
    def versions(self) -> str:
        """Of the libraries."""
        import transformers

        return f"torch {self._torch.__version__}, transformers {transformers.__version__}"

    def take_round(self, batches: Sequence[np.ndarray]) -> Round:
        """Trains on batches of rows, or predicts them."""
        shapes = []
        self._synchronise()
        began = time.perf_counter()
        work: Callable[[dict[str, Any]], None] = self._train if self._training else self._predict
        with nullcontext() if self._training else self._torch.inference_mode():
            for inputs in self._collate(batches):
                shapes.append(tuple(inputs["input_ids"].shape))
                work(inputs)
            self._synchronise()
        seconds = time.perf_counter() - began
        return Round(seconds, self._workload.lengths[np.concatenate(batches)], shapes)

    def memory_used(self) -> dict[str, float]:
        """Returns the peaks of this process, and of the GPU where there is one, in GiB."""
        used = host_memory_used()
        if self._device == "cpu":
            return used
        return used | {"device_gib": self._torch.cuda.max_memory_allocated() / 2**30}

    def _collate(self, batches: Sequence[np.ndarray]) -> Iterator[dict[str, Any]]:
        features, lengths = self._workload.features, self._workload.lengths
        for rows in batches:
            arrays = collate(features, rows, int(lengths[rows].max()))
            tokens = arrays["tokens"].astype(np.int64)
            inputs = {"input_ids": tokens, "attention_mask": (tokens != PAD_ID).astype(np.int64)}
            if self._training and features.kind == "span":
                inputs |= {
                    "start_positions": arrays["start"].astype(np.int64),
                    "end_positions": arrays["end"].astype(np.int64),
                }
            elif self._training:
                labels = arrays["label" if features.kind == "classify" else "tags"].astype(np.int64)
                inputs["labels"] = np.where(labels < 0, _IGNORED, labels)
            yield {
                name: self._torch.from_numpy(array).to(self._device, non_blocking=True)
                for name, array in inputs.items()
            }

    def _precision(self) -> AbstractContextManager:
        if self._dtype == "float32":
            return nullcontext()
        return self._torch.autocast(self._device, getattr(self._torch, self._dtype))

    def _train(self, inputs: dict[str, Any]) -> None:
        with self._precision():
            loss = self._model(**inputs).loss
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _predict(self, inputs: dict[str, Any]) -> None:
        with self._precision():
            outputs = self._model(**inputs)
        if self._workload.features.kind == "span":
            outputs.start_logits.argmax(-1).cpu(), outputs.end_logits.argmax(-1).cpu()
        else:
            outputs.logits.argmax(-1).cpu()

    def _synchronise(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


class PeerProcess:
    """A peer in a process of its own, as its users have it: our allocator and threads stay out of it.

    Args:
        settings: of the peer; they say which class it is.
        arguments: more of the peer's arguments.
    """

    def __init__(self, settings: PeerSettings, *arguments: Any, **more: Any) -> None:
        self._library = settings.library
        arguments = (settings, *arguments)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, arguments, more), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def __enter__(self) -> "PeerProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.join()

    def take_round(self, batches: Sequence[np.ndarray]) -> Round:
        """Lets the peer take a round."""
        return self._ask(("take_round", batches))

    def describe(self, settings: PeerSettings) -> str:
        """What is set and used, in words."""
        return self._ask(("describe", settings))

    def memory_used(self) -> dict[str, float]:
        """Returns the peer's peaks in GiB."""
        return self._ask(("memory_used",))

    def _ask(self, question: tuple[Any, ...]) -> Any:
        self._pipe.send(question)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise StiltsError(
                f"The peer's process ended with {self._process.exitcode}.",
                where=f"--peer={self._library}",
                fix="its own message stands above; where memory ran out, take a smaller --batch_size",
            ) from None
        if isinstance(answer, StiltsError):
            raise answer
        return answer


def _serve(pipe: Connection, arguments: tuple[Any, ...], more: dict[str, Any]) -> None:
    try:
        if arguments[0].library == "keras":
            from keras_peer import KerasPeer

            peer: Any = KerasPeer(*arguments, **more)
        else:
            peer = TorchPeer(*arguments, **more)
    except StiltsError as error:
        pipe.send(error)
        return
    try:
        pipe.send(None)
        while True:
            name, *rest = pipe.recv()
            pipe.send(getattr(peer, name)(*rest))
    except (EOFError, BrokenPipeError):
        return  # who asked is gone


def plan_rounds(
    settings: PeerSettings,
    rows: Sequence[np.ndarray],
    lengths: np.ndarray,
    batch_size: int,
    *,
    training: bool,
) -> list[list[np.ndarray]]:
    """Cuts the rows of each of our rounds into the peer's batches; returns batches by round."""
    if training:
        return plan_training(rows, lengths, batch_size, sort=settings.sorted)
    return [plan_prediction(part, lengths, batch_size, sort=settings.sorted) for part in rows]


def plan_training(
    rows: Sequence[np.ndarray], lengths: np.ndarray, batch_size: int, *, sort: bool
) -> list[list[np.ndarray]]:
    """Cuts the rows of our rounds into the peer's batches.

    Sorted, groups of fifty batches are, as ``group_by_length`` makes them; round r of R gets every R-th batch, so that
    all rounds have rows of all lengths.

    Returns:
        Batches by round.
    """
    generator = np.random.default_rng(0)
    if not sort:
        return [_cut(generator.permutation(part), batch_size) for part in rows]
    everything = np.concatenate(rows)
    groups = [
        group[np.argsort(-lengths[group], kind="stable")] for group in _cut(everything, 50 * batch_size)
    ]
    batches = _cut(np.concatenate(groups), batch_size)
    return [
        [batches[index] for index in generator.permutation(np.arange(first, len(batches), len(rows)))]
        for first in range(len(rows))
    ]


def plan_prediction(
    rows: np.ndarray, lengths: np.ndarray, batch_size: int, *, sort: bool
) -> list[np.ndarray]:
    """Cuts rows into batches, the longest first or as they come."""
    return _cut(rows[np.argsort(-lengths[rows], kind="stable")] if sort else rows, batch_size)


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
