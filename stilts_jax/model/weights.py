"""Folders of transformers: where they are, and their weights by name, from safetensors or torch's own files."""

import json
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from stilts_jax.errors import EncoderError
from stilts_jax.files import fetch_folder, is_remote, local_path
from stilts_jax.tokenization import tokenizer_files

_NAMES = ("model.safetensors", "pytorch_model.bin")  # in this order, as torch's files need torch
_FETCH_AGAIN = "fetch the file again: it is cut off or damaged"
_TO_SAFETENSORS = "take a folder with model.safetensors, or convert this one with a program that you trust"


def find_folder(name_or_folder: str | Path, *, download: bool = False) -> Path:
    """Returns the folder itself, or the cached snapshot of a hub repository, which ``download`` may fetch."""
    name = str(name_or_folder)
    folder = fetch_folder(name) if is_remote(name) else local_path(name)
    if folder.is_dir():
        return folder
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        fix = "give a folder with config.json and model.safetensors, or the name of a hub repository"
        raise EncoderError("There is no such folder.", where=name, fix=fix)
    from huggingface_hub import list_repo_files, snapshot_download

    try:
        cached = Path(snapshot_download(name, local_files_only=True))
        # What is there whole is not looked up again: a repository may change, a run should not.
        whole = (cached / "config.json").is_file()
        if not download or (whole and tokenizer_files(cached) and find_weights(cached)[0]):
            return cached
    except Exception as error:  # the hub client's errors follow its HTTP library, which has changed before
        if not download:
            what = f"{name!r} is neither a folder here nor a repository in the cache."
            fix = "check the path; `stilts prepare` fetches hub repositories, training never does"
            raise EncoderError(what, where=name, fix=fix) from error
    wanted = ["*.json", "*.safetensors", "sentencepiece.bpe.model"]
    try:
        if not any(file.endswith(".safetensors") for file in list_repo_files(name)):
            wanted.append("pytorch_model*.bin")
            _import_torch(name)  # before gigabytes are fetched that could not be read
        return Path(snapshot_download(name, allow_patterns=wanted))
    except EncoderError:
        raise
    except Exception as error:
        what = f"The hub repository {name!r} can't be fetched: {error}"
        fix = "check the name and the network, or give a local folder"
        raise EncoderError(what, where=name, fix=fix) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises where the file is damaged, or there is no ``config.json``."""
    if path.name == "config.json" and not path.is_file():
        fix = "give a folder in transformers' layout, as `stilts export` or save_pretrained write it"
        if (path.parent / "adapter_config.json").is_file():
            fix = "merge the adapter into its model first (peft's merge_and_unload), and save that"
        raise EncoderError("The folder has no config.json.", where=str(path.parent), fix=fix)
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = f"The file can't be read as JSON: {error}"
        raise EncoderError(what, where=str(path), fix=_FETCH_AGAIN) from error
    if not isinstance(found, dict):
        raise EncoderError("The file holds no JSON object.", where=str(path), fix=_FETCH_AGAIN)
    return found


def find_weights(folder: Path) -> tuple[list[Path], set[str]]:
    """Returns the weight files of a folder; if there are several, as its index names them, with the listed tensors."""
    for name in _NAMES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name], set()
        if not index.is_file():
            continue
        listed = read_json(index).get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise EncoderError("The index has no weight_map.", where=str(index), fix=_FETCH_AGAIN)
        names = sorted(set(map(str, listed.values())))
        for file in names:  # each is a file beside the index, not a way out of the folder
            if Path(file).name != file or not (folder / file).is_file():
                what = f"The index names {file!r}, which is not in the folder."
                raise EncoderError(what, where=str(index), fix=_FETCH_AGAIN)
        return [folder / file for file in names], set(listed)
    return [], set()


class Stored(NamedTuple):
    """A tensor in a file; ``read`` returns the part of it that slices of all its axes name."""

    where: str  # file and name
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[tuple[slice, ...]], np.ndarray]


def open_weights(folder: Path) -> dict[str, Stored]:
    """Returns the tensors of a folder by name."""
    found = dict[str, Stored]()
    files, listed = find_weights(folder)
    for path in files:
        found |= _open_torch(path) if path.suffix == ".bin" else _open_safetensors(path)
    repeated = {"lm_head.decoder.weight", "lm_head.decoder.bias"}  # safetensors leaves out what is tied
    if absent := sorted(listed - found.keys() - repeated):
        what = f"The index lists tensors that its files lack: {', '.join(absent[:5])}."
        raise EncoderError(what, where=str(folder), fix=_FETCH_AGAIN)
    if not found:
        fix = f"it should have {' or '.join(_NAMES)}, or the index of several such files; "
        fix += "`stilts prepare --encoder=NAME --data_root=D` fetches those of a hub repository"
        raise EncoderError("The folder holds no weights.", where=str(folder), fix=fix)
    return found


def _open_safetensors(path: Path) -> dict[str, Stored]:
    def read(key: str, index: tuple[slice, ...]) -> np.ndarray:
        # Opened for each read: pages of a file that stays mapped count as this process's memory.
        with safe_open(path, framework="numpy") as file:
            return file.get_slice(key)[index]

    try:
        # Opening checks the header against the length of the file.
        with safe_open(path, framework="numpy") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  (the file is no dict)
            forms = {key: (tuple(part.get_shape()), part.get_dtype()) for key, part in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return {key: Stored(f"{path}: {key}", *form, partial(read, key)) for key, form in forms.items()}


def _open_torch(path: Path) -> dict[str, Stored]:
    """Maps a file of ``torch.save`` into memory; only tensors are unpickled."""
    torch = _import_torch(str(path))
    mapped = zipfile.is_zipfile(path)  # files from before torch 1.6 are none, and can't be
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # whatever the bytes of a damaged file lead torch to
        if any(word in str(error) for word in ("Unsupported global", "Unsupported class")):
            what = "The file holds Python objects besides tensors: reading them could run a stranger's code."
            raise EncoderError(what, where=str(path), fix=_TO_SAFETENSORS) from error
        raise _unreadable(path, error) from error
    if not isinstance(found, dict) or not all(isinstance(one, torch.Tensor) for one in found.values()):
        what = "The file holds something else than named tensors."
        raise EncoderError(what, where=str(path), fix=_TO_SAFETENSORS)

    def read(tensor: Any, index: tuple[slice, ...]) -> np.ndarray:
        part = tensor.detach()[index]  # a parameter has a gradient, which numpy has not
        # Nor has it a bfloat16 that torch knows; float32 holds every one exactly.
        return (part.float() if part.dtype == torch.bfloat16 else part).numpy()

    forms = {key: (tuple(one.shape), str(one.dtype).removeprefix("torch.")) for key, one in found.items()}
    return {key: Stored(f"{path}: {key}", *forms[key], partial(read, one)) for key, one in found.items()}


def _import_torch(where: str) -> Any:
    try:
        import torch
    except ImportError as error:
        what = "These weights are in PyTorch's own format, and torch is not installed."
        fix = "pip install 'stilts-jax[parity]' (it installs torch), or take a model with safetensors files"
        raise EncoderError(what, where=where, fix=fix) from error
    return torch


def _unreadable(path: Path, error: Exception) -> EncoderError:
    reason = (str(error).splitlines() or ["it is empty"])[0]
    with path.open("rb") as file:
        is_pointer = file.read(23) == b"version https://git-lfs"
    fix = "it is only a pointer of Git LFS: run `git lfs pull` there" if is_pointer else _FETCH_AGAIN
    return EncoderError(f"The weights can't be read: {reason}", where=str(path), fix=fix)
