"""A profile of some training steps, for TensorBoard or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

FIRST = 10  # steps after the start that are left alone: they compile
COUNT = 10


class Traced:
    """``batch_at`` that profiles what happens between its calls, from the tenth to the twentieth."""

    def __init__(self, batch_at: Callable[[int], Any], folder: Path | None) -> None:
        self._batch_at, self._folder = batch_at, folder
        self._calls = 0
        self._running = False

    def __enter__(self) -> "Traced":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __call__(self, step: int) -> Any:
        """Returns the batch of ``step``."""
        if self._folder is not None:
            if self._calls == FIRST:
                jax.profiler.start_trace(str(self._folder))
                self._running = True
            elif self._calls == FIRST + COUNT:
                self._stop()
            self._calls += 1
        return self._batch_at(step)

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
