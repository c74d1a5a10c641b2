"""Writes an encoder, and a head beside it, as a folder that transformers loads with equal outputs."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from stilts_jax.errors import ConfigError, EncoderError
from stilts_jax.model.config import EncoderConfig
from stilts_jax.model.convert import (
    ENCODER_PREFIX,
    Tensor,
    architecture,
    encoder_tensors,
    head_tensors,
    walk,
)
from stilts_jax.model.encoder import abstract_encoder
from stilts_jax.model.loading import TaskHead
from stilts_jax.tokenization import OTHER_FILES, VOCABULARY_FILES

_FILE_BYTES = 5_000_000_000  # as transformers cuts its files

_Entry = tuple[str, tuple[int, ...], Callable[[], np.ndarray]]  # key, shape, how to get it


def export_encoder(
    folder: str | Path,
    config: EncoderConfig,
    encoder_params: Mapping[str, Any],
    *,
    tokenizer_folder: str | Path | None = None,
    head: TaskHead | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    file_bytes: int = _FILE_BYTES,
) -> Path:
    """Writes a transformers folder, whole or not at all.

        >>> import jax, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("nli", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> head = sj.TaskHead(model.head("nli"), params["heads"]["nli"], ("yes", "no"))
        >>> made = sj.export_encoder(folder / "exported", model.encoder, params["encoder"], head=head)
        >>> sorted(path.name for path in made.iterdir())
        ['config.json', 'model.safetensors']

    Args:
        folder: where; it must not exist, or be empty.
        config: the encoder's shape.
        encoder_params: its parameters, of numpy or of jax. A ``pooler`` among them is written with a bare
            encoder; the transformers classes with a head have none.
        tokenizer_folder: whose tokenizer files are copied along.
        head: written beside the encoder, as the matching transformers class. An embed head with a pooler
            becomes the bare model's pooler; its scale has no place there.
        dtype: of the file.
        file_bytes: weights beyond this size are cut into several files with an index.

    Returns:
        The folder.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EncoderError(
            "The folder exists already.", where=str(folder), fix="name a new one, or remove it"
        )
    entries = _entries(config, encoder_params, head)
    description = _describe(config, head, dtype)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        if tokenizer_folder is not None:
            _copy_tokenizer(Path(tokenizer_folder), made)
        (made / "config.json").write_text(
            json.dumps(description, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )
        _write_weights(made, entries, dtype, file_bytes)
        for path in made.iterdir():
            path.chmod(0o644)  # safetensors makes its files private; an export is to be shared
            with path.open("rb") as file:
                os.fsync(file.fileno())
        made.chmod(0o755)  # and mkdtemp its folder
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return folder


def _entries(config: EncoderConfig, params: Mapping[str, Any], head: TaskHead | None) -> list[_Entry]:
    kind = head.config.kind if head else None
    if head and head.config.uses_encoder_pooler:
        raise ConfigError(
            f"transformers has no class with the jiant form of a {kind} head.",
            where="head.form",
            fix="export the encoder without its head, or train a head of the form 'transformers'",
        )
    if head and head.config.patches:
        raise ConfigError(
            "transformers has no class of this encoder with a head that looks at pictures.",
            where="head",
            fix="export the encoder without its head",
        )
    params = dict(params)
    bare = kind in (None, "embed")
    if not bare:
        params.pop("pooler", None)
    elif head and "pooler" in head.params:
        params["pooler"] = head.params["pooler"]
    _check_shapes(config, params)
    found = _list_tensors(encoder_tensors(config, params, "" if bare else ENCODER_PREFIX), params)
    if head and not bare:
        found += _list_tensors(head_tensors(head.config.kind, head.params), head.params)
    return found


def _check_shapes(config: EncoderConfig, params: Mapping[str, Any]) -> None:
    given = {path: tuple(leaf.shape) for path, leaf in walk(params) if not path.startswith("pooler/")}
    wanted = {path: tuple(leaf.shape) for path, leaf in walk(abstract_encoder(config))}
    for path in sorted(given.keys() | wanted.keys()):
        if given.get(path) != wanted.get(path):
            raise EncoderError(
                f"The parameter has shape {given.get(path)}, the configuration asks for {wanted.get(path)}.",
                where=path,
                fix="export parameters together with their own configuration",
            )


def _list_tensors(tensors: list[Tensor], params: Mapping[str, Any]) -> list[_Entry]:
    leaves = dict(walk(params))
    return [
        (key, tensor.their_shape, partial(_fetch, leaves[tensor.path], tensor, number))
        for tensor in tensors
        for number, key in enumerate(tensor.keys)
    ]


def _fetch(leaf: Any, tensor: Tensor, number: int) -> np.ndarray:
    array = np.asarray(leaf[number] if tensor.stacked else leaf)
    return array.T if tensor.transposed else array


def _write_weights(folder: Path, entries: list[_Entry], dtype: str, file_bytes: int) -> None:
    """Writes files one after the other, so that the host holds one file's tensors at a time."""
    files: list[list[_Entry]] = [[]]
    size = total = 0
    for entry in entries:
        count = int(np.prod(entry[1])) * jnp.dtype(dtype).itemsize
        if files[-1] and size + count > file_bytes:
            files.append([])
            size = 0
        files[-1].append(entry)
        size, total = size + count, total + count
    places = {}
    for number, content in enumerate(files, start=1):
        name = "model.safetensors"
        if len(files) > 1:
            name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        arrays = {key: np.ascontiguousarray(fetch().astype(jnp.dtype(dtype))) for key, _, fetch in content}
        save_file(arrays, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(arrays, name))
        del arrays
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _describe(config: EncoderConfig, head: TaskHead | None, dtype: str) -> dict[str, Any]:
    described = {
        "architectures": [architecture(config, head.config if head else None)],
        **config.to_transformers(),
        "dtype": dtype,
    }
    if head:
        described["classifier_dropout"] = head.config.dropout
    if head and head.config.kind in ("classify", "tag"):
        labels = head.labels or tuple(f"LABEL_{number}" for number in range(head.config.num_labels))
        if len(labels) != head.config.num_labels:
            raise ConfigError(
                f"{len(labels)} label names for a head of {head.config.num_labels} labels.",
                where="head.labels",
            )
        described["id2label"] = {str(number): label for number, label in enumerate(labels)}
        described["label2id"] = {label: number for number, label in enumerate(labels)}
    return described


def _copy_tokenizer(source: Path, target: Path) -> None:
    found = [name for name in VOCABULARY_FILES + OTHER_FILES if (source / name).is_file()]
    if not set(VOCABULARY_FILES) & set(found):
        raise EncoderError(
            "The folder has no tokenizer.",
            where=str(source),
            fix=f"it should have {' or '.join(VOCABULARY_FILES)}",
        )
    for name in found:
        shutil.copyfile(source / name, target / name)
