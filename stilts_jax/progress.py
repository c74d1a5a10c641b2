"""One display of progress: a line that is redrawn on a terminal, a plain line now and then in a log file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

from stilts_jax.interruption import check

_STARTED = time.monotonic()
_TERMINAL_INTERVAL, _LOG_INTERVAL = 0.2, 15.0  # seconds between lines
_WORTH_A_LINE = 3.0  # seconds that work must have taken for its end to stay on the screen or in the log
_LOG_LINE = "{desc}: {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def format_seconds(seconds: float) -> str:
    """Returns a duration as people write it: ``8 s``, ``3:05``, ``2:04:10``."""
    return tqdm.format_interval(round(seconds)).removeprefix("0") if seconds >= 59.5 else f"{seconds:.0f} s"


def counted(count: int, name: str, ending: str = "s") -> str:
    """Returns a number of things as people write it: ``1 row``, ``2 rows``; ``ending`` is that of several."""
    return f"{count} {name}{ending * (count != 1)}"


def seconds_since_start() -> float:
    """Returns for how long this program has run: since a command, or somebody's notebook, imported this."""
    return time.monotonic() - _STARTED


@contextmanager
def _unheard() -> Iterator[None]:
    """Work goes on where nobody can be told of it: the log's disk is full, the terminal is gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass


class Bar(tqdm):
    """The progress of one piece of work; made by ``Progress.track``."""

    monitor_interval = 0  # no thread beside ours
    disable: bool
    _note = ""
    _shown: tuple[int, str | None] = 0, None  # in a log's last line

    def tell(self, note: str) -> None:
        """Says what the work waits for (compiling), until the next unit is done."""
        self._note = note
        self.set_postfix_str(note)

    def advance(self, count: int = 1, **values: float | str) -> None:
        """Counts ``count`` more units as done; ``values`` (such as ``loss=0.3``) are shown behind."""
        check()
        if self.disable:
            return
        if values or self._note:
            self.set_postfix(values, refresh=False)
        if self._note:  # what was waited for says nothing about the rate
            self._note, self.last_print_n, self.last_print_t = "", self.n + count, time.time()
        self.update(count)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Redraws the line, or writes one more."""
        with _unheard():
            if self.fp.isatty():
                return super().display(msg, pos)
            state = (self.n, self.postfix)
            if msg is None and state != self._shown and (self.n > self.initial or self._note):
                self._shown = state
                print(f"{self}\n", end="", file=self.fp, flush=True)
        return True

    def close(self) -> None:
        """Leaves the line where the work took long, else takes it away."""
        if not self.disable:
            self.leave = self.format_dict["elapsed"] >= _WORTH_A_LINE
            if not self.fp.isatty():
                if self.leave:
                    self.display()
                self.sp = None  # so that nothing is written that moves a cursor
        super().close()


class Progress:
    """Writes progress to a stream (standard error by default); to None it writes nothing."""

    def __init__(self, stream: TextIO | None = sys.stderr) -> None:
        self._stream, self._terminal = stream, stream is not None and stream.isatty()
        self._prefix, self._said = "", set[str]()

    def say(self, text: str, *, once: bool = False) -> None:
        """Writes a line that stays; with ``once`` only the first time, in whatever part."""
        if once and text in self._said:
            return
        self._said.add(text)
        with _unheard():
            if self._terminal:
                tqdm.write(f"{self._prefix}{text}", file=self._stream)  # above the bar
            elif self._stream:
                print(f"{self._prefix}{text}\n", end="", file=self._stream, flush=True)

    @contextmanager
    def part(self, prefix: str) -> Iterator[None]:
        """Puts ``prefix`` (such as ``[3/12] mnli``) before every line inside the block."""
        before, self._prefix = self._prefix, f"{self._prefix}{prefix} "
        try:
            yield
        finally:
            self._prefix = before

    def track(self, label: str, total: int | None = None, unit: str = "steps", start: int = 0) -> Bar:
        """Shows how far a piece of work has come, of which an earlier run had done ``start`` units already."""
        return Bar(
            desc=f"{self._prefix}{label}",
            total=total,
            initial=start,
            unit=f" {unit}",
            file=self._stream,
            disable=self._stream is None,
            dynamic_ncols=True,
            mininterval=_TERMINAL_INTERVAL if self._terminal else _LOG_INTERVAL,
            miniters=1,
            bar_format=None if self._terminal else _LOG_LINE,
        )


SILENT = Progress(None)
