"""Finished models from outside an experiment: opened for use, or exported to a transformers folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from stilts_jax.checkpoint import Checkpoints
from stilts_jax.errors import CheckpointError, EncoderError, nearest
from stilts_jax.experiment.models import FINAL, FORMAT, TOKENIZER, TRAINED
from stilts_jax.files import open_path, read_record, write_whole
from stilts_jax.model import EncoderConfig, HeadConfig, TaskHead, export_encoder, find_folder, load_encoder
from stilts_jax.model.weights import read_json
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import Settings
from stilts_jax.sharding import Mesh, MeshConfig, make_mesh, parameter_shardings
from stilts_jax.tokenization import OTHER_FILES, VOCABULARY_FILES, Tokenizer, load_tokenizer

FileType = Literal["float32", "bfloat16"]

_DECISIVE = (
    *("preset", "train.max_length", "compute.dtype", "compute.matmul_precision"),
    *("model.retrieval_layer", "evaluation.max_length", "evaluation.mining_neighbours"),
)


@dataclass(frozen=True)
class OpenModel:
    """A model on this machine's devices, with its tokenizer.

    Attributes:
        params: of the encoder.
        heads: by name: what each head is, its parameters and labels (empty where they have no names).
    """

    config: EncoderConfig
    params: dict[str, Any]
    heads: dict[str, TaskHead]
    tokenizer: Tokenizer
    mesh: Mesh


def open_model(name: str, mesh: Mesh | None = None, progress: Progress = SILENT) -> OpenModel:
    """Opens a phase's folder, a transformers folder or a hub name."""
    mesh = mesh or make_mesh(MeshConfig())
    folder = open_path(name)
    if (folder / TRAINED).is_file():
        record = _read_record(folder)
        tokenizer = _open_tokenizer(folder, record)
        config = EncoderConfig(**record["encoder"])
        with Checkpoints(folder / FINAL, progress=progress, read_only=True) as checkpoints:
            params = checkpoints.load("params", shardings=lambda tree: parameter_shardings(tree, mesh))
        encoder = params["encoder"]
        heads = {head: _head(record, head, values) for head, values in params["heads"].items()}
    else:
        loaded = load_encoder(name, sharding=partial(parameter_shardings, mesh=mesh))
        tokenizer = load_tokenizer(loaded.tokenizer_folder)
        config, encoder, head = loaded.config, loaded.params, loaded.task_head
        heads = {head.config.kind: head} if head is not None else {}
    tokenizer.check_fits(config.vocab_size)
    return OpenModel(config, encoder, heads, tokenizer, mesh)


def own_options(name: str) -> dict[str, Any]:
    """Returns the options, by their dotted names, with which a model makes the predictions that it is known for.

    A phase remembers those that it was scored with; a transformers folder names its precision.
    """
    folder = open_path(name)
    if (folder / TRAINED).is_file():
        return _read_record(folder)["settings"]
    described = read_json(find_folder(name) / "config.json")
    stored = str(described.get("dtype") or described.get("torch_dtype"))
    return {"compute.dtype": "bfloat16" if stored in ("bfloat16", "float16") else "float32"}


def keep_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Copies the tokenizer's files into a phase's folder, which can then be used alone, moved or not."""
    for name in (*VOCABULARY_FILES, *OTHER_FILES, "config.json"):
        source = Path(tokenizer.source) / name
        if source.is_file():
            write_whole(folder / FINAL / TOKENIZER / name, source.read_bytes())


def decisive_options(settings: Settings) -> dict[str, Any]:
    """Returns the options, by their dotted names, that change what a finished model predicts."""
    return {name: attrgetter(name)(settings) for name in _DECISIVE}


def export_phase(
    folder: Path,
    out: Path,
    *,
    head: str | None = None,
    dtype: FileType = "float32",
    progress: Progress = SILENT,
) -> None:
    """Writes the model of a finished phase as a transformers folder."""
    record = _read_record(folder)
    if head is not None and head not in record["heads"]:
        raise CheckpointError(
            f"The phase has no head {head!r}.", where=str(folder), fix=nearest(head, record["heads"])
        )
    tokenizer = _open_tokenizer(folder, record)
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))  # each device holds its part only, and the host a tensor
    with Checkpoints(folder / FINAL, progress=progress, read_only=True) as checkpoints:
        params = checkpoints.load("params", shardings=lambda tree: parameter_shardings(tree, mesh))
    export_encoder(
        out,
        EncoderConfig(**record["encoder"]),
        params["encoder"],
        tokenizer_folder=tokenizer.source,
        head=_head(record, head, params["heads"][head]) if head is not None else None,
        dtype=dtype,
    )


def _head(record: Mapping[str, Any], name: str, params: dict[str, Any]) -> TaskHead:
    return TaskHead(HeadConfig(**record["heads"][name]), params, tuple(record["labels"].get(name, ())))


def _open_tokenizer(folder: Path, record: Mapping[str, Any]) -> Tokenizer:
    """Returns the copy that was kept with the phase, if it is still what the phase was trained with."""
    try:
        tokenizer = load_tokenizer(find_folder(folder / FINAL / TOKENIZER))
    except EncoderError as error:
        raise CheckpointError(
            f"The phase's tokenizer is missing: {error.what}",
            where=str(folder / FINAL / TOKENIZER),
            fix="copy the tokenizer's files from the encoder that the phase was trained from",
        ) from error
    if tokenizer.fingerprint != record["tokenizer"]:
        raise CheckpointError(
            "The phase was trained with another tokenizer: these files were changed since.",
            where=tokenizer.source,
            fix="put the tokenizer's files back that the encoder of the phase came with",
        )
    return tokenizer


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        return read_record(folder / TRAINED, FORMAT)
    except FileNotFoundError as error:
        raise CheckpointError(
            "This is no folder of a trained phase.",
            where=str(folder / TRAINED),
            fix="name a folder below WORKDIR/phases whose training is finished",
        ) from error
