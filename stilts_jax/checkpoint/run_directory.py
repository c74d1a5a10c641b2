"""A run directory belongs to one process at a time and to one set of settings for ever."""

import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from stilts_jax.errors import CheckpointError, LockedError, RecordError
from stilts_jax.files import local_folder, naming, open_path, read_record, write_record

try:
    import fcntl
except ImportError:  # Windows: the record is still written, and names who else may be at work
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
SETTINGS = "settings.json"


@contextmanager
def lock_run(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps a second process out of a run directory.

    The lock is the operating system's: it ends with the process that holds it, however that ends. The file only
    says who holds it. Object stores (``gs://``) have no locks, so a file in this machine's cache is locked instead:
    that no second machine works in the same directory is left to the user.

    Raises:
        LockedError: another process holds the lock.
    """
    folder = local_folder(directory)
    folder.mkdir(parents=True, exist_ok=True)
    owner = json.dumps(
        {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    if fcntl is None:
        (folder / LOCK).write_text(owner)
        yield
        return
    with _open_lock(folder / LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LockedError(
                f"Another process is at work in this run directory: {_owner(file.read(4096))}.",
                where=str(directory),
                fix="wait for it, stop it, or take another directory",
            ) from error
        try:
            with naming(folder / LOCK):
                os.ftruncate(file.fileno(), 0)
                os.pwrite(file.fileno(), owner.encode(), 0)
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _open_lock(path: Path) -> TextIO:
    """Opens the lock file without emptying it: the owner's record must survive until the lock is ours."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    reason = "it is no plain file"
    try:
        descriptor = os.open(path, flags, 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")
        os.close(descriptor)
    except OSError as error:
        reason = error.strerror or reason
    raise CheckpointError(
        f"The lock file can't be opened: {reason}.",
        where=str(path),
        fix="remove what stands there (a folder or a link), or give permission to write",
    )


def check_settings(directory: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Writes down the settings of a run, or raises if the directory holds a run with others.

    Args:
        settings: plain values that JSON can hold, nested as they like.
    """
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
    differing = compare_settings(before, now)
    if differing:
        raise CheckpointError(
            "This run directory holds a run with other settings:\n    " + "\n    ".join(differing),
            where=str(path),
            fix="take a new run directory, or go back to the settings of that run",
        )


def compare_settings(before: Any, now: Any, path: str = "") -> list[str]:
    """Returns a line for every value that differs, such as ``train.seed: 1 there, 2 now``."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for name in sorted(before.keys() | now.keys()):
            inner = f"{path}.{name}" if path else name
            if name not in now:
                lines.append(f"{inner}: {before[name]!r} there, not set now")
            elif name not in before:
                lines.append(f"{inner}: not set there, {now[name]!r} now")
            else:
                lines += compare_settings(before[name], now[name], inner)
        return lines
    return [] if before == now else [f"{path}: {before!r} there, {now!r} now"]


def _owner(text: str) -> str:
    try:
        record = json.loads(text)
        return f"pid {record['pid']} on {record['host']}, since {record['since']}"
    except (ValueError, KeyError, TypeError):
        return "its record can't be read"
