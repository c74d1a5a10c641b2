"""Where the first encoder of an experiment comes from: the hub, a folder, or (said so by name) a random draw."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from stilts_jax.data.files import hash_files
from stilts_jax.experiment.settings import DEBUG_SHAPE, Settings
from stilts_jax.model import SHAPES, EncoderConfig, LoadedEncoder, init_encoder, load_encoder, read_config

RANDOM = "random:"  # "random:FOLDER" draws the weights that FOLDER/config.json describes
_FILES = ("config.json", "*.safetensors", "*.bin")


def tokenizer_folder(encoder: str) -> str:
    """Returns where the tokenizer of ``encoder`` lies."""
    return encoder.removeprefix(RANDOM)


def encoder_fingerprint(encoder: str, settings: Settings) -> str:
    """Returns a hash of an encoder's files; for the hub its name and revision."""
    folder = Path(tokenizer_folder(encoder))
    if not folder.is_dir():
        return encoder
    patterns = _FILES[:1] if encoder.startswith(RANDOM) or settings.debug else _FILES
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return f"{RANDOM if encoder.startswith(RANDOM) else ''}{hash_files(paths)}"


def load_start(encoder: str, settings: Settings, *, sharding: Any = None) -> LoadedEncoder:
    """Returns the encoder that a phase without a parent starts from.

    Args:
        sharding: from parameter path and shape to sharding; see ``load_encoder``.
    """
    if not (encoder.startswith(RANDOM) or settings.debug):
        return load_encoder(encoder, dtype=settings.compute.param_dtype, sharding=sharding)
    folder = tokenizer_folder(encoder)
    config = read_config(folder)
    if settings.debug:
        config = _shrink(config)
    key = jax.random.key(settings.experiment.first_seed)
    params = init_encoder(config, key, settings.compute.param_dtype)
    return LoadedEncoder(config=config, params=params, tokenizer_folder=Path(folder))


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
