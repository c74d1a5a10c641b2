"""One display of progress that a person can read, on a terminal and in a log file.

A terminal gets one line that is redrawn; anything else gets a plain line now and then, so that a log of a
long run stays short (tqdm and rich redraw in both). Code that works for long takes a ``Progress`` and does not print by
itself.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from stilts_jax.interruption import check

_TERMINAL_INTERVAL = 0.2  # seconds between redraws: often enough to look alive
_LOG_INTERVAL = 15.0  # seconds between lines where nothing can be redrawn
_WORTH_A_LINE = 3.0  # seconds that work must have taken for its end to stay on the screen or in the log


def format_seconds(seconds: float) -> str:
    """Returns a duration as people write it: ``8 s``, ``3:05``, ``2:04:10``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


def seconds_since_start() -> float | None:
    """Returns for how long this process has run; None where the system does not say."""
    try:
        started = float(Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()[19])
    except (OSError, ValueError):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


class Bar:
    """The progress of one piece of work; made by ``Progress.track``.

    Attributes:
        aside: seconds that went into what does not come with every unit (compiling); the rate leaves them out.
    """

    def __init__(self, progress: "Progress", label: str, total: int | None, unit: str, start: int) -> None:
        self.label, self._progress = label, progress
        self._total, self._unit, self._done = total, unit, start
        self._values: dict[str, float | str] = {}
        self._began = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._note = ""
        self.aside = 0.0

    def tell(self, note: str) -> None:
        """Says what the work waits for (compiling), until the next unit is done."""
        if note:
            self._note = note
            self._progress.draw(self, at_once=True)

    def advance(self, count: int = 1, **values: float | str) -> None:
        """Counts ``count`` more units as done; ``values`` (such as ``loss=0.3``) are shown behind."""
        self._done += count
        self._note = ""
        self._values.update(values)
        if self._first is None:
            self._first = self._done, time.monotonic() - self.aside
        check()
        self._progress.draw(self)

    @property
    def elapsed(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self._began

    @property
    def state(self) -> str:
        """How far the work has come."""
        # The first unit came with all that is done only once, such as loading and compiling.
        done, began = self._first or (self._done, 0.0)
        worked = time.monotonic() - self.aside - began
        rate = (self._done - done) / worked if self._done > done and worked > 0 else 0.0
        parts = [f"{self._done}/{self._total} {self._unit}" if self._total else f"{self._done} {self._unit}"]
        if self._note:
            parts.append(self._note)
        for name, value in self._values.items():
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
        if rate:
            parts.append(f"{rate:,.0f} {self._unit}/s" if rate >= 100 else f"{rate:.3g} {self._unit}/s")
        if self._total and rate and self._done < self._total:
            parts.append(f"{format_seconds((self._total - self._done) / rate)} left")
        else:
            parts.append(format_seconds(self.elapsed))
        return "  ".join(parts)


class Progress:
    """Writes progress to a stream (standard error by default); to None it writes nothing."""

    def __init__(self, stream: TextIO | None = sys.stderr) -> None:
        self._stream = stream
        self._terminal = bool(stream and stream.isatty())
        self._last_draw, self._last_line = time.monotonic(), ""
        self._open_line = False
        self._prefix = ""

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        self._write(f"{self._prefix}{text}\n")

    @contextmanager
    def part(self, prefix: str) -> Iterator[None]:
        """Puts ``prefix`` (such as ``[3/12] mnli``) before every line inside the block."""
        before, self._prefix = self._prefix, f"{self._prefix}{prefix} "
        try:
            yield
        finally:
            self._prefix = before

    @contextmanager
    def track(
        self, label: str, total: int | None = None, unit: str = "steps", start: int = 0
    ) -> Iterator[Bar]:
        """Shows how far a piece of work has come.

        Args:
            label: what is being done.
            total: how many units there are; None where that is not known.
            unit: what is counted.
            start: units that an earlier run had done already.
        """
        bar = Bar(self, label, total, unit, start)
        if self._terminal:  # at once: what comes first may take long
            self.draw(bar, at_once=True)
        try:
            yield bar
        except BaseException:
            self._write("")  # what is printed now begins on a line of its own
            raise
        if bar.elapsed >= _WORTH_A_LINE:
            self.draw(bar, final=True)
        else:
            self._write("")

    def draw(self, bar: Bar, *, final: bool = False, at_once: bool = False) -> None:
        """Shows how far ``bar`` has come, unless the last line is fresh and this is not wanted ``at_once``."""
        now, interval = time.monotonic(), _TERMINAL_INTERVAL if self._terminal else _LOG_INTERVAL
        if not (final or at_once) and now - self._last_draw < interval:
            return
        state = bar.state
        line = f"{self._prefix}{bar.label}: {state}"
        if line == self._last_line and not self._terminal:
            return  # the end came with the last unit
        self._last_draw, self._last_line = now, line
        stays = final or not self._terminal
        width = shutil.get_terminal_size().columns - 1
        if not stays and len(line) > width:  # a line that wraps could not be cleared
            line = f"{line[: max(0, width - len(state) - 3)]}…: {state}"[:width]
        self._write(line + "\n" * stays)
        self._open_line = not stays

    def _write(self, text: str) -> None:
        """Writes ``text`` in the place of the line that is redrawn."""
        if self._stream and (text or self._open_line):
            self._stream.write("\r\x1b[2K" * self._open_line + text)
            self._stream.flush()
        self._open_line = False


SILENT = Progress(None)
