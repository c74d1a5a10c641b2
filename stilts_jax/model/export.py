"""Writes an encoder, and a head beside it, as a folder that transformers loads with equal outputs."""

import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from stilts_jax.errors import ConfigError, EncoderError
from stilts_jax.files import local_path, replacing, write_json
from stilts_jax.model.config import EncoderConfig
from stilts_jax.model.encoder import check_encoder, check_shapes
from stilts_jax.model.heads import init_head
from stilts_jax.model.loading import ENCODER_NAMES, ENCODER_PREFIX, HEADS, TaskHead, Tensor, list_tensors
from stilts_jax.tokenization import tokenizer_files


def export_encoder(
    folder: str | Path,
    config: EncoderConfig,
    encoder_params: Mapping[str, Any],
    *,
    tokenizer_folder: str | Path | None = None,
    head: TaskHead | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    file_bytes: int = 5_000_000_000,
) -> Path:
    """Writes a transformers folder, whole or not at all, and returns it.

        >>> import jax, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("nli", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> head = sj.TaskHead(model.head("nli"), params["heads"]["nli"], ("yes", "no"))
        >>> made = sj.export_encoder(folder / "exported", model.encoder, params["encoder"], head=head)
        >>> sorted(path.name for path in made.iterdir())
        ['config.json', 'model.safetensors']

    ``folder`` must not exist, or be empty; the files of a ``tokenizer_folder`` are copied along. A ``head`` is written
    as the matching transformers class, which has no pooler; a bare encoder is written with its ``pooler``, or with that
    of an embed head. Weights beyond ``file_bytes`` are cut into several files with an index, as transformers does.
    """
    folder = local_path(str(folder))
    if dtype not in ("float32", "bfloat16"):  # in whole numbers all weights would be zeros
        what, fix = f"Weights are not written in {dtype!r}.", "take 'float32' or 'bfloat16'"
        raise ConfigError(what, where="export_encoder, dtype", fix=fix)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fix = "name a new one, or remove it"
        raise EncoderError("The folder exists already.", where=str(folder), fix=fix)
    tensors, described = _list_tensors(config, encoder_params, head), _describe(config, head, dtype)
    os.umask(mask := os.umask(0))  # it can only be read by setting it
    with replacing(folder, folder=True) as made:
        if tokenizer_folder is not None:
            for path in tokenizer_files(local_path(str(tokenizer_folder))):
                shutil.copyfile(path, made / path.name)
        write_json(made / "config.json", described)
        _write_weights(made, tensors, dtype, file_bytes)
        for path in made.iterdir():
            path.chmod(0o666 & ~mask)  # safetensors makes its files private, whatever the user's own are
            with path.open("rb") as file:
                os.fsync(file.fileno())
    return folder


def _list_tensors(config: EncoderConfig, params: Any, head: TaskHead | None) -> list[tuple[Tensor, Any]]:
    """Returns every array that is written, with its place."""
    kind = head.config.kind if head else ""
    if head and (head.config.uses_encoder_pooler or head.config.patches):
        form = "looks at pictures" if head.config.patches else "has the jiant form"
        what = f"transformers has no class of this encoder with a {kind} head that {form}."
        fix = "export the encoder without its head, or train a head of the form 'transformers'"
        raise ConfigError(what, where="head", fix=fix)
    params, beside = dict(params), head.params if head and kind in HEADS else None
    if beside is not None:
        params.pop("pooler", None)
    elif head and "pooler" in head.params:
        params["pooler"] = head.params["pooler"]
    check_encoder(params, config)
    prefix = "" if beside is None else ENCODER_PREFIX
    found = list_tensors(params, ENCODER_NAMES[config.family], config.num_layers, prefix)
    if head and beside is not None:
        wanted = jax.eval_shape(lambda: init_head(head.config, config, jax.random.key(0)))
        check_shapes(beside, wanted, "head", "take a head's parameters and its HeadConfig from one place")
        found += list_tensors(beside, HEADS[kind][1])
    return list(zip(found, jax.tree.leaves((params, beside)), strict=True))


def _write_weights(folder: Path, tensors: list[tuple[Tensor, Any]], dtype: str, file_bytes: int) -> None:
    """Writes files one after the other, so that the host holds one file's tensors at a time."""
    from huggingface_hub import split_state_dict_into_shards_factory

    parts = {key: (tensor, leaf, layer) for tensor, leaf in tensors for layer, key in enumerate(tensor.keys)}

    def measure(part: tuple[Tensor, Any, int]) -> int:
        return math.prod(part[0].their_shape) * jnp.dtype(dtype).itemsize

    def fetch(tensor: Tensor, leaf: Any, layer: int) -> np.ndarray:
        array = np.asarray(leaf[layer] if tensor.stacked else leaf)
        return np.ascontiguousarray((array.T if tensor.transposed else array).astype(jnp.dtype(dtype)))

    options: Any = {"filename_pattern": "model{suffix}.safetensors", "max_shard_size": file_bytes}
    files = split_state_dict_into_shards_factory(parts, get_storage_size=measure, **options)
    for name, keys in files.filename_to_tensors.items():
        try:
            save_file({key: fetch(*parts[key]) for key in keys}, folder / name, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk stands in its text only
            if not (number := re.search(r"\(os error (\d+)\)", str(error))):
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    if files.is_sharded:
        index = {"metadata": files.metadata, "weight_map": files.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index)


def _describe(config: EncoderConfig, head: TaskHead | None, dtype: str) -> dict[str, Any]:
    family = "XLMRoberta" if config.family == "xlm-roberta" else "XLMRobertaXL"
    kind = HEADS.get(head.config.kind, ("Model",))[0] if head else "Model"
    described = {"architectures": [family + kind], **config.to_transformers(), "dtype": dtype}
    if head:
        described["classifier_dropout"] = head.config.dropout
    if head and head.config.kind in ("classify", "tag"):
        count = head.config.num_labels
        labels = head.labels or tuple(f"LABEL_{number}" for number in range(count))
        listed = isinstance(labels, tuple | list) and all(isinstance(label, str) for label in labels)
        if not listed or len(labels) != count:
            what = f"{labels!r} does not name the {count} labels of the head."
            fix = "give a tuple with the name of each, the first output's first"
            raise ConfigError(what, where="head.labels", fix=fix)
        described["id2label"] = {str(number): label for number, label in enumerate(labels)}
        described["label2id"] = {label: number for number, label in enumerate(labels)}
    return described
