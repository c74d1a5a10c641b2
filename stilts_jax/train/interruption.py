"""SIGTERM and Ctrl-C: ask the loop to save and stop, and only then insist."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Interruption:
    """What was asked for since the run began."""

    def __init__(self) -> None:
        self.name = ""

    def is_due(self, step: int) -> bool:
        """Says whether to save and stop at this border between steps; the same on all hosts."""
        if jax.process_count() > 1:
            # The coordination service catches SIGTERM of any host and agrees on one step.
            if multihost_utils.reached_preemption_sync_point(step):
                self.name = self.name or "SIGTERM"
                return True
            return False
        return bool(self.name)


@contextmanager
def catch_interruption() -> Iterator[Interruption]:
    """Notes the first SIGTERM or Ctrl-C; a second Ctrl-C raises KeyboardInterrupt at once."""
    asked = Interruption()

    def note(number: int, frame: FrameType | None) -> None:
        if asked.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.name = signal.Signals(number).name

    # Only the main thread may set handlers; over several hosts they belong to the coordination service.
    caught = (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else ()
    if threading.current_thread() is not threading.main_thread():
        caught = ()
    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
