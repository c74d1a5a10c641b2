"""Finished models from outside an experiment: opened for use, or exported to a transformers folder."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stilts_jax.checkpoint import Checkpoints
from stilts_jax.errors import CheckpointError, nearest
from stilts_jax.experiment.models import FINAL, FORMAT, TRAINED
from stilts_jax.files import open_path, read_record
from stilts_jax.model import EncoderConfig, HeadConfig, TaskHead, export_encoder, find_folder, load_encoder
from stilts_jax.progress import SILENT, Progress
from stilts_jax.sharding import Mesh, MeshConfig, make_mesh, parameter_shardings
from stilts_jax.tokenization import Tokenizer, load_tokenizer

FileType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class OpenModel:
    """A model on this machine's devices, with its tokenizer.

    Attributes:
        params: of the encoder.
        heads: what each head is, and its parameters, by name.
    """

    config: EncoderConfig
    params: dict[str, Any]
    heads: dict[str, tuple[HeadConfig, dict[str, Any]]]
    tokenizer: Tokenizer
    mesh: Mesh


def open_model(name: str, mesh: Mesh | None = None, progress: Progress = SILENT) -> OpenModel:
    """Opens a phase's folder, a transformers folder or a hub name."""
    mesh = mesh or make_mesh(MeshConfig())
    folder = open_path(name)
    if (folder / TRAINED).is_file():
        record = _read_record(folder)
        with Checkpoints(folder / FINAL, progress=progress, read_only=True) as checkpoints:
            params = checkpoints.load("params", shardings=lambda tree: parameter_shardings(tree, mesh))
        config, encoder = EncoderConfig(**record["encoder"]), params["encoder"]
        heads = {
            head: (HeadConfig(**record["heads"][head]), values) for head, values in params["heads"].items()
        }
        tokenizer = load_tokenizer(find_folder(record["tokenizer"]))
    else:
        loaded = load_encoder(name, sharding=partial(parameter_shardings, mesh=mesh))
        config, encoder, head = loaded.config, loaded.params, loaded.task_head
        heads = {head.config.kind: (head.config, head.params)} if head is not None else {}
        tokenizer = load_tokenizer(loaded.tokenizer_folder)
    tokenizer.check_fits(config.vocab_size)
    return OpenModel(config, encoder, heads, tokenizer, mesh)


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
    with Checkpoints(folder / FINAL, progress=progress, read_only=True) as checkpoints:
        params = checkpoints.load("params")
    chosen = None
    if head is not None:
        labels = tuple(record["labels"].get(head, ()))
        chosen = TaskHead(HeadConfig(**record["heads"][head]), params["heads"][head], labels)
    export_encoder(
        out,
        EncoderConfig(**record["encoder"]),
        params["encoder"],
        tokenizer_folder=find_folder(record["tokenizer"]),
        head=chosen,
        dtype=dtype,
    )


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        return read_record(folder / TRAINED, FORMAT)
    except FileNotFoundError as error:
        raise CheckpointError(
            "This is no folder of a trained phase.",
            where=str(folder / TRAINED),
            fix="name a folder below WORKDIR/phases whose training is finished",
        ) from error
