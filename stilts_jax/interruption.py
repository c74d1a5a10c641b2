"""SIGTERM and Ctrl-C: the first one asks for a save and an end; a second Ctrl-C aborts at once.

A signal is written down, and from then on every ``check`` raises ``RunAgain``, so that it is never lost: with every
unit of progress and around every phase. The handler itself raises too, which ends downloads and pauses, except below
JAX, which ignores what its own callbacks raise, and in a training loop, which saves first (``deferred``).
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from stilts_jax.errors import EXIT_INTERRUPTED, EXIT_RUN_AGAIN, RunAgain

_LIBRARIES = ("jax", "jaxlib", "orbax", "flax", "asyncio")  # nothing is raised into these
_asked: list[int] = []  # signals since catch_signals; only ever appended to
_deferred = False
_abort: Any = signal.default_int_handler


@contextmanager
def catch_signals(abort: Any = signal.default_int_handler) -> Iterator[None]:
    """Writes down SIGTERM and Ctrl-C inside the block, unless a block around it does so already.

    ``abort`` handles a second Ctrl-C. SIG_DFL ends the process even in the middle of a compilation.
    """
    global _abort
    is_main = threading.current_thread() is threading.main_thread()  # only that may set handlers
    if not is_main or signal.getsignal(signal.SIGTERM) is _note:
        yield
        return
    _asked.clear()
    _abort = abort
    # A command in the background of a script is started with Ctrl-C ignored, which is meant.
    heard = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _note) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def end_with(stream: TextIO) -> threading.Event:
    """Takes the end of ``stream``, a pipe from the parent process, as SIGTERM; returns what is set by a line in it."""
    told = threading.Event()

    def watch() -> None:
        for _line in stream:
            told.set()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return told


@contextmanager
def deferred(wanted: bool = True) -> Iterator[None]:
    """Lets the block see to a signal itself: neither the handler nor ``check`` raises. ``False`` takes this back."""
    global _deferred
    before, _deferred = _deferred, wanted
    try:
        yield
    finally:
        _deferred = before


def is_asked() -> bool:
    """Says whether a signal asked for an end."""
    return bool(_asked)


def check() -> None:
    """Raises ``RunAgain`` if a signal asked for an end."""
    if _asked and not _deferred:
        raise stop("; whatever was finished is kept.")


def stop(text: str, where: str = "") -> RunAgain:
    """Returns what is raised for a signal; ``text`` says what was saved."""
    name, code = ("Ctrl-C", EXIT_INTERRUPTED) if signal.SIGINT in _asked else ("SIGTERM", EXIT_RUN_AGAIN)
    stopped = RunAgain(f"Stopped by {name}{text}", where=where, fix="run the same command again to go on")
    stopped.exit_code = code
    return stopped


def _note(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, _abort)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
            return
        frame = frame.f_back
    check()
