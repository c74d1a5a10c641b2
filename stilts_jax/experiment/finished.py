"""Finished models from outside an experiment: opened for use, or exported to a transformers folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilts_jax.checkpoint import Checkpoints
from stilts_jax.errors import CheckpointError, nearest
from stilts_jax.experiment.models import FINAL, TRAINED
from stilts_jax.model import EncoderConfig, HeadConfig, export_encoder, load_encoder
from stilts_jax.progress import SILENT, Progress
from stilts_jax.sharding import Mesh, MeshConfig, make_mesh, parameter_shardings
from stilts_jax.tokenization import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class OpenEncoder:
    """An encoder on this machine's devices, with its tokenizer."""

    config: EncoderConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    mesh: Mesh


def open_encoder(name: str, progress: Progress = SILENT) -> OpenEncoder:
    """Opens a phase's folder, a transformers folder or a hub name."""
    mesh = make_mesh(MeshConfig())
    folder = Path(name)
    if (folder / TRAINED).is_file():
        record = _read_record(folder)
        with Checkpoints(folder / FINAL, progress=progress, read_only=True) as checkpoints:
            params = checkpoints.load(
                "params", "encoder", shardings=lambda tree: parameter_shardings(tree, mesh)
            )
        config = EncoderConfig(**record["encoder"])
        return OpenEncoder(config, params, load_tokenizer(record["tokenizer"]), mesh)
    loaded = load_encoder(name)
    tokenizer = load_tokenizer(loaded.tokenizer_folder)
    tokenizer.check_fits(loaded.config.vocab_size)
    return OpenEncoder(loaded.config, loaded.params, tokenizer, mesh)


def export_phase(
    folder: Path, out: Path, *, head: str | None = None, dtype: str = "float32", progress: Progress = SILENT
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
        chosen = (HeadConfig(**record["heads"][head]), params["heads"][head], record["labels"].get(head))
    export_encoder(
        out,
        EncoderConfig(**record["encoder"]),
        params["encoder"],
        tokenizer_folder=record["tokenizer"],
        head=chosen,
        dtype=dtype,
    )


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / TRAINED).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "This is no folder of a trained phase.",
            where=str(folder / TRAINED),
            fix="name a folder below WORKDIR/phases whose training is finished",
        ) from error
