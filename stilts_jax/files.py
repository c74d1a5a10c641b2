"""Paths here and in object stores, and files that are written whole or not at all."""

import contextlib
import errno
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError, RecordError

_DAY = 86400.0
_TEMPORARY = re.compile(r"\..+\.(\d+)-\d+\.tmp")
_count = itertools.count()  # two threads may write the same file
_DIGEST = "digest"
_FETCHED = ".fetched.json"  # what an object store said of the files that were copied


def open_path(name: str | os.PathLike) -> Path:
    """Returns the absolute path of a name; of a URL (``gs://...``) what ``etils.epath`` makes of it.

    That has the methods of a ``Path``, as far as object stores can do them; what needs links, appending, locks or
    mapping into memory goes to ``local_folder``.
    """
    text = str(name)
    if not is_remote(text):
        return local_path(text)
    scheme = text.partition("://")[0]
    if scheme != "gs":  # orbax writes checkpoints to no other store
        fix = "name a local folder, or one in a bucket with gs://BUCKET/FOLDER"
        raise ConfigError(f"Paths that begin with {scheme}:// can't be used.", where=text, fix=fix)
    import fsspec  # both take a while, and most paths are local
    from etils import epath

    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        fix = "pip install 'stilts-jax[gcs]' for gs://"
        raise ConfigError("The packages that open this URL are missing.", where=text, fix=fix) from error
    remote: Any = epath.Path(text)
    return remote


def local_path(name: str) -> Path:
    """Returns the absolute path of a name that must be one of this machine."""
    if is_remote(name):
        fix = "name a folder or file of this machine"
        raise ConfigError("This path must be a local one.", where=name, fix=fix)
    if not name:
        raise ConfigError("A path is empty.", fix="name a folder or file, or leave the option out")
    try:
        return Path(name).expanduser().absolute()
    except RuntimeError as error:  # ~NAME of nobody, or ~ of a user without a name or HOME
        fix = "write the whole path, or set HOME for what begins with ~/"
        raise ConfigError(f"{error}", where=name, fix=fix) from error


def make_folder(path: Path, option: str, *, to_write: bool = True) -> None:
    """Makes the folder that an option names, before any work is done for it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if to_write and not is_remote(path) and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "Nothing can be written there")
    except OSError as error:
        what = f"The folder of {option} can't be used: {error.strerror or error}."
        raise ConfigError(what, where=str(path), fix=f"name another folder with {option}") from error


def check_out(out: Path, *read: Path) -> None:
    """Makes the folder of the file that --out names, before any work is done; refuses what a file can't replace.

    That is one of those that are ``read`` for it, a folder, or a pipe, device or link (``/dev/stdout``), which would be
    lost, and whoever waits behind it would get nothing.
    """
    if os.path.realpath(out) in map(os.path.realpath, read):
        what = "This file is read: it would be written over."
    elif os.path.lexists(out) and not stat.S_ISREG(out.lstat().st_mode):
        what = "This is a folder, link, pipe or device, and a file is to be written."
    else:
        return make_folder(out.parent, "--out")
    raise ConfigError(what, where=str(out), fix="name another file with --out")


def is_remote(path: str | os.PathLike) -> bool:
    """Says whether a path lies in an object store."""
    return "://" in str(path)


def local_folder(path: str | os.PathLike) -> Path:
    """Returns the path itself, or the folder of this machine's cache that stands for one in an object store."""
    digest = hashlib.sha256(str(path).rstrip("/").encode()).hexdigest()
    return cache_root() / "remote" / digest[:16] if is_remote(path) else Path(path)


def cache_root() -> Path:
    """Returns where this machine keeps what can be made again."""
    return local_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "stilts_jax"


def fetch_folder(name: str | os.PathLike) -> Path:
    """Returns a local copy of the files directly in a folder of an object store; ``name`` if there is none.

    A file is copied again when the store says something else of it (generation, ETag, time of change) than when it was
    copied: another encoder of the same size is another encoder.
    """
    source: Any = open_path(name)
    target = local_folder(name)
    if not source.is_dir():
        return source  # not the copy of what was removed there
    from fsspec.core import url_to_fs

    store, folder = url_to_fs(str(name).rstrip("/"))
    try:
        known = read_record(target / _FETCHED)
    except (OSError, RecordError):
        known = {}
    files = [path for path in source.iterdir() if not path.is_dir()]
    for path in files:
        copy, state = target / path.name, store.ukey(f"{folder}/{path.name}")
        if not copy.is_file() or known.get(path.name) != [state, copy.stat().st_size]:
            with replacing(copy) as temporary:
                path.copy(temporary, overwrite=True)
            known[path.name] = [state, copy.stat().st_size]
            write_record(target / _FETCHED, known)
    for gone in known.keys() - {path.name for path in files}:
        (target / gone).unlink(missing_ok=True)
    return target


