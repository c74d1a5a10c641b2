"""Where pictures lie: a folder of PNG and JPEG files, a zip of that name, or what a vision encoder wrote of them.

An example names its picture by a path below the data root, such as ``coco/train2014/COCO_train2014_000000000009.jpg``,
which may be in ``coco/train2014.zip``. Features of the encoder ``vit`` lie in ``coco/train2014.vit``: ``features.npy``,
an array [pictures, patches, width], and ``features.json`` with the names of the pictures in that order under ``names``.
"""

import functools
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.errors import DataError
from stilts_jax.files import digest_file
from stilts_jax.tasks.sources.rows import BadRow, Row

MAX_BYTES = 2**28  # of one file; a zip may hold far more than it seems
ARRAY, NAMES = "features.npy", "features.json"
# No name of another folder, and none that is hidden: macOS puts such files beside pictures and into zips.
_PICTURE = re.compile(r"[^./][^/]*\.(png|jpe?g)", re.IGNORECASE)


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of one folder."""

    path: Path  # the folder, the zip, or the folder of features
    names: Mapping[str, Any]  # of each picture its file, its entry of the zip, or its place in the features
    archive: zipfile.ZipFile | None = None
    features: np.ndarray | None = None  # [pictures, patches, width]

    def state(self, name: str) -> int:
        """Returns a picture's size in bytes, or its place in the features."""
        found = self.names[name]
        return found.stat().st_size if isinstance(found, Path) else getattr(found, "file_size", found)

    def read(self, name: str) -> bytes:
        """Returns the bytes of a picture's file; raises whatever the disk and the zip raise."""
        size, found = self.state(name), self.names[name]
        if size > MAX_BYTES:
            raise self.refuse(name, f"it has {size} bytes, and {MAX_BYTES} are allowed")
        return self.archive.read(found) if self.archive else found.read_bytes()

    def refuse(self, name: str, reason: str, fix: str = "fetch or copy it again") -> DataError:
        """Returns the error that names a picture which can't be used."""
        return DataError(f"The picture can't be used: {reason}.", where=str(self.path / name), fix=fix)


def open_pictures(root: Path, folder: str, encoder: str = "") -> PictureFolder:
    """Opens the pictures of a folder below the data root, or what ``encoder`` made of them; a DataError if none are."""
    path = root / (f"{folder}.{encoder}" if encoder else folder)
    zipped = path.parent / f"{path.name}.zip"
    if not encoder and not path.is_dir() and zipped.is_file():
        path = zipped
    try:
        # Files that are written anew in a folder leave its time as it was.
        files = (path / NAMES, path / ARRAY) if encoder else (path,)
        return _open(path, bool(encoder), tuple(one.stat().st_mtime_ns for one in files))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        wanted, fix = "pictures in this folder or its .zip", "copy the pictures of the release there"
        if encoder:
            wanted, fix = f"features that can be used ({ARRAY}, {NAMES})", "write them with `stilts features`"
        what = f"There are no {wanted}: {getattr(error, 'strerror', None) or error}."
        raise DataError(what, where=str(path), fix=fix) from error


@functools.lru_cache(maxsize=256)  # to list a zip of COCO takes a second; NLVR2's rows lie in 100 folders
def _open(path: Path, is_features: bool, modified: tuple[int, ...]) -> PictureFolder:
    if is_features:
        names, array = Row.document(path / NAMES).get("names"), np.load(path / ARRAY, mmap_mode="r")
        names = names if isinstance(names, list) else []
        places = {str(name): place for place, name in enumerate(names)}
        if array.ndim != 3 or array.dtype.kind != "f" or not len(array) == len(places) == len(names):
            what = f"{len(places)} different names and {array.dtype} of the shape {array.shape}"
            raise ValueError(f"{what}, not floating-point numbers [pictures, patches, width]")
        return PictureFolder(path, places, features=array)
    archive = None if path.is_dir() else zipfile.ZipFile(path)
    entries: Any = archive.infolist() if archive else path.iterdir()
    below, names = f"{path.stem}/", dict[str, Any]()
    for one in entries:
        name = one.filename.removeprefix("./").removeprefix(below) if archive else one.name
        if _PICTURE.fullmatch(name) and names.setdefault(name, one) is not one:
            raise DataError(f"{name} is there twice.", where=str(path), fix="leave one of the two out")
    return PictureFolder(path, dict(sorted(names.items())), archive)


def check_picture(root: Path, picture: str, encoder: str = "") -> None:
    """Raises ``BadRow`` unless there is such a picture."""
    folder, _, name = picture.rpartition("/")
    if ".." in picture.split("/") or picture.startswith("/") or not folder:
        raise BadRow(f"{picture[:80]!r} is no path of a picture below the data root")
    found = open_pictures(root, folder, encoder)
    if name not in found.names:
        raise BadRow(f"there is no picture {name[:80]!r} in {found.path}")


def hash_pictures(root: Path, pictures: Sequence[str], encoder: str = "") -> str:
    """Returns a hash of names and sizes of pictures; of features, of the whole file of each folder."""
    places = [one.rpartition("/")[::2] for one in pictures]
    folders = {folder: open_pictures(root, folder, encoder) for folder in sorted({one for one, _ in places})}
    state = [f"{name}:{folders[folder].state(name)}" for folder, name in places]
    state += [digest_file(one.path / ARRAY) for one in folders.values() if encoder]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
