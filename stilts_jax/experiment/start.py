"""Where the first encoder of an experiment comes from: the hub, a folder, or (said so by name) a random draw."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from stilts_jax.data.files import hash_files
from stilts_jax.errors import EncoderError
from stilts_jax.experiment.settings import DEBUG_SHAPE, Settings
from stilts_jax.model import SHAPES, EncoderConfig, find_folder, init_encoder, load_encoder

RANDOM = "random:"  # "random:FOLDER" draws the weights that FOLDER/config.json describes
_FILES = ("config.json", "*.safetensors", "*.bin")


def tokenizer_folder(encoder: str) -> Path:
    """Returns where the tokenizer of ``encoder`` lies; one of the hub must have been fetched by ``prepare``."""
    return find_folder(encoder.removeprefix(RANDOM))


def encoder_fingerprint(encoder: str, settings: Settings) -> str:
    """Returns a hash of an encoder's files."""
    folder = tokenizer_folder(encoder)
    patterns = _FILES[:1] if encoder.startswith(RANDOM) or settings.debug else _FILES
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return f"{RANDOM if encoder.startswith(RANDOM) else ''}{hash_files(paths)}"


@dataclass(frozen=True)
class Start:
    """What a phase starts from.

    Attributes:
        encoder: parameters.
        heads: parameters by head, as far as they are given.
    """

    config: EncoderConfig
    encoder: dict[str, Any]
    heads: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def load_start(encoder: str, settings: Settings, sharding: Any = None) -> Start:
    """Returns the encoder that a phase without a parent starts from.

    Args:
        sharding: from parameter path and shape to sharding; see ``load_encoder``.
    """
    if not (encoder.startswith(RANDOM) or settings.debug):
        loaded = load_encoder(encoder, dtype=settings.compute.param_dtype, sharding=sharding)
        heads = {} if loaded.mlm_head is None else {"mlm": loaded.mlm_head}
        return Start(loaded.config, loaded.params, heads)
    config = read_shape(tokenizer_folder(encoder))
    if settings.debug:
        config = _shrink(config)
    key = jax.random.key(settings.experiment.first_seed)
    return Start(config, init_encoder(config, key, settings.compute.param_dtype))


def read_shape(folder: Path) -> EncoderConfig:
    """Returns the shape that a folder's ``config.json`` describes."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(
            "The encoder's config.json can't be read.",
            where=str(path),
            fix="name the folder of a transformers encoder",
        ) from error
    return EncoderConfig.from_transformers(values, where=str(path))


def _shrink(config: EncoderConfig) -> EncoderConfig:
    """Returns a tiny encoder of the same family and vocabulary."""
    tiny = SHAPES[DEBUG_SHAPE]
    if tiny.hidden_size >= config.hidden_size:
        return config
    return dataclasses.replace(
        config,
        hidden_size=tiny.hidden_size,
        num_layers=tiny.num_layers,
        num_heads=tiny.num_heads,
        intermediate_size=tiny.intermediate_size,
    )