@contextlib.contextmanager
def naming(path: os.PathLike, temporary: os.PathLike | str = "") -> Iterator[None]:
    """Lets an error of the disk name the file that the user knows: writing to an open file names none."""
    try:
        yield
    except OSError as error:
        # A library's own error, a text without a number, would lose the text.
        if error.errno and (error.filename is None or str(error.filename) == str(temporary)):
            error.filename = str(path)
            del error.filename2  # None would be printed as a name
        raise


@contextlib.contextmanager
def replacing(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Gives the name of a file to write, which becomes ``path`` if all goes well: readers see the old or the new.

    Or an empty ``folder`` to fill, which becomes ``path`` (not there yet, or empty).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path.parent)
    temporary = path.with_name(f".{path.name}.{this_machine()}.{os.getpid()}-{next(_count)}.tmp")
    try:
        with naming(path, temporary):
            _remove(temporary)  # of a killed process of the same number; a link must not be followed
            if folder:
                temporary.mkdir()
            yield temporary
            if not folder:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            _remove(temporary)


def _remove(path: Path) -> None:
    is_folder = path.is_dir() and not path.is_symlink()
    shutil.rmtree(path, ignore_errors=True) if is_folder else path.unlink(missing_ok=True)


@functools.cache
def this_machine() -> str:
    """Returns what a process's number is unique on: containers and cloned machines may share a name."""
    with contextlib.suppress(OSError):
        boot, space = Path("/proc/sys/kernel/random/boot_id").read_text(), os.stat("/proc/self/ns/pid").st_ino
        return f"{socket.gethostname()}.{hash_record([boot, space])[:8]}"
    return socket.gethostname()


def _remove_stale(folder: Path) -> None:
    """Removes what killed processes left: what is temporary of those of this host, and any file older than a day."""
    for path in folder.glob(".*.tmp"):
        if match := _TEMPORARY.fullmatch(path.name):  # else it is not one of ours
            with contextlib.suppress(OSError):  # another process has just moved it into place
                is_folder = path.is_dir()  # which may take days to fill
                stale = not is_folder and time.time() - path.stat().st_mtime > _DAY
                if not stale and f".{this_machine()}.{match[1]}-" in path.name:
                    try:
                        os.kill(int(match[1]), 0)
                    except (ProcessLookupError, OverflowError):
                        stale = True
                if stale:
                    _remove(path)


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file as ``replacing`` does, also in an object store, where it appears when it is whole."""
    data = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    else:
        with replacing(path) as temporary:
            temporary.write_bytes(data)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes texts as the lines of a file."""
    write_whole(path, "".join(f"{line}\n" for line in lines))


def write_json(path: Path, record: Any) -> None:
    """Writes plain values as readable JSON."""
    write_whole(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes a record that this package reads again: JSON with a digest of its values under ``digest``."""
    plain = json.loads(json.dumps(record, allow_nan=False))  # as it is read again: lists for tuples
    plain.pop(_DIGEST, None)  # of a record that was read as plain JSON, changed and written again
    write_json(path, plain | {_DIGEST: _digest(plain)})


def read_record(path: Path, version: int | None = None) -> dict[str, Any]:
    """Returns a record that ``write_record`` wrote, with ``version`` under ``format``.

    Raises FileNotFoundError where there is none, RecordError where it is of another version or damaged, and what the
    file system raises where it can't be read: that must not count as none.
    """
    found, reason = None, "it is not a record"
    try:
        found = json.loads(path.read_bytes())
    except (IsADirectoryError, NotADirectoryError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it can't be read as JSON"
    if isinstance(found, dict):
        if version is not None and found.get("format") != version:
            what = f"{path.name} has format {str(found.get('format'))[:20]}, this version reads {version}."
            fix = "use the version of stilts_jax that wrote it, or another folder"
            raise RecordError(what, where=str(path), fix=fix)
        if found.pop(_DIGEST, None) == _digest(found):
            return found
        reason = "its content does not match its digest"
    what, fix = f"{path.name} is damaged: {reason}.", "remove it; the command that wrote it makes it again"
    raise RecordError(what, where=str(path), fix=fix)


def digest_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_record(record: Any) -> str:
    """Returns a short hash of plain values, as names of folders and keys have it; the same in every process."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
