"""One program over several hosts: how they find each other, and what happens when one of them is lost.

``initialize`` must be called before anything asks JAX for devices. TPU pods and Slurm need nothing else; on other
machines JAX_COORDINATOR_ADDRESS=host0:1234 JAX_NUM_PROCESSES=4 JAX_PROCESS_ID=0 tell a process its place.

All hosts run the same program on the same settings, and share the work directory. The main one (process 0) writes
files and messages; whatever makes hosts wait for each other must not depend on that. What is read from such a file, and
decides what is done next, comes from the main host too (``from_main``): a shared file system may show a new file to one
host before the others.
"""

import atexit
import ctypes
import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from stilts_jax.errors import EXIT_ERROR, EXIT_RUN_AGAIN, ConfigError, explain


def _read_heartbeat() -> int:
    text = os.environ.get("STILTS_HEARTBEAT") or "60"
    if text.isascii() and text.isdigit() and 0 < int(text) < 2**31:
        return int(text)
    what = f"STILTS_HEARTBEAT={text!r} is no number of seconds."
    raise ConfigError(what, where="the environment", fix="set a whole number, such as 60, or unset it")


_HEARTBEAT = _read_heartbeat()  # seconds of silence after which a host counts as lost
Value = TypeVar("Value")


def initialize() -> None:
    """Joins the other processes of this run, where there are any and it has not joined them."""
    # A CPU's programs run in the thread that calls them, whose memory is kept: see ``keep_freed_memory``.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    place = _explicit_place(os.environ)
    if jax.distributed.is_initialized() or (place is None and not _is_cluster()):
        return
    address, count, number = place or (None, None, None)
    # Before: a host can be lost while the others still look for it.
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _leave_when_aborted)
    try:
        jax.distributed.initialize(address, count, number, heartbeat_timeout_seconds=_HEARTBEAT)
    except (ValueError, RuntimeError) as error:
        # A TPU of one host that is in use already: a notebook, or a program that calls this package.
        is_late = place is None and "before any JAX" in str(error)
        if is_late and "SLURM_STEP_NODELIST" not in os.environ and jax.process_count() == 1:
            return
        what, where = "The processes of this run did not find each other.", address or "found automatically"
        fix = "start all processes before anything uses a device; name the same coordinator to all"
        raise ConfigError(what, where=f"{where}: {error}", fix=fix) from error
    if _service().num_processes == 1 and threading.current_thread() is threading.main_thread():
        # JAX's service has taken SIGTERM, and of one process nobody asks it: Python gets it back.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
    follower = threading.Thread(target=_follow_others, daemon=True)
    follower.start()
    # Before JAX takes its leave of the others: what is registered later is called first.
    atexit.register(_end_following, follower)


def from_main(read: Callable[[], Value]) -> Value:
    """Returns on all hosts what ``read`` returns on the main one, the only one that calls it; a plain JSON value."""
    if jax.process_count() == 1:
        return read()
    text = np.frombuffer(json.dumps(read()).encode() if jax.process_index() == 0 else b"", np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    # Powers of two, so that few sizes are compiled.
    room = np.pad(text, (0, (1 << size.bit_length()) - len(text)))
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(room))[:size].tobytes())


_borders, _failures = itertools.count(), itertools.count()
_ends = threading.Event()  # this process failed, or has done its work: the others are followed no more
_EXIT_CODE, _LOOK_EVERY = "stilts/exit_code", 1.0  # seconds


def is_preempted() -> bool:
    """Says whether SIGTERM came to one of several hosts: asked at the same places on all of them.

    The coordination service catches the signal and agrees on a number at which all hosts stop. Here it only grows, in
    and between phases, so that it is reached wherever the signal came.
    """
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(next(_borders))


