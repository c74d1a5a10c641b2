"""Pictures as arrays: each is scaled to a square and cut into patches, row by row; or features stand in their place."""

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stilts_jax.errors import DataError
from stilts_jax.features.records import Features, Ragged
from stilts_jax.files import replacing
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources.converters import share_of
from stilts_jax.tasks.sources.pictures import (
    ARRAY,
    PictureFolder,
    hash_pictures,
    open_pictures,
    split_name,
)
from stilts_jax.tasks.spec import Pictures

MAX_PIXELS = 2**26
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, Image.DecompressionBombError)


def read_picture(folder: PictureFolder, name: str) -> Image.Image:
    """Returns one picture of a folder in RGB, on white where it is transparent.

    Raises:
        DataError: it is no PNG or JPEG of 8 bits, animated, cut off or far too large.
    """
    content, where = folder.read(name), str(folder.path / name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, which is checked here before anything is decoded
            picture: Any = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        width, height = picture.size
        refused = {
            f"it has {width} x {height} pixels, and {MAX_PIXELS:,} are allowed": width * height > MAX_PIXELS,
            "it is animated": getattr(picture, "n_frames", 1) > 1,
            f"its colours are {picture.mode}, not RGB with 8 bits a colour": picture.mode not in _MODES,
        }
        for reason in (reason for reason, holds in refused.items() if holds):
            raise DataError(
                f"The picture can't be used: {reason}.", where=where, fix="convert or leave it out"
            )
        if "A" in picture.getbands() or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("RGB")
    except _DAMAGE as error:
        raise DataError(
            f"The picture can't be used: it is no PNG or JPEG, or damaged: {error}.",
            where=where,
            fix="fetch or copy it again",
        ) from error


@dataclass(frozen=True)
class Sight:
    """What is seen of the pictures below a data root: features of ``encoder``, or (where that is empty) themselves.

    They are scaled to ``size`` pixels a side, and cut into patches of ``patch`` pixels a side.
    """

    root: Path
    cache: Path
    encoder: str = ""
    size: int = 112
    patch: int = 16
    progress: Progress = SILENT

    @property
    def settings(self) -> list[str | int]:
        """What decides about the numbers that are seen."""
        return [self.encoder] if self.encoder else [self.size, self.patch]


def add_pictures(
    features: Features, examples: Mapping[str, Sequence[Any]], shown: Pictures, sight: Sight
) -> Features:
    """Returns features whose rows point to what a model is ``shown`` of the pictures of their examples.

    Where a picture can't be used, a DataError names it, and nothing is written.
    """
    rows = list(chain.from_iterable(examples.values()))
    named = [example.pictures for example in rows]
    if shown == "shuffled":  # the same in every process; few keep their own
        order = sorted(range(len(rows)), key=lambda index: share_of(f"{rows[index].id} {rows[index].text}"))
        named = [named[index] for index in order]
    names = sorted({picture for pictures in named for picture in pictures})
    if not names:
        return features
    if shown == "blind":
        path, places = _blank(names, sight), dict.fromkeys(names, 0)
    else:
        path, places = build_table(names, sight), {name: place for place, name in enumerate(names)}
    column = [[places[picture] for picture in named[example]] for example in features.columns["example"]]  # type: ignore[union-attr]
    columns = {**features.columns, "pictures": Ragged.from_list(column)}
    return replace(features, columns=columns, pictures=str(path))


def build_table(pictures: Sequence[str], sight: Sight) -> Path:
    """Returns the file of what is seen of each picture: an array [pictures, patches, width]."""
    shape = "" if sight.encoder else f"-{sight.size}-{sight.patch}"
    state = hash_pictures(sight.root, list(pictures), sight.encoder)
    path = sight.cache / f"pictures-{state}{shape}.npy"
    with contextlib.suppress(OSError, ValueError):  # not there, or cut off
        np.load(path, mmap_mode="r", allow_pickle=False)
        return path
    track = sight.progress.track("reading pictures", len(pictures), unit="pictures")
    with track as bar, replacing(path) as file:
        table: Any = None
        for place, name in enumerate(pictures):
            array = _see(name, sight)
            if table is None:
                shape_of_all = (len(pictures), *array.shape)
                table = np.lib.format.open_memmap(file, "w+", dtype=array.dtype, shape=shape_of_all)
            if array.shape != table.shape[1:]:
                raise DataError(
                    f"The features of this picture have the shape {array.shape}, others {table.shape[1:]}.",
                    where=name,
                    fix="write the features of all folders with one encoder",
                )
            table[place] = array
            bar.advance(1)
        if table is not None:
            table.flush()
    return path


def _see(picture: str, sight: Sight) -> np.ndarray:
    """Returns the patches of a picture, row by row, or its features: [patches, width]."""
    folder, name = split_name(picture)
    found = open_pictures(sight.root, folder, sight.encoder)
    if not sight.encoder:
        square = (sight.size, sight.size)
        pixels = np.asarray(read_picture(found, name).resize(square, Image.Resampling.BICUBIC))
        side = sight.size // sight.patch
        grid = pixels.reshape(side, sight.patch, side, sight.patch, 3).swapaxes(1, 2)
        return grid.reshape(side * side, sight.patch**2 * 3)
    path = found.path / ARRAY
    array = _open_features(path, len(found.names), path.stat().st_mtime_ns if path.is_file() else 0)
    features = np.asarray(array[found.names[name]], np.float16)
    if not np.isfinite(features).all():
        what = f"The features of {name!r} are not finite in float16."
        raise DataError(what, where=str(path), fix="write them anew")
    return features


def _blank(pictures: Sequence[str], sight: Sight) -> Path:
    """Returns the file of one blank picture, of the shape that the others have."""
    shape = ((sight.size // sight.patch) ** 2, sight.patch**2 * 3)
    if sight.encoder:
        shape = _see(pictures[0], sight).shape
    path = sight.cache / f"blank-{'x'.join(map(str, shape))}-{sight.encoder or 'patches'}.npy"
    with replacing(path) as file, file.open("wb") as open_file:
        np.save(open_file, np.zeros((1, *shape), np.float16 if sight.encoder else np.uint8))
    return path


@lru_cache(maxsize=4)
def _open_features(path: Path, count: int, modified: int) -> np.ndarray:
    """Returns the array of a folder of features, mapped."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"The features can't be read: {error}", where=str(path), fix="write them anew"
        ) from error
    if array.ndim != 3 or len(array) != count or array.dtype.kind != "f":
        raise DataError(
            f"The features are {array.dtype} of the shape {array.shape} for {count} pictures.",
            where=str(path),
            fix="they are floating-point numbers [pictures, patches, width], as many as names",
        )
    return array
