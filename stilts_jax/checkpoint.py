"""Run directories that belong to one process, and checkpoints that can be trusted: digests tell what was saved.

Orbax restores a flipped byte without a word. A digest of every array, computed before saving and again after restoring,
finds it: bits as unsigned integers, each times an odd number that depends on its place, summed up with wrap-around. An
odd factor is invertible, so a change of one element always shows; a swap of two shows as their factors differ; and a
sum without rounding does not depend on the order in which devices take part, or on how the array lies on them.
"""

import errno
import hashlib
import inspect
import json
import logging
import math
import operator
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from filelock import FileLock, Timeout
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from stilts_jax.distributed import from_main
from stilts_jax.errors import CheckpointError, LockedError
from stilts_jax.files import local_folder, open_path, write_whole
from stilts_jax.progress import SILENT, Progress
from stilts_jax.sharding import parameter_paths, with_shardings

FORMAT = 1
_RECORD = "record"  # the item that holds what is not an array
_FULL = ("no space left", f"errno {errno.ENOSPC}", f"errno {errno.EDQUOT}")  # what is said of a full disk
# What may be otherwise at the next try: the storage or the device has a bad moment, and nothing is wrong with a file.
_BUSY = (errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ETIMEDOUT, errno.ENOMEM)
_BUSY_WORDS = "RESOURCE_EXHAUSTED|UNAVAILABLE|PERMISSION_DENIED|UNAUTHENTICATED|DEADLINE_EXCEEDED|Stale file"