@contextmanager
def leave_together() -> Iterator[None]:
    """Lets a failure on one of several hosts end the run on all; free on a single one.

    A failure that all hosts share (a damaged file) is raised: they can go on together with the next phase. One of this
    host alone ends this process and all others, with the same exit code: it could wait for the others at its exit for
    minutes, and they for it in a collective. Where a host is lost, a collective of a survivor may fail long before the
    silence is noticed. So after a failure of the runtime this process waits: the coordination service ends it with
    EXIT_RUN_AGAIN meanwhile if a host is really lost.
    """
    try:
        yield
    except Exception as error:
        if not jax.distributed.is_initialized() or jax.process_count() == 1:
            raise
        code = EXIT_ERROR
        if explained := explain(error):  # hosts may run out of memory together
            try:
                # Without a device: those of the others may be waiting.
                _client().wait_at_barrier(f"failure {next(_failures)}", timeout_in_ms=1000 * _HEARTBEAT)
            except jax.errors.JaxRuntimeError:  # not all hosts come here in time
                print(f"stilts: host {jax.process_index()}: {explained}", file=sys.stderr)
                code = explained.exit_code
            else:
                raise error
        else:
            traceback.print_exc()
            time.sleep(_HEARTBEAT + 10)
        _ends.set()
        with suppress(jax.errors.JaxRuntimeError):  # another host was faster, or the service is gone
            _client().key_value_set(_EXIT_CODE, str(code))
            time.sleep(3 * _LOOK_EVERY)  # with the service, if it is this process that runs it
        _leave(code)


def _follow_others() -> None:
    """Ends this process with the exit code of another one that says that it failed."""
    while not _ends.wait(_LOOK_EVERY):
        try:
            code = int(_client().key_value_try_get(_EXIT_CODE))
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                continue
            return
        print("stilts: another host failed; its log says why", file=sys.stderr)
        if jax.process_index() == 0:  # it runs the service: without it those that still look would be aborted
            time.sleep(5 * _LOOK_EVERY)
        _leave(code)


def _end_following(follower: threading.Thread) -> None:
    """Is called as Python ends, which stops threads where they are: one inside of JAX takes the process with it."""
    _ends.set()
    follower.join(_HEARTBEAT)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _client() -> Any:
    return _service().client


def _service() -> Any:
    from jax._src import distributed  # the service has no public interface

    return distributed.global_state


def _explicit_place(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Returns (address, number of processes, this process), or None if none of the three is given."""
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, total, index = given = [environment.get(name, "") for name in names]
    if not any(given):
        return None
    if not (":" in address and total.isdecimal() and index.isdecimal() and int(index) < int(total)):
        what = "A process of several needs all three: coordinator, number of processes, its own number."
        fix = "such as JAX_COORDINATOR_ADDRESS=host0:1234 JAX_NUM_PROCESSES=4 JAX_PROCESS_ID=0 (to 3)"
        raise ConfigError(what, where=" ".join(map("{}={}".format, names, given)), fix=fix)
    return address, int(total), int(index)


def _is_cluster() -> bool:
    """Says whether JAX can find the other processes by itself: on a TPU machine, in a Slurm step."""
    if "SLURM_STEP_NODELIST" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "1")) > 1
    from jax._src import cloud_tpu_init  # what JAX itself goes by

    # A process that was given chips of its own is alone, as are those beside it.
    alone = os.environ.get("JAX_PLATFORMS") == "cpu" or os.environ.get("TPU_PROCESS_BOUNDS") == "1,1,1"
    return cloud_tpu_init.running_in_cloud_tpu_vm and not alone


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _leave_when_aborted(number: int) -> None:
    """Makes the end that JAX's coordination service puts to a survivor say EXIT_RUN_AGAIN.

    The service notices a lost host and aborts the process from a thread of its own, also while Python waits in a
    collective for ever. Python's signal handlers never run then, and JAX's own callback fails with std::bad_cast in
    jaxlib 0.10 and 0.12; so this one is set below Python.
    """
    os.write(2, b"stilts: another host is lost, or the runtime failed; run the same command again\n")
    os._exit(EXIT_RUN_AGAIN)
