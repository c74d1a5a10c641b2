"""Weight files of transformers, read tensor by tensor: safetensors in one file or many, or torch's own."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from stilts_jax.errors import EncoderError

_SAFETENSORS = "model.safetensors"
_TORCH = "pytorch_model.bin"
_FETCH_AGAIN = "fetch the file again: it is cut off or damaged"
_TO_SAFETENSORS = "take a folder with model.safetensors, or convert this one with a program that you trust"
_FLOATS = ("F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16")


class Weights(Protocol):
    """Tensors by name, read when asked for."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    def read(self, key: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """Returns a part of a tensor (all of it for an empty index)."""

    def where(self, key: str) -> str:
        """Returns the file that holds a tensor, and its name."""


def open_weights(folder: Path) -> Weights:
    """Finds the weights in a folder; safetensors come first, as torch's files need torch."""
    for name, kind in ((_SAFETENSORS, SafetensorsFiles), (_TORCH, TorchFiles)):
        single, index = folder / name, folder / f"{name}.index.json"
        if single.is_file():
            return kind([single])
        if index.is_file():
            listed = _read_index(index)
            weights = kind([folder / file for file in sorted(set(listed.values()))])
            absent = sorted(set(listed) - set(weights.shapes))
            if absent:
                raise EncoderError(
                    f"The index lists tensors that its files lack: {', '.join(absent[:5])}.",
                    where=str(index),
                    fix=_FETCH_AGAIN,
                )
            return weights
    raise EncoderError(
        "The folder holds no weights.",
        where=str(folder),
        fix=f"it should have {_SAFETENSORS} or {_TORCH}, or the index of several such files",
    )


def check_numbers(weights: Weights, keys: Iterable[str]) -> None:
    """Raises unless these tensors hold plain floating-point numbers.

    Quantized weights mean nothing without their scales, which this model has no place for.
    """
    for key in keys:
        if weights.dtypes[key] not in _FLOATS:
            raise EncoderError(
                f"The tensor holds numbers of the type {weights.dtypes[key]}, as quantized weights do.",
                where=weights.where(key),
                fix="take the model in float32, float16 or bfloat16",
            )


def import_torch(where: str) -> Any:
    """Returns torch, which only weights in its own format need."""
    try:
        import torch
    except ImportError as error:
        raise EncoderError(
            "These weights are in PyTorch's own format, and torch is not installed.",
            where=where,
            fix="pip install 'stilts-jax[parity]' (it installs torch), or take a model with safetensors files",
        ) from error
    return torch


def holds_weights(folder: Path) -> bool:
    """Says whether there are weights in a folder, and all files that an index lists; opens none of them."""
    if any((folder / name).is_file() for name in (_SAFETENSORS, _TORCH)):
        return True
    indices = [folder / f"{name}.index.json" for name in (_SAFETENSORS, _TORCH)]
    try:
        return any(bool(index.is_file() and _read_index(index)) for index in indices)
    except EncoderError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises where the file is damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(
            f"The file can't be read as JSON: {error}", where=str(path), fix=_FETCH_AGAIN
        ) from error
    if not isinstance(found, dict):
        raise EncoderError("The file holds no JSON object.", where=str(path), fix=_FETCH_AGAIN)
    return found


def _read_index(path: Path) -> dict[str, str]:
    listed = read_json(path).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise EncoderError("The index has no weight_map.", where=str(path), fix=_FETCH_AGAIN)
    for name in sorted(set(listed.values())):
        # A name is a file beside the index, not a way out of the folder.
        if Path(name).name != name or not (path.parent / name).is_file():
            raise EncoderError(
                f"The index names {name!r}, which is not in the folder.", where=str(path), fix=_FETCH_AGAIN
            )
    return listed


class SafetensorsFiles:
    """Tensors of one or several safetensors files."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths: dict[str, Path] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: dict[str, str] = {}
        for path in paths:
            try:
                # Opening checks the header against the length of the file.
                with safe_open(path, framework="numpy") as file:
                    for key in file.keys():  # noqa: SIM118  (the file is no dict)
                        self._paths[key] = path
                        shapes[key] = tuple(file.get_slice(key).get_shape())
                        dtypes[key] = file.get_slice(key).get_dtype()
            except (SafetensorError, OSError, ValueError) as error:
                raise EncoderError(
                    f"The weights can't be read: {error}", where=str(path), fix=_advise(path)
                ) from error
        self.shapes: Mapping[str, tuple[int, ...]] = shapes
        self.dtypes: Mapping[str, str] = dtypes

    def read(self, key: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """Returns a part of a tensor (all of it for an empty index)."""
        # Opened for each read: pages of a file that stays mapped count as this process's memory.
        with safe_open(self._paths[key], framework="numpy") as file:
            return file.get_slice(key)[index or tuple(slice(0, size) for size in self.shapes[key])]

    def where(self, key: str) -> str:
        """Returns the file that holds a tensor, and its name."""
        return f"{self._paths[key]}: {key}"


class TorchFiles:
    """Tensors of one or several files of ``torch.save``, mapped into memory; only tensors are unpickled."""

    def __init__(self, paths: list[Path]) -> None:
        self._torch = import_torch(str(paths[0]))
        self._tensors: dict[str, Any] = {}
        self._paths: dict[str, Path] = {}
        for path in paths:
            found = self._load(path)
            self._tensors.update(found)
            self._paths.update(dict.fromkeys(found, path))
        self.shapes: Mapping[str, tuple[int, ...]] = {
            key: tuple(tensor.shape) for key, tensor in self._tensors.items()
        }
        self.dtypes: Mapping[str, str] = {
            key: str(tensor.dtype).removeprefix("torch.") for key, tensor in self._tensors.items()
        }

    def _load(self, path: Path) -> dict[str, Any]:
        failures: list[Exception] = []
        for mapped in (True, False):  # files from before torch 1.6 can't be mapped
            try:
                found = self._torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            except Exception as error:  # whatever the bytes of a damaged file lead torch to
                failures.append(error)
                continue
            if isinstance(found, dict) and all(
                isinstance(value, self._torch.Tensor) for value in found.values()
            ):
                return found
            raise EncoderError(
                "The file holds something else than named tensors.", where=str(path), fix=_TO_SAFETENSORS
            )
        if any(word in str(failures[-1]) for word in ("Unsupported global", "Unsupported class")):
            raise EncoderError(
                "The file holds Python objects besides tensors. Reading them could run a stranger's code, "
                "so they are never read.",
                where=str(path),
                fix=_TO_SAFETENSORS,
            ) from failures[-1]
        reason = (str(failures[-1]).splitlines() or ["it is empty"])[0]
        raise EncoderError(
            f"The weights can't be read: {reason}", where=str(path), fix=_advise(path)
        ) from failures[-1]

    def read(self, key: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """Returns a part of a tensor (all of it for an empty index)."""
        part = self._tensors[key][index]
        # numpy has no bfloat16 that torch knows; float32 holds every one exactly.
        return (part.float() if part.dtype is self._torch.bfloat16 else part).numpy()

    def where(self, key: str) -> str:
        """Returns the file that holds a tensor, and its name."""
        return f"{self._paths[key]}: {key}"


def _advise(path: Path) -> str:
    with path.open("rb") as file:
        is_pointer = file.read(23) == b"version https://git-lfs"
    return "it is only a pointer of Git LFS: run `git lfs pull` there" if is_pointer else _FETCH_AGAIN
