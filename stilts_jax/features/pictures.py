"""Pictures as arrays: each is scaled to a square and cut into patches, row by row; or features stand in their place."""

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stilts_jax.errors import DataError
from stilts_jax.features.records import Features, Ragged, create_table
from stilts_jax.files import replacing
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources.converters import share_of
from stilts_jax.tasks.sources.pictures import NAMES, PictureFolder, hash_pictures, open_pictures
from stilts_jax.tasks.spec import Pictures

MAX_PIXELS = 2**26
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


def read_picture(folder: PictureFolder, name: str) -> Image.Image:
    """Returns one picture in RGB, on white where it is transparent; a DataError says why it can't be used."""
    try:
        with warnings.catch_warnings(action="ignore"):
            # Of size, which is checked here before anything is decoded.
            picture: Image.Image = Image.open(io.BytesIO(folder.read(name)), formats=("PNG", "JPEG"))
        (width, height), mode, refused = picture.size, picture.mode, ""
        if width * height > MAX_PIXELS:
            refused = f"it has {width} x {height} pixels, and {MAX_PIXELS:,} are allowed"
        if mode not in _MODES:
            refused = f"its colours are {mode}, not RGB with 8 bits a colour"
        # Behind the picture of a camera there may be another, of another size or angle.
        if picture.format == "PNG" and getattr(picture, "n_frames", 1) > 1:
            refused = "it is animated"
        if refused:
            raise folder.refuse(name, refused, "convert or leave it out")
        picture = ImageOps.exif_transpose(picture)  # a camera that was held upright says so
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("RGB")
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        refused = f"it has far more pixels than the {MAX_PIXELS:,} that are allowed"
        raise folder.refuse(name, refused, "make it smaller or leave it out") from error
    except UnidentifiedImageError as error:
        raise folder.refuse(name, "it does not begin as a PNG or JPEG does") from error
    except Exception as error:  # whatever the bytes of a damaged file lead to
        raise folder.refuse(name, f"it can't be read, or is damaged: {error}") from error


@dataclass(frozen=True)
class Sight:
    """What is seen of the pictures below a data root: features of ``encoder``, or (where that is empty) themselves."""

    root: Path
    cache: Path
    encoder: str = ""
    size: int = 112  # pixels of a side, to which they are scaled
    patch: int = 16  # pixels of a side of the patches that they are cut into
    progress: Progress = SILENT

    @property
    def settings(self) -> list[str | int]:
        """What decides about the numbers that are seen."""
        return [self.encoder] if self.encoder else [self.size, self.patch]

    def see(self, picture: str) -> np.ndarray:
        """Returns the patches of a picture, row by row, or its features: [patches, width]."""
        folder, _, name = picture.rpartition("/")
        found = open_pictures(self.root, folder, self.encoder)
        if found.features is not None:
            if name not in found.names:  # a blank's shape is asked for without a look at who has features
                raise found.refuse(name, f"{NAMES} does not name it", "write the features anew")
            features = np.asarray(found.features[found.names[name]], np.float16)
            if not np.isfinite(features).all():
                raise found.refuse(name, "its features are not finite in float16", "write them anew")
            return features
        side, square = self.size // self.patch, (self.size, self.size)
        pixels = np.asarray(read_picture(found, name).resize(square, Image.Resampling.BICUBIC))
        grid = pixels.reshape(side, self.patch, side, self.patch, 3).swapaxes(1, 2)
        return grid.reshape(side * side, self.patch**2 * 3)


def add_pictures(
    features: Features, examples: Mapping[str, Sequence[Any]], shown: Pictures, sight: Sight
) -> Features:
    """Returns features whose rows point to what a model is ``shown`` of the pictures of their examples."""
    rows = list(chain.from_iterable(examples.values()))
    if shown == "shuffled":  # the same in every process; few keep their own
        rows.sort(key=lambda row: share_of(f"{row.id} {row.text}"))
    names = sorted({picture for row in rows for picture in row.pictures})
    if not names:
        return features
    places = {name: place for place, name in enumerate(names)}
    if shown == "blind":  # one blank, of the shape that the others have
        places = dict.fromkeys(names, 0)
        blank = np.zeros(((sight.size // sight.patch) ** 2, sight.patch**2 * 3), np.uint8)
        if sight.encoder:
            blank = np.zeros_like(sight.see(names[0]))
        path = sight.cache / f"blank-{'x'.join(map(str, blank.shape))}-{sight.encoder or 'patches'}.npy"
        write_table(path, names[:1], [blank])
    else:
        path = build_table(names, sight)
    shown_to = (rows[example].pictures for example in features.columns["example"])
    column = Ragged.from_list([[places[picture] for picture in pictures] for pictures in shown_to])
    return replace(features, columns={**features.columns, "pictures": column}, pictures=str(path))


def build_table(pictures: Sequence[str], sight: Sight) -> Path:
    """Returns the file of what is seen of each picture: an array [pictures, patches, width]."""
    shape = "" if sight.encoder else f"-{sight.size}-{sight.patch}"
    path = sight.cache / f"upright-{hash_pictures(sight.root, pictures, sight.encoder)}{shape}.npy"
    try:
        np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError):  # not there, or cut off
        write_table(path, pictures, map(sight.see, pictures), sight.progress)
    return path


def write_table(
    path: Path, pictures: Sequence[str], arrays: Iterable[np.ndarray], progress: Progress = SILENT
) -> None:
    """Writes what is seen of each picture, arrays [patches, width], into one file: all or nothing."""
    with progress.track("reading pictures", len(pictures), "pictures") as bar, replacing(path) as file:
        for place, (name, array) in enumerate(zip(pictures, arrays)):
            if not place:
                table = create_table(file, array.dtype, (len(pictures), *array.shape))
            if array.shape != table.shape[1:]:
                what = f"The features of this picture have the shape {array.shape}, others {table.shape[1:]}."
                raise DataError(what, where=name, fix="write the features of all folders with one encoder")
            table[place] = array
            bar.advance(1)
        table.flush()