@contextmanager
def lock_run(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps a second process out of a run directory; raises ``LockedError`` where there is one already.

    The lock ends with the process that holds it, however that ends; a file beside it says who that is (in the lock's
    own filelock keeps what it needs where a file system has no locks). Object stores have none: there a file in this
    machine's cache is locked, and other machines are left to the user.
    """
    path = local_folder(directory) / "run.lock"
    told = path.with_suffix(".holder")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError("it is no plain file")
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = told.read_text("utf-8", "replace") if told.is_file() else "unknown"
        what = f"Another process is at work in this run directory: {holder} (if that is gone, remove {path})."
        fix = "wait for it, stop it, or take another directory"
        raise LockedError(what, where=str(directory), fix=fix) from error
    except OSError as error:
        what = f"The lock file can't be opened: {error.strerror or error}."
        fix = "remove what stands there (a folder or a link), or give permission to write"
        raise CheckpointError(what, where=str(path), fix=fix) from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_whole(told, f"pid {os.getpid()} on {socket.gethostname()}, since {since}")
        yield
    finally:
        lock.release()


class _Damaged(CheckpointError):
    """One step can't be read, or is not what was saved."""

    def __init__(self, reason: str, where: str) -> None:
        self.reason = reason
        fix = "load another step, or remove the folder of checkpoints and run the command again to begin anew"
        super().__init__(f"The checkpoint is damaged: {reason}.", where=where, fix=fix)


def _blame(error: BaseException, reason: str, where: str) -> CheckpointError:
    """Returns that a step is damaged, or, where the cause may pass, that it can't be read now."""
    if getattr(error, "errno", None) in _BUSY or re.search(_BUSY_WORDS, str(error)):
        fix = "run the same command again; nothing was moved or removed"
        return CheckpointError(f"The checkpoint can't be read now: {reason}.", where=where, fix=fix)
    if jax.process_count() > 1:  # the others stand in orbax's barrier: only the end of all is safe
        fix = "move this step away and run the same command again"
        return CheckpointError(f"The checkpoint can't be read: {reason}.", where=where, fix=fix)
    if "Type mismatch at key path" in str(error):  # the record has the paths in lists and tuples only
        fix = "restore them into the form that was saved: `load` makes dicts of all"
        return CheckpointError(f"The checkpoint has lists or tuples: {reason}.", where=where, fix=fix)
    return _Damaged(reason, where)


class Checkpoints(AbstractContextManager):
    """The checkpoints of one run: a folder with one folder a step.

        >>> import jax, stilts_jax as sj
        >>> params = {"kernel": jax.numpy.ones((2, 3))}
        >>> with sj.Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
        ...     checkpoints.save(10, {"params": params}, {"score": 0.5})
        >>> with sj.Checkpoints(folder / "checkpoints") as checkpoints:
        ...     step, items, record = checkpoints.restore_newest({"params": jax.eval_shape(lambda: params)})
        >>> step, record, items["params"]["kernel"].shape
        (10, {'score': 0.5}, (2, 3))

    Each step holds items (trees of arrays, such as ``params`` and ``moments``) and a record of plain values, with the
    digest of every array. All of it becomes visible at once, when orbax commits the step.

    The directory may lie in a bucket (``gs://bucket/run/checkpoints``); the ``keep`` newest steps stay; ``progress`` is
    told about damage; ``read_only`` is for folders that another process may be writing to.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        keep: int = 2,
        progress: Progress = SILENT,
        read_only: bool = False,
    ) -> None:
        self._directory = epath.Path(open_path(directory))  # orbax wants absolute paths
        self._progress = progress
        self._policies: list[Any] = [LatestN(max(1, keep)), CustomSteps([])]
        kept = AnyPreservationPolicy(self._policies)
        writing = {"preservation_policy": kept, "cleanup_tmp_directories": True}
        reading = {"create": False, "read_only": True, "save_interval_steps": 0}
        self._options = ocp.CheckpointManagerOptions(**(reading if read_only else writing))
        self._manager: ocp.CheckpointManager | None = None

    def steps(self) -> list[int]:
        """Returns the steps that the main host sees, oldest first; what is damaged shows when it is read."""
        if self._manager is None and not from_main(self._is_there):
            return []
        manager = self._open()  # on all hosts: orbax waits for them there
        return from_main(lambda: sorted(manager.all_steps()))

    def save(
        self, step: int, items: Mapping[str, Any], record: Mapping[str, Any], *, protect: Iterable[int] = ()
    ) -> None:
        """Starts saving a step, returns as soon as the arrays may change; steps of ``protect`` stay, however old."""
        if _RECORD in items:
            fix = "give this item another name"
            raise CheckpointError(f"No item can be named {_RECORD!r}.", where=str(self._directory), fix=fix)
        step = operator.index(step)  # of numpy or jax too; orbax would save 1.0, and never find it again
        leaves: dict[str, dict[str, list]] = {}
        for name, tree in items.items():
            digests, forms = digest_leaves(tree), parameter_paths(tree)
            leaves[name] = {path: [list(one.shape), str(one.dtype), digests[path]] for path, one in forms}
        # Copied: orbax writes it later, when the caller's lists may have grown.
        whole = {"format": FORMAT, "step": step, "leaves": leaves, _RECORD: dict(record)}
        payload = json.loads(json.dumps(whole, default=_plain))
        # Orbax takes no item without arrays, as the state of ``optax.sgd`` is.
        full = {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}
        arguments = {name: ocp.args.PyTreeSave(tree) for name, tree in full.items()}
        arguments[_RECORD] = ocp.args.JsonSave({"payload": payload, "sha256": _checksum(payload)})
        manager = self._open()
        with _saving(self._directory / str(step)):
            manager.wait_until_finished()
            if step in self.steps():
                manager.delete(step)  # orbax would keep it, and leave the new one out without a word
            self._policies[-1] = CustomSteps(list(protect))  # others go when the new step is on disk
            manager.save(step, args=ocp.args.Composite(**arguments), force=True)

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        if self._manager:
            with _saving(self._directory):
                self._manager.wait_until_finished()

    def close(self, *_: object) -> None:
        if self._manager:
            try:
                self.wait()
            finally:
                manager, self._manager = self._manager, None
                with _saving(self._directory):  # orbax raises once more what failed before
                    manager.close()

    __exit__ = close

    def restore_newest(self, wanted: Mapping[str, Any]) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """Returns step, items and record of the newest undamaged step; None if there is no step at all.

        A damaged step is named, moved out of the way and passed over. ``wanted`` are trees of ``jax.ShapeDtypeStruct``
        with shardings, exactly what the run holds.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return step, *self.restore(step, wanted)
            except _Damaged as damage:
                # Out of the way: a good one of the same number will be written there.
                source = self._directory / str(step)
                target = self._directory.parent / "damaged" / str(step)
                text = f"checkpoint {source} is passed over: {damage.reason}; moved to {target}"
                self._progress.say(f"warning: {text}")
                if jax.process_index() == 0:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (target.parent / "why.txt").write_text(text)  # a bucket has no folders without files
                    target.rmtree(missing_ok=True)
                    source.rename(target)
                if jax.process_count() > 1:
                    multihost_utils.sync_global_devices(f"set aside {source}")
                self._open().reload()
        if not steps:
            return None
        what = f"None of the checkpoints can be used (steps {', '.join(map(str, steps))})."
        fix = "run the same command again to train from the start; the damaged steps are kept in `damaged` beside it"
        raise CheckpointError(what, where=str(self._directory), fix=fix)

    def restore(self, step: int, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns items and record of one step; ``wanted`` may leave out items, but nothing inside of them."""
        where = f"{self._directory}/{step}"
        if step not in (steps := self.steps()):
            fix = f"take one of {', '.join(map(str, steps)) or 'none'}"
            raise CheckpointError(f"There is no checkpoint of step {step}.", where=where, fix=fix)
        payload = self._payload(step)
        leaves = flatten_dict({name: payload["leaves"].get(name, {}) for name in wanted}, sep="/")
        saved = {path.removesuffix("/"): form for path, form in leaves.items()}  # an item may be one array
        _compare(where, dict(parameter_paths(dict(wanted))), saved)
        here = SingleDeviceSharding(jax.local_devices()[0])
        args, full = {}, {name: tree for name, tree in wanted.items() if jax.tree.leaves(tree)}
        places = jax.tree.map(lambda leaf: getattr(leaf, "sharding", None) or here, full)
        for name, tree in with_shardings(full, places).items():
            restore_args = ocp.checkpoint_utils.construct_restore_args(tree)
            args[name] = ocp.args.PyTreeRestore(tree, restore_args=restore_args, partial_restore=True)
        try:
            found = self._open().restore(step, args=ocp.args.Composite(**args))
        except Exception as error:
            # What tensorstore found is the cause: orbax's own words of it end in a bound method.
            found = error.__cause__ if error.__cause__ and "TensorStore" in str(error) else error
            raise _blame(found, _short(found), where) from error
        items = {name: found[name] if name in full else tree for name, tree in wanted.items()}
        for path, digest in digest_leaves(items).items():  # the same on all hosts
            if digest != saved[path][2]:
                raise _Damaged(f"the content of {path} is not what was saved", where)
        return items, payload[_RECORD]

    def load(self, item: str, shardings: Callable[[Any], Any] | None = None) -> Any:
        """Reads a tree of the newest step, such as ``params``, as ``shardings`` of its form say or on one device."""
        where, steps = str(self._directory), self.steps()
        if not steps:
            fix = "check the path, or train this phase first"
            raise CheckpointError("There is no checkpoint.", where=where, fix=fix)
        leaves = self._payload(steps[-1])["leaves"].get(item)
        if not leaves:
            raise CheckpointError(f"The checkpoint has no {item}.", where=where, fix="check the name")
        forms = {path: jax.ShapeDtypeStruct(shape, dtype) for path, (shape, dtype, _) in leaves.items()}
        wanted = forms[""] if forms.keys() == {""} else unflatten_dict(forms, sep="/")  # or one array
        wanted = with_shardings(wanted, shardings(wanted)) if shardings else wanted
        return self.restore(steps[-1], {item: wanted})[0][item]

    def _is_there(self) -> bool:
        # Orbax finds no steps in a file, and the first save would fail, after all the work before it.
        if self._directory.exists() and not self._directory.is_dir():
            fix = "move it away, and run the same command again"
            raise CheckpointError("This is no folder of checkpoints.", where=str(self._directory), fix=fix)
        return self._directory.exists()

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            _quiet_needless_words()
            given: Any = {"options": self._options, "handler_registry": _make_handlers()}
            manager = ocp.CheckpointManager(self._directory, **given)
            # It would ask the service with the number of the step, and ours (``is_preempted``) would never be reached.
            manager.reached_preemption = lambda step: False
            self._manager = manager
        return self._manager

    def _payload(self, step: int) -> dict[str, Any]:
        where = f"{self._directory}/{step}"
        try:
            args = ocp.args.Composite(**{_RECORD: ocp.args.JsonRestore()})
            stored = self._open().restore(step, args=args)[_RECORD]
            payload, checksum = stored["payload"], stored["sha256"]
        except Exception as error:  # orbax raises bare Exceptions, ValueErrors, KeyErrors
            raise _blame(error, f"its record can't be read ({_short(error)})", where) from error
        if checksum != _checksum(payload):
            raise _blame(ValueError(), "its record is not what was written", where)
        if payload["format"] != FORMAT:
            what = f"The checkpoint has format {payload['format']}, this version reads {FORMAT}."
            raise CheckpointError(what, where=where, fix="use the version of stilts_jax that wrote it")
        if payload["step"] != step:  # a folder that was renamed or copied
            raise _blame(ValueError(), f"it was saved as that of step {payload['step']}", where)
        return payload


def _make_handlers() -> Any:
    """Returns what writes arrays as they are: compressed, they are a fourteenth smaller and read in twice the time."""
    handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
    plain = ocp.PyTreeCheckpointHandler(use_compression=False)
    for kind in (ocp.args.PyTreeSave, ocp.args.PyTreeRestore):
        handlers.add(None, kind, plain)
    return handlers


@contextmanager
def _saving(where: epath.Path) -> Iterator[None]:
    """Turns what goes wrong while saving, also in orbax's threads, into one named error."""
    try:
        yield
    except Exception as error:
        full = any(sign in str(error).lower() for sign in _FULL)
        what = f"The checkpoint could not be saved{': the disk is full' if full else ''} ({_short(error)})."
        fix = f"{'make room' if full else 'mend the cause'} and run the same command again: "
        fix += "it goes on from the last checkpoint that is whole"
        raise CheckpointError(what, where=str(where), fix=fix) from error


@cache
def _quiet_needless_words() -> None:
    """Keeps quiet about reads that end after another one has failed: that one's error is raised, and says enough.

    Else each thread of tensorstore prints a traceback, as its report finds orbax's event loop closed; so do asyncio for
    every failure that nobody asked for, and orbax's reads that are thrown away unfinished. And orbax warns of each
    folder that is opened to be read only, as all models are.
    """
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        late = found.exc_type is RuntimeError and str(found.exc_value) == "Event loop is closed"
        unfinished = inspect.iscoroutine(found.object) and "orbax" in found.object.cr_code.co_filename
        if not late and not unfinished:
            before(found)

    sys.unraisablehook = hook
    needless = ("exception was never retrieved", "directory is read only")
    for name in ("asyncio", "absl"):
        logging.getLogger(name).addFilter(
            lambda record: not any(one in record.getMessage() for one in needless)
        )


def _plain(value: Any) -> Any:
    """Returns what a number of numpy or of jax is in JSON, such as the loss of a step."""
    return jax.device_get(value).tolist() if hasattr(value, "dtype") else json.JSONEncoder().default(value)


def _checksum(payload: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


def _short(error: BaseException) -> str:
    """Returns the line of an error that says something, without the drivers and source lines of tensorstore."""
    noise = r'Error opening "[^"]*" driver: | in OCDBT [^"]*"[^"]*"| \[(source locations|tensorstore_spec|domain)=.*'
    text = re.sub(noise, "", str(error).strip().partition("\n")[0])
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def digest_leaves(tree: Any) -> dict[str, int]:
    """Returns the digest of every leaf by its path, such as ``encoder/layers/ffn/up/kernel``."""
    # Computed where the arrays are; each is waited for, as several programs that sum over devices of a CPU at one time
    # can wait for each other for ever.
    return {path: int(jax.device_get(_digest(leaf))) for path, leaf in parameter_paths(tree)}


# Compiled by shape, which parameters, moments and other models share, and not for a whole tree at a time.
@jax.jit
def _digest(array: jax.Array) -> jax.Array:
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    width = min(array.dtype.itemsize, 4)
    # 8-byte elements become two words along a new last axis.
    words = jax.lax.bitcast_convert_type(array, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width])
    words = words.astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, _ in enumerate(words.shape):
        stride = math.prod(words.shape[axis + 1 :]) % 2**32
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride)
    factor = place * jnp.uint32(0x9E3779B1)
    factor = (factor ^ (factor >> 15)) * jnp.uint32(0x85EBCA77)
    return jnp.sum(words * (factor | 1), dtype=jnp.uint32)


def _compare(where: str, wanted: Mapping[str, Any], saved: Mapping[str, list]) -> None:
    """Raises unless the checkpoint has the leaves that are wanted and no others."""
    ours = {path: f"{leaf.dtype} {tuple(leaf.shape)}" for path, leaf in wanted.items()}
    theirs = {path: f"{dtype} {tuple(shape)}" for path, (shape, dtype, _) in saved.items()}
    problems = [
        f"{path}: {theirs.get(path, 'nothing')} saved, {ours.get(path, 'nothing')} wanted"
        for path in ours | theirs
        if ours.get(path) != theirs.get(path)
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        what = f"The checkpoint is of another model or optimizer: {'; '.join(problems[:5])}{more}."
        fix = "use the settings that it was saved with, or a new run directory"
        raise CheckpointError(what, where=where, fix=fix)
