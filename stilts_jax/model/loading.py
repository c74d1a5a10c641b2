"""Reads an encoder from a folder of transformers: strictly, tensor by tensor, each straight to its devices.

Every tensor in the files is used, known to be useless here, or named in an error; every parameter is found or
named in an error; every number is finite. Nothing is ever filled with random numbers.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stilts_jax.errors import EncoderError
from stilts_jax.files import fetch_folder, is_remote
from stilts_jax.model.config import EncoderConfig, HeadConfig
from stilts_jax.model.convert import (
    DECODER_TABLE,
    ENCODER_PREFIX,
    EXPECTED_UNUSED,
    Tensor,
    encoder_tensors,
    head_tensors,
    nest,
)
from stilts_jax.model.encoder import Params, abstract_encoder
from stilts_jax.model.heads import init_head, init_pooler
from stilts_jax.model.weights import (
    Weights,
    check_numbers,
    holds_weights,
    import_torch,
    open_weights,
    read_json,
)

_ROWS_AT_A_TIME = 8192  # of the word table, where two copies of it are compared


@dataclass(frozen=True)
class TaskHead:
    """A head with its parameters and the names of its labels, as a transformers folder holds it.

    >>> import jax, stilts_jax as sj
    >>> model = sj.Model(sj.SHAPES["tiny"], (("nli", sj.HeadConfig(kind="classify", num_labels=2)),))
    >>> params = sj.init_params(model, jax.random.key(0))
    >>> sj.TaskHead(model.head("nli"), params["heads"]["nli"], ("yes", "no")).labels
    ('yes', 'no')
    """

    config: HeadConfig
    params: Params
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedEncoder:
    """What a folder held.

    Attributes:
        params: the encoder's; with ``pooler`` where the folder has one.
        mlm_head: parameters of a masked-language-model head, if there is one.
        task_head: that of a task class, if there is one.
        tokenizer_folder: where the tokenizer's files should be.
        unused: tensors that the folder has and the encoder has no use for.
    """

    config: EncoderConfig
    params: Params
    mlm_head: Params | None
    task_head: TaskHead | None
    tokenizer_folder: Path
    unused: tuple[str, ...]


def load_encoder(
    name_or_folder: str | Path,
    *,
    dtype: str = "float32",
    sharding: Callable[[Params], Any] | None = None,
    download: bool = False,
) -> LoadedEncoder:
    """Loads an encoder, and the head beside it if there is one.

        >>> import jax, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"])
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> _ = sj.export_encoder(folder / "exported", model.encoder, params["encoder"])
        >>> sj.load_encoder(folder / "exported").config == model.encoder
        True

    Args:
        name_or_folder: a folder in transformers' layout, or the name of a hub repository.
        dtype: what parameters become, whatever they are stored in.
        sharding: from the encoder's abstract parameters to their shardings, such as
            ``partial(shardings, mesh=mesh)``. Each device's part is read by itself, so that the host never
            holds a whole array. None gives numpy arrays. Heads are small and always numpy.
        download: whether a hub repository that is not in the cache may be fetched.

    Raises:
        EncoderError: the folder can't be used; names the file, the tensor or the setting.
    """
    folder = find_folder(name_or_folder, download=download)
    described = read_json(config_path(folder))
    config = EncoderConfig.from_transformers(described, where=str(folder / "config.json"))
    weights = open_weights(folder)
    prefix = ENCODER_PREFIX if any(key.startswith(ENCODER_PREFIX) for key in weights.shapes) else ""

    abstract = abstract_encoder(config)
    if any(key.startswith(f"{prefix}pooler.") for key in weights.shapes):
        abstract["pooler"] = jax.eval_shape(lambda: init_pooler(config, jax.random.key(0)))
    tensors = encoder_tensors(config, abstract, prefix)
    heads = {head.kind: head for head in _find_heads(weights, described, config)}
    head_lists = {
        kind: head_tensors(kind, jax.eval_shape(lambda head=head: init_head(head, config, jax.random.key(0))))
        for kind, head in heads.items()
    }
    unused = account(
        folder,
        weights,
        [*tensors, *(t for found in head_lists.values() for t in found)],
        lambda key: key.removeprefix(prefix) in EXPECTED_UNUSED,
    )
    if DECODER_TABLE in weights.shapes:
        _check_tie(folder, weights, f"{prefix}embeddings.word_embeddings.weight")

    shardings = dict(_flatten(sharding(abstract))) if sharding else {}
    params = nest({t.path: load_tensor(weights, t, dtype, shardings.get(t.path)) for t in tensors})
    head_params = {
        kind: nest({t.path: load_tensor(weights, t, dtype, None) for t in found})
        for kind, found in head_lists.items()
    }
    mlm_head = head_params.pop("mlm", None)
    task_head = None
    for kind, values in head_params.items():
        task_head = TaskHead(heads[kind], values, _labels(described, heads[kind].num_labels))
    return LoadedEncoder(config, params, mlm_head, task_head, folder, unused)


def find_folder(name_or_folder: str | Path, *, download: bool = False) -> Path:
    """Returns the folder itself, or the cached snapshot of a hub repository.

    Args:
        name_or_folder: see ``load_encoder``.
        download: whether what is not in the cache may be fetched.
    """
    folder = fetch_folder(name_or_folder) if is_remote(name_or_folder) else Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    name = str(name_or_folder)
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        raise EncoderError(
            "There is no such folder.",
            where=name,
            fix="give a folder with config.json and model.safetensors, or the name of a hub repository",
        )
    return _find_snapshot(name, download)


def _find_snapshot(name: str, download: bool) -> Path:
    from huggingface_hub import list_repo_files, snapshot_download

    try:
        cached = Path(snapshot_download(name, local_files_only=True))
    except Exception as error:  # the hub client's errors follow its HTTP library, which has changed before
        if not download:
            raise EncoderError(
                f"{name!r} is neither a folder here nor a repository in the cache.",
                where=name,
                fix="check the path; `stilts prepare` fetches hub repositories, training never does",
            ) from error
    else:
        # What is there whole is not looked up again: a repository may change, a run should not.
        if not download or ((cached / "config.json").is_file() and holds_weights(cached)):
            return cached
    wanted = ["*.json", "*.safetensors", "sentencepiece.bpe.model"]
    try:
        if not any(file.endswith(".safetensors") for file in list_repo_files(name)):
            wanted.append("pytorch_model*.bin")
            import_torch(name)  # before gigabytes are fetched that could not be read
        return Path(snapshot_download(name, allow_patterns=wanted))
    except EncoderError:
        raise
    except Exception as error:
        raise EncoderError(
            f"The hub repository {name!r} can't be fetched: {error}",
            where=name,
            fix="check the name and the network, or give a local folder",
        ) from error


def config_path(folder: Path) -> Path:
    """Returns the ``config.json`` of a folder; raises where there is none."""
    path = folder / "config.json"
    if not path.is_file():
        raise EncoderError(
            "The folder has no config.json.",
            where=str(folder),
            fix="give a folder in transformers' layout, as `stilts export` or save_pretrained write it",
        )
    return path


def _find_heads(weights: Weights, described: dict[str, Any], config: EncoderConfig) -> list[HeadConfig]:
    """Says which heads stand beside the encoder, by the names of their tensors."""
    shapes = weights.shapes
    heads = [HeadConfig(kind="mlm")] if any(key.startswith("lm_head.") for key in shapes) else []
    if any(key.startswith("qa_outputs.") for key in shapes):
        heads.append(HeadConfig(kind="span"))
    if any(key.startswith(("classifier.dense.", "classifier.out_proj.")) for key in shapes):
        heads.append(HeadConfig(kind="classify", num_labels=_rows(shapes, "classifier.out_proj.weight")))
    elif any(key.startswith("classifier.") for key in shapes):
        # Two classes call one layer by one name.
        if "ForMultipleChoice" in str(described.get("architectures")):
            heads.append(HeadConfig(kind="choice"))
        else:
            heads.append(HeadConfig(kind="tag", num_labels=_rows(shapes, "classifier.weight")))
    return heads


def _rows(shapes: Any, key: str) -> int:
    return max((1, *shapes.get(key, ())[:1]))  # a missing tensor is reported with all others


def _labels(described: dict[str, Any], count: int) -> tuple[str, ...]:
    named = described.get("id2label")
    if not isinstance(named, dict):
        return ()
    labels = tuple(str(named[str(number)]) for number in range(count) if str(number) in named)
    return labels if len(labels) == count else ()


def account(
    folder: Path, weights: Weights, tensors: Sequence[Tensor], is_useless: Callable[[str], bool]
) -> tuple[str, ...]:
    """Raises unless the files hold just what is needed, in the right shapes; returns what is of no use."""
    expected = {key: tensor for tensor in tensors for key in tensor.keys}
    missing = [key for key in expected if key not in weights.shapes]
    if missing:
        raise EncoderError(
            f"{len(missing)} tensors are missing: {_some(missing)}.",
            where=str(folder),
            fix="the folder does not hold the whole model that its config.json describes",
        )
    unused = tuple(key for key in weights.shapes if key not in expected)
    unknown = [key for key in unused if not is_useless(key)]
    if unknown:
        raise EncoderError(
            f"{len(unknown)} tensors have no place in this model: {_some(unknown)}.",
            where=str(folder),
            fix="the weights belong to another architecture, or to more layers than config.json says",
        )
    for key, tensor in expected.items():
        if weights.shapes[key] != tensor.their_shape:
            raise EncoderError(
                f"The tensor has shape {weights.shapes[key]}, config.json asks for {tensor.their_shape}.",
                where=f"{folder}: {key}",
                fix="weights and config.json do not belong together",
            )
    check_numbers(weights, expected)
    return unused


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")


def _check_tie(folder: Path, weights: Weights, table: str) -> None:
    same = weights.shapes[DECODER_TABLE] == weights.shapes[table]
    for start in range(0, weights.shapes[table][0] if same else 0, _ROWS_AT_A_TIME):
        index = (
            slice(start, min(start + _ROWS_AT_A_TIME, weights.shapes[table][0])),
            slice(0, weights.shapes[table][1]),
        )
        same = same and np.array_equal(weights.read(DECODER_TABLE, index), weights.read(table, index))
    if not same:
        raise EncoderError(
            "The masked-language-model head has a word table of its own; here it shares the encoder's.",
            where=f"{folder}: {DECODER_TABLE}",
            fix="take a checkpoint with tied embeddings, as XLM-R's are",
        )


def _flatten(tree: Any) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def load_tensor(weights: Weights, tensor: Tensor, dtype: str, sharding: Any) -> Any:
    """Returns one array of ours: on its devices, or as a numpy array where ``sharding`` is None."""
    whole = tuple(slice(0, size) for size in tensor.shape)
    if sharding is None:
        return _read_part(weights, tensor, whole, dtype)
    # make_array_from_callback would hold the parts of all devices at once; here the host holds one.
    holders: dict[tuple[tuple[int, int], ...], list[Any]] = {}
    for device, index in sharding.addressable_devices_indices_map(tensor.shape).items():
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, tensor.shape))
        holders.setdefault(bounds, []).append(device)
    parts = []
    for bounds, devices in holders.items():
        part = _read_part(weights, tensor, tuple(slice(*pair) for pair in bounds), dtype)
        parts += [jax.block_until_ready(jax.device_put(part, device)) for device in devices]
        del part
    return jax.make_array_from_single_device_arrays(tensor.shape, sharding, parts)


def _read_part(weights: Weights, tensor: Tensor, index: tuple[slice, ...], dtype: str) -> np.ndarray:
    """Fills a part of one of our arrays, layer by layer."""
    part = np.empty([piece.stop - piece.start for piece in index], jax.numpy.dtype(dtype))
    inner = index[1:] if tensor.stacked else index
    theirs = inner[::-1] if tensor.transposed else inner
    targets = part if tensor.stacked else part[None]
    first = index[0].start if tensor.stacked else 0
    for number, target in enumerate(targets):
        key = tensor.keys[first + number]
        found = weights.read(key, theirs)
        if not np.isfinite(found).all():  # one pass more over what was just read
            raise EncoderError(
                "The tensor holds numbers that are not finite (NaN or infinity).",
                where=weights.where(key),
                fix="fetch the weights again: they are damaged, or saved from a training that failed",
            )
        target[...] = found.T if tensor.transposed else found
    return part
