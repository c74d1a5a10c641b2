"""A profile of some training steps, for TensorBoard or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from stilts_jax.progress import Progress

FIRST = 10  # steps after the start that are left alone: they compile
COUNT = 10


class Traced:
    """``batch_at`` that profiles what happens between its calls: ten steps from the tenth on, earlier in a short run.

    Args:
        folder: for the profile; None profiles nothing.
        steps: of the whole run.
        progress: says where the profile is.
    """

    def __init__(
        self, batch_at: Callable[[int], Any], folder: Path | None, steps: int, progress: Progress
    ) -> None:
        self._batch_at, self._folder, self._progress = batch_at, folder, progress
        self._first = min(FIRST, steps // 2)
        self._calls = 0
        self._running = False

    def __enter__(self) -> "Traced":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._folder is not None and self._calls <= self._first:
            self._progress.say(f"warning: no profile was written, {self._calls} steps were left to take")

    def __call__(self, step: int) -> Any:
        """Returns the batch of ``step``."""
        if self._folder is not None:
            if self._calls == self._first:
                jax.profiler.start_trace(str(self._folder))
                self._running = True
            elif self._calls == self._first + COUNT:
                self._stop()
            self._calls += 1
        return self._batch_at(step)

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            self._progress.say(
                f"a profile of {min(self._calls - self._first, COUNT)} steps is in {self._folder}"
            )
