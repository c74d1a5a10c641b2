"""A run directory belongs to one process at a time and to one set of settings for ever."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from etils import epath

from stilts_jax.errors import CheckpointError
from stilts_jax.files import local_folder

try:
    import fcntl
except ImportError:  # Windows: the record is still written, and names who else may be at work
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
SETTINGS = "settings.json"


@contextmanager
def lock_run(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps a second process out of a run directory.

    The lock is the operating system's, so it ends with the process that holds it, however that ends; the
    file only says who it is. Object stores (``gs://``) have no locks, so a file in this machine's cache has it:
    not to start two on different machines is left to the user.
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
    # Opened for appending: the record of the owner must survive until the lock is ours.
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise CheckpointError(
                f"Another process is at work in this run directory: {_owner(file.read())}.",
                where=str(directory),
                fix="wait for it, stop it, or take another directory",
            ) from error
        file.truncate(0)
        file.write(owner)
        file.flush()
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def check_settings(directory: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Writes down the settings of a run, or raises if the directory holds a run with others.

    Args:
        settings: plain values that JSON can hold, nested as they like.
    """
    folder = epath.Path(directory)
    path = folder / SETTINGS
    text = json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{SETTINGS}.{os.getpid()}"
        temporary.write_text(text)
        temporary.replace(path)
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(
            "The record of this run's settings can't be read.",
            where=str(path),
            fix="take a new run directory",
        ) from error
    differing = compare_settings(before, json.loads(text))
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
    except (ValueError, KeyError):
        return "its record can't be read"
