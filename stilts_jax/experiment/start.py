"""The files of an experiment's first encoder: its shape, its tokenizer, and a hash that names them."""

import contextlib
import dataclasses
import hashlib
import time
from pathlib import Path

from stilts_jax.errors import RecordError
from stilts_jax.files import cache_root, read_record, write_record
from stilts_jax.model import SHAPES, EncoderConfig, find_folder
from stilts_jax.model.weights import read_json
from stilts_jax.settings import DEBUG_SHAPE, Settings
from stilts_jax.tasks.sources.files import hash_files
from stilts_jax.tokenization import OTHER_FILES, VOCABULARY_FILES

RANDOM = "random:"  # "random:FOLDER" draws the weights that FOLDER/config.json describes
_FILES = ("config.json", *VOCABULARY_FILES, *OTHER_FILES)
_WEIGHTS = ("*.safetensors", "*.bin")
_WORTH_REMEMBERING = 2**26  # bytes: smaller files are hashed in a moment


def tokenizer_folder(encoder: str) -> Path:
    """Returns where the tokenizer of ``encoder`` lies; one of the hub must have been fetched by ``prepare``."""
    return find_folder(encoder.removeprefix(RANDOM))


def encoder_fingerprint(encoder: str, settings: Settings) -> str:
    """Returns a hash of an encoder's files, its tokenizer's among them; refuses an encoder of another family."""
    read_shape(encoder)
    folder = tokenizer_folder(encoder)
    patterns = _FILES if encoder.startswith(RANDOM) or settings.debug else _FILES + _WEIGHTS
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    hashes = [_remembered_hash(path.resolve()) for path in paths]
    whole = hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]
    return f"{RANDOM if encoder.startswith(RANDOM) else ''}{whole}"


def _remembered_hash(path: Path) -> str:
    """Returns the hash of a file's bytes; of a large one whose size, time and inode are as they were, the last one."""
    found = path.stat()
    if found.st_size < _WORTH_REMEMBERING:
        return hash_files([path])
    state = {"path": str(path), "size": found.st_size, "changed": found.st_mtime_ns, "inode": found.st_ino}
    memory = cache_root() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, RecordError):
        record = read_record(memory)
        value = record.pop("hash")
        if record == state:
            return value
    value = hash_files([path])
    # A file that was written a moment ago may be written once more within one tick of the clock.
    if time.time_ns() - found.st_mtime_ns > 2e9:
        with contextlib.suppress(OSError):
            write_record(memory, state | {"hash": value})
    return value


def read_shape(encoder: str) -> EncoderConfig:
    """Returns the shape that the ``config.json`` of an encoder describes."""
    path = tokenizer_folder(encoder) / "config.json"
    return EncoderConfig.from_transformers(read_json(path), where=str(path))


def with_dropout(config: EncoderConfig, settings: Settings) -> EncoderConfig:
    """Returns a shape with the dropout that the settings name, where they name one."""
    return dataclasses.replace(config, **settings.model.dropout)  # type: ignore[arg-type]


def shrink(config: EncoderConfig) -> EncoderConfig:
    """Returns a tiny encoder of the same family and vocabulary."""
    tiny = SHAPES[DEBUG_SHAPE]
    if tiny.hidden_size >= config.hidden_size:
        return config
    names = ("hidden_size", "num_layers", "num_heads", "intermediate_size")
    return dataclasses.replace(config, **{name: getattr(tiny, name) for name in names})
