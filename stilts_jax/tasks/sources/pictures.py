"""Where pictures lie: a folder of PNG and JPEG files, a zip of that name, or what a vision encoder wrote of them.

An example names its picture by a path below the data root, such as ``coco/train2014/COCO_train2014_000000000009.jpg``.
The file is looked for in the folder, and where there is none in ``coco/train2014.zip``. Features of the encoder ``vit``
lie in ``coco/train2014.vit``: ``features.npy``, an array [pictures, patches, width], and ``features.json`` with the
names of the pictures in that order under ``names``. `stilts features` writes both; so may any other program.
"""

import functools
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilts_jax.errors import DataError
from stilts_jax.tasks.sources.rows import BadRow, read_object
from stilts_jax.tasks.spec import Task

MAX_BYTES = 2**28  # of one file; a zip may hold far more than it seems
ARRAY, NAMES = "features.npy", "features.json"
_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of one folder."""

    path: Path  # the folder, the zip, or the folder of features
    names: Mapping[str, int]  # of each picture its size in bytes, or its place in the array of features
    entries: Mapping[str, str]  # names in the zip

    def read(self, name: str) -> bytes:
        """Returns the bytes of a picture's file."""
        reason = f"it has {self.names[name]} bytes, and {MAX_BYTES} are allowed"
        try:
            if self.names[name] <= MAX_BYTES:
                if not self.entries:
                    return (self.path / name).read_bytes()
                return _open_zip(self.path, self.path.stat().st_mtime_ns).read(self.entries[name])
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            reason = f"it can't be read: {error}"
        where, fix = str(self.path / name), "fetch or copy it again"
        raise DataError(f"The picture can't be used: {reason}.", where=where, fix=fix)

    def describe(self, name: str) -> str:
        """Returns what tells one state of a picture from another: its name and size, or its place in the features."""
        file = self.path / name
        return f"{name}:{file.stat().st_size if not self.entries and file.is_file() else self.names[name]}"


def open_pictures(root: Path, folder: str, encoder: str = "") -> PictureFolder:
    """Opens the pictures of a folder below the data root, or the features that ``encoder`` made of them.

    Raises:
        DataError: there are none.
    """
    path = root / (f"{folder}.{encoder}" if encoder else folder)
    zipped = path.with_name(f"{path.name}.zip")
    if not encoder and not path.is_dir() and zipped.is_file():
        path = zipped
    try:
        return _open(path, bool(encoder), path.stat().st_mtime_ns)
    except (OSError, zipfile.BadZipFile) as error:
        wanted, fix = "pictures in this folder or its .zip", "copy the pictures of the release there"
        if encoder:
            wanted, fix = f"features of pictures ({ARRAY}, {NAMES})", "write them with `stilts features`"
        what = f"There are no {wanted}: {getattr(error, 'strerror', None) or error}."
        raise DataError(what, where=str(path), fix=fix) from error


@functools.lru_cache(maxsize=16)
def _open(path: Path, is_features: bool, modified: int) -> PictureFolder:
    if is_features:
        names = read_object(path / NAMES).get("names")
        if not isinstance(names, list) or len(set(map(str, names))) < len(names):
            what = "names is no list of different names."
            raise DataError(what, where=str(path / NAMES), fix="write it anew")
        return PictureFolder(path, {str(name): place for place, name in enumerate(names)}, {})
    if path.is_dir():
        files = [one for one in path.iterdir() if one.suffix.lower() in _SUFFIXES]
        return PictureFolder(path, {one.name: one.stat().st_size for one in sorted(files)}, {})
    found = {
        one.filename.removeprefix(f"{path.stem}/"): one
        for one in _open_zip(path, modified).infolist()
        if one.filename.lower().endswith(_SUFFIXES)
    }
    sizes = {name: one.file_size for name, one in sorted(found.items())}
    return PictureFolder(path, sizes, {name: one.filename for name, one in found.items()})


@functools.lru_cache(maxsize=4)  # listing what is in a zip of COCO takes a second
def _open_zip(path: Path, modified: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def split_name(picture: str) -> tuple[str, str]:
    """Returns the folder of a picture, and its name there."""
    folder, _, name = picture.rpartition("/")
    return folder, name


def check_picture(root: Path, picture: str, encoder: str = "") -> None:
    """Raises ``BadRow`` unless there is such a picture."""
    folder, name = split_name(picture)
    if ".." in picture.split("/") or picture.startswith("/") or not folder:
        raise BadRow(f"{picture[:80]!r} is no path of a picture below the data root")
    found = open_pictures(root, folder, encoder)
    if name not in found.names:
        raise BadRow(f"there is no picture {name[:80]!r} in {found.path}")


def hash_pictures(root: Path, pictures: list[str], encoder: str = "") -> str:
    """Returns a hash of names and sizes of pictures; of features, of the whole file of each folder."""
    places = [split_name(one) for one in pictures]
    folders = {folder: open_pictures(root, folder, encoder) for folder in sorted({one for one, _ in places})}
    state = [folders[folder].describe(name) for folder, name in places]
    for one in folders.values() if encoder else ():
        with (one.path / ARRAY).open("rb") as file:
            state.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]


def hash_shown(name: str, task: Task, read: Callable[[], Sequence[Any]], root: Path, encoder: str) -> str:
    """Returns a hash of the pictures of a split, which is kept while a process runs: ``read`` reads its rows for it.

    ``name`` is a hash of what these are read from.
    """
    if task.pictures == "blind":
        return "blind"
    key = (name, str(root), encoder)
    if key not in _HASHES:
        named = sorted({picture for row in read() for picture in row.pictures})
        _HASHES[key] = hash_pictures(root, named, encoder)
    return _HASHES[key]


_HASHES: dict[tuple[str, str, str], str] = {}
