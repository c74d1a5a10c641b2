"""Paths here and in object stores, and files that are written whole or not at all."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError


def open_path(name: str | os.PathLike) -> Path:
    """Returns the absolute path of a name; of a URL (``gs://...``) what ``etils.epath`` makes of it.

    The latter has the methods of a ``Path``, as far as object stores can do them: no links, no appending, no
    locks, no mapping into memory. What needs these goes to ``local_folder``.
    """
    text = str(name)
    if "://" not in text:
        return Path(text).expanduser().absolute()
    import fsspec  # both take a while, and most paths are local
    from etils import epath

    try:
        fsspec.get_filesystem_class(text.partition("://")[0])
    except (ImportError, ValueError) as error:
        raise ConfigError(
            "The packages that open this URL are missing.",
            where=text,
            fix="pip install 'stilts-jax[gcs]' for gs://",
        ) from error
    remote: Any = epath.Path(text)
    return remote


def is_remote(path: str | os.PathLike) -> bool:
    """Says whether a path lies in an object store."""
    return "://" in str(path)


def local_folder(path: str | os.PathLike) -> Path:
    """Returns the path itself, or the folder of this machine's cache that stands for one in an object store."""
    if not is_remote(path):
        return Path(path)
    name = hashlib.sha256(str(path).rstrip("/").encode()).hexdigest()[:16]
    return cache_root() / "remote" / name


def cache_root() -> Path:
    """Returns where this machine keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stilts_jax"


def fetch_folder(name: str | os.PathLike) -> Path:
    """Returns a local copy of the files directly in a folder of an object store; what is there is not copied again."""
    source: Any = open_path(name)
    target = local_folder(name)
    for path in source.iterdir() if source.is_dir() else ():
        copy = target / path.name
        if path.is_dir() or (copy.is_file() and copy.stat().st_size == path.stat().length):
            continue
        target.mkdir(parents=True, exist_ok=True)
        temporary = target / f".{path.name}.{os.getpid()}.tmp"
        path.copy(temporary, overwrite=True)
        os.replace(temporary, copy)
    return target


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        path.write_bytes(data)  # an object appears when it is whole
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files private; results are to be shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, record: Any) -> None:
    """Writes a record of plain values as readable JSON."""
    write_whole(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
