"""Pictures as arrays: each is scaled to a square and cut into patches, row by row; or features stand in their place."""

import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stilts_jax.errors import DataError
from stilts_jax.files import replacing
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources.pictures import (
    ARRAY,
    PictureFolder,
    hash_pictures,
    open_pictures,
    split_name,
)

MAX_PIXELS = 2**26
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    Image.DecompressionBombError,
)


def decode_picture(content: bytes, where: str) -> Image.Image:
    """Returns a picture in RGB, on white where it is transparent.

    Raises:
        DataError: it is no PNG or JPEG of 8 bits, animated, cut off or far too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, which is checked here before anything is decoded
            picture: Any = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise _refuse(
                f"it has {width} x {height} pixels, and {MAX_PIXELS:,} are allowed", where, "scale it down"
            )
        if getattr(picture, "n_frames", 1) > 1:
            raise _refuse("it is animated", where, "keep one frame of it")
        if picture.mode not in _MODES:
            raise _refuse(f"its colours are {picture.mode}", where, "convert it to RGB with 8 bits a colour")
        picture.load()
        if "A" in picture.getbands() or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            return Image.alpha_composite(white, picture).convert("RGB")
        return picture.convert("RGB")
    except _DAMAGE as error:
        raise _refuse(
            f"it is no PNG or JPEG, or damaged: {error}", where, "fetch or copy it again"
        ) from error


def _refuse(reason: str, where: str, fix: str) -> DataError:
    return DataError(f"The picture can't be used: {reason}.", where=where, fix=fix)


def read_picture(folder: PictureFolder, name: str) -> Image.Image:
    """Returns one picture of a folder."""
    return decode_picture(folder.read(name), str(folder.path / name))


def cut_patches(pixels: np.ndarray, patch: int) -> np.ndarray:
    """Cuts a picture into a grid: ``[S, S, 3]`` -> ``[(S / patch) ** 2, patch * patch * 3]``."""
    side = len(pixels) // patch
    grid = pixels.reshape(side, patch, side, patch, 3).swapaxes(1, 2)
    return grid.reshape(side * side, patch * patch * 3)


def build_table(
    root: Path,
    pictures: Sequence[str],
    cache: Path,
    *,
    encoder: str = "",
    size: int = 112,
    patch: int = 16,
    progress: Progress = SILENT,
) -> np.ndarray:
    """Returns what a model sees of each picture: uint8 patches or features, mapped from a file of the cache.

    Args:
        root: the data root.
        pictures: their paths below it, each once.
        cache: the folder of the cache.
        encoder: whose features are taken; empty: the pictures themselves.
        size: pixels of a side that pictures are scaled to.
        patch: pixels of a side of a patch.

    Returns:
        ``[pictures, patches, width]``

    Raises:
        DataError: names the picture that can't be used; then nothing is written.
    """
    shape = "" if encoder else f"-{size}-{patch}"
    path = cache / f"pictures-{hash_pictures(root, list(pictures), encoder)}{shape}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # not there, or cut off
        pass
    arrays = (
        _read_features(root, pictures, encoder) if encoder else _read_patches(root, pictures, size, patch)
    )
    cache.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path) as temporary,
        progress.track("reading pictures", len(pictures), unit="pictures") as bar,
    ):
        table = None
        for place, array in enumerate(arrays):
            if table is None:
                table = np.lib.format.open_memmap(
                    temporary, "w+", dtype=array.dtype, shape=(len(pictures), *array.shape)
                )
            if array.shape != table.shape[1:]:
                raise DataError(
                    f"The features of this picture have the shape {array.shape}, others {table.shape[1:]}.",
                    where=pictures[place],
                    fix="write the features of all folders with one encoder",
                )
            table[place] = array
            bar.advance(1)
        if table is not None:
            table.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_patches(root: Path, pictures: Iterable[str], size: int, patch: int) -> Iterable[np.ndarray]:
    for folder, name in map(split_name, pictures):
        picture = read_picture(open_pictures(root, folder), name)
        yield cut_patches(np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)), patch)


def _read_features(root: Path, pictures: Iterable[str], encoder: str) -> Iterable[np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for folder, name in map(split_name, pictures):
        found = open_pictures(root, folder, encoder)
        if folder not in arrays:
            arrays[folder] = open_features(found)
        features = np.asarray(arrays[folder][found.names[name]], np.float16)
        if not np.isfinite(features).all():
            raise DataError(
                f"The features of {name!r} are not finite in float16.",
                where=str(found.path / ARRAY),
                fix="write them anew",
            )
        yield features


def open_features(folder: PictureFolder) -> np.ndarray:
    """Returns the array of a folder of features, mapped."""
    path = folder.path / ARRAY
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"The features can't be read: {error}", where=str(path), fix="write them anew"
        ) from error
    if array.ndim != 3 or len(array) != len(folder.names) or array.dtype.kind != "f":
        raise DataError(
            f"The features are {array.dtype} of the shape {array.shape} for {len(folder.names)} pictures.",
            where=str(path),
            fix="they are floating-point numbers [pictures, patches, width], as many as names",
        )
    return array
