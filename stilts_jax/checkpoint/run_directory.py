"""A run directory belongs to one process at a time and to one set of settings for ever."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from stilts_jax.errors import CheckpointError, LockedError, RecordError
from stilts_jax.files import local_folder, naming, open_path, read_record, write_record

SETTINGS = "settings.json"


@contextmanager
def lock_run(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps a second process out of a run directory; raises ``LockedError`` where there is one already.

    The lock ends with the process that holds it, however that ends; the file only says who holds it. Object stores
    have no locks: there a file in this machine's cache is locked, and other machines are left to the user.
    """
    path = local_folder(directory) / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise OSError("it is no plain file")
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = path.read_text("utf-8", "replace") or "unknown"
        what = f"Another process is at work in this run directory: {holder}."
        fix = "wait for it, stop it, or take another directory"
        raise LockedError(what, where=str(directory), fix=fix) from error
    except OSError as error:
        what = f"The lock file can't be opened: {error.strerror or error}."
        fix = "remove what stands there (a folder or a link), or give permission to write"
        raise CheckpointError(what, where=str(path), fix=fix) from error
    try:
        with naming(path):
            since = datetime.now(UTC).isoformat(timespec="seconds")
            path.write_text(f"pid {os.getpid()} on {socket.gethostname()}, since {since}")
        yield
    finally:
        lock.release()


def check_settings(directory: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Writes down the settings of a run (plain values), or raises if the directory holds a run with others."""
    path, now = open_path(directory) / SETTINGS, json.loads(json.dumps(settings))
    try:
        before = read_record(path)
    except (FileNotFoundError, RecordError):
        # A new run, or a damaged record: the name of a phase's directory says it too.
        write_record(path, now)
        return
    if differing := sorted(name for name in before | now if before.get(name) != now.get(name)):
        what = f"This run directory holds a run with other settings: {', '.join(differing)}."
        fix = "take a new run directory, or go back to the settings of that run"
        raise CheckpointError(what, where=str(path), fix=fix)
