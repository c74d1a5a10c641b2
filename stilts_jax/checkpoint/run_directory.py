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

LOCK = "run.lock"
SETTINGS = "settings.json"


@contextmanager
def lock_run(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps a second process out of a run directory; raises ``LockedError`` where there is one already.

    The lock ends with the process that holds it, however that ends; the file only says who holds it. Object stores
    have no locks: there a file in this machine's cache is locked, and other machines are left to the user.
    """
    path = local_folder(directory) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, reason = FileLock(path), "it is no plain file"
    try:
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise OSError
        lock.acquire(blocking=False)
    except Timeout as error:
        raise LockedError(
            f"Another process is at work in this run directory: {path.read_text('utf-8', 'replace') or 'unknown'}.",
            where=str(directory),
            fix="wait for it, stop it, or take another directory",
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"The lock file can't be opened: {error.strerror or reason}.",
            where=str(path),
            fix="remove what stands there (a folder or a link), or give permission to write",
        ) from error
    try:
        with naming(path):
            since = datetime.now(UTC).isoformat(timespec="seconds")
            path.write_text(f"pid {os.getpid()} on {socket.gethostname()}, since {since}")
        yield
    finally:
        lock.release()


def check_settings(directory: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Writes down the settings of a run (plain values), or raises if the directory holds a run with others."""
    path = open_path(directory) / SETTINGS
    now = json.loads(json.dumps(settings))
    try:
        before = read_record(path)
    except FileNotFoundError:
        write_record(path, now)
        return
    except RecordError as error:
        raise CheckpointError(
            f"This run's record of its settings can't be trusted: {error.what}",
            where=str(path),
            fix="remove that file if this run has the settings of now, or take a new run directory",
        ) from error
    if differing := compare_settings(before, now):
        raise CheckpointError(
            "This run directory holds a run with other settings:\n    " + "\n    ".join(differing),
            where=str(path),
            fix="take a new run directory, or go back to the settings of that run",
        )


def compare_settings(before: Any, now: Any, path: str = "") -> list[str]:
    """Returns a line for every value that differs, such as ``train.seed: 1 there, 2 now``."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"{path}: {before!r} there, {now!r} now"]
    lines = []
    for name in sorted(before.keys() | now.keys()):
        inner = f"{path}.{name}".lstrip(".")
        if name in now and name in before:
            lines += compare_settings(before[name], now[name], inner)
        elif name in now:
            lines.append(f"{inner}: not set there, {now[name]!r} now")
        else:
            lines.append(f"{inner}: {before[name]!r} there, not set now")
    return lines
