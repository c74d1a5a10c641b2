"""A run directory belongs to one process at a time."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from stilts_jax.errors import CheckpointError, LockedError
from stilts_jax.files import local_folder, naming


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
