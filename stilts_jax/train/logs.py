"""Two logs of JSON lines: ``metrics.jsonl`` is deterministic; ``timings.jsonl`` depends on the hardware."""

import hashlib
import json
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from stilts_jax.chips import find_chip
from stilts_jax.errors import CheckpointError, ConfigError
from stilts_jax.files import is_remote, naming
from stilts_jax.progress import Progress
from stilts_jax.tokenization import PAD_ID


class JsonLines:
    """A file of JSON lines that can be cut back to its size at a checkpoint; only the first host has it ``enabled``.

    An object store can't append, so there it is written anew at each ``sync``.
    """

    def __init__(self, path: str | os.PathLike, *, enabled: bool = True) -> None:
        self._path, self._enabled, self._appends = epath.Path(path), enabled, enabled and not is_remote(path)
        self._text = bytearray(self._path.read_bytes() if enabled and self._path.exists() else b"")

    def cut(self, size: int) -> None:
        """Drops everything after the first ``size`` bytes."""
        del self._text[size:]
        if self._appends and self._path.exists():
            os.truncate(self._path, len(self._text))

    def digest(self) -> str:
        """Returns a hash of all lines; empty on hosts that write none."""
        return hashlib.sha256(self._text).hexdigest() if self._enabled else ""

    def write(self, record: Mapping[str, Any]) -> None:
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode() if self._enabled else b""
        self._text += line
        if self._appends:
            with naming(self._path), open(self._path, "ab") as file:
                file.write(line)

    def sync(self) -> int:
        """Makes sure that the lines are on disk; returns the size of the file."""
        if self._appends:
            with naming(self._path), open(self._path, "ab") as file:
                os.fsync(file.fileno())
        elif self._enabled:
            self._path.write_bytes(self._text)
        return len(self._text)

    def curve(self) -> list[list[float]]:
        """Returns [[step, loss], ...] of its lines."""
        points = []
        for line in self._text.splitlines():
            # A damaged line is left out; that the file is damaged was said when the run went on.
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                record = json.loads(line)
                if record.get("loss") is not None:
                    points.append([record["step"], record["loss"]])
        return points


class Board:
    """A copy of the numbers for TensorBoard, which hides what earlier launches wrote of ``step`` and later ones."""

    def __init__(self, folder: str, step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            what, fix = "TensorBoard's writer is not installed.", "pip install tensorboardX"
            raise ConfigError(what, where="tensorboard", fix=fix) from error
        # A queue without a limit: the thread that empties it ends with the first error, and would be waited for.
        self._folder, self._writer = Path(folder), SummaryWriter(folder, purge_step=step, max_queue=0)
        # Nothing public says whether that thread lives; a later writer may call it otherwise.
        self._thread = getattr(self._writer.file_writer.event_writer, "_worker", None)

    def show(self, record: Mapping[str, Any]) -> None:
        """Takes the numbers of a line."""
        if self._thread and not self._thread.is_alive():
            what = "TensorBoard's files are no longer written: their writer has ended with an error."
            fix = "look after the disk, then run the same command again; or leave train.tensorboard out"
            raise CheckpointError(what, where=str(self._folder), fix=fix)
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])

    def flush(self) -> None:
        with naming(self._folder):
            self._writer.flush()

    def close(self) -> None:
        with naming(self._folder):
            self._writer.close()


@dataclass
class Work:
    """How much was done in how much time, added up over all launches of a run."""

    steps: int = 0
    examples: int = 0
    tokens: int = 0  # of the batch arrays, padding included
    real_tokens: int = 0
    seconds: float = 0.0  # of training: without compiling, evaluating and saving
    compile_seconds: float = 0.0
    compilations: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*map(operator.add, vars(self).values(), vars(other).values()))

    def __sub__(self, other: "Work") -> "Work":
        return Work(*map(operator.sub, vars(self).values(), vars(other).values()))

    def rates(self, flops_per_token: float | None) -> dict[str, float]:
        """Returns speeds as the log and the result show them.

        ``mfu``, the share of the devices' peak that the model itself uses, counts neither padding nor what
        rematerialisation computes again. It is left out unless ``flops_per_token`` and the peak are known.
        """
        seconds, chip = max(self.seconds, 1e-9), find_chip(jax.devices()[0].device_kind)
        rates = {
            "examples_per_second": self.examples / seconds,
            "real_tokens_per_second": self.real_tokens / seconds,
            "padding_share": 1 - self.real_tokens / self.tokens if self.tokens else 0.0,
        }
        if flops_per_token and chip and chip.flops:
            rates["mfu"] = flops_per_token * self.real_tokens / seconds / (chip.flops * jax.device_count())
        return rates


def device_memory() -> int | None:
    """Returns the peak memory of this host's first device in bytes, if the device reports it."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def count_rows(arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> Work:
    """Returns the rows of a batch, its positions, and how many are not padding; filler rows are padding too."""
    real = np.asarray(rows) >= 0
    work = Work(examples=int(real.sum()))
    for name in ("tokens", "pair_tokens"):
        if name in arrays:
            work += Work(tokens=arrays[name].size, real_tokens=int((arrays[name][real] != PAD_ID).sum()))
    return work


def best_step(history: Sequence[Sequence[float]]) -> int | None:
    """Returns the step with the highest score in [[step, score], ...], the first of them if several share it."""
    return int(max(history, key=operator.itemgetter(1))[0]) if history else None


@contextmanager
def profile_steps(folder: Path | None, steps: int, progress: Progress) -> Iterator[Callable[[], None]]:
    """Gives what is to be called before every step; given a ``folder``, ten are profiled for TensorBoard or Perfetto.

    They begin with the tenth, as the first ones compile, or earlier where few ``steps`` are left.
    """
    first, count, begun = min(10, steps // 2), 10, 0

    def mark_step() -> None:
        nonlocal begun
        if folder and begun == first:
            say = lambda: progress.say(f"a profile of {min(begun - first, count)} steps is in {folder}")  # noqa: E731
            stack.callback(say)
            stack.enter_context(jax.profiler.trace(str(folder)))
        elif begun == first + count:
            stack.close()
        begun += 1

    with ExitStack() as stack:
        yield mark_step
    if folder and begun <= first:
        progress.say(f"warning: no profile was written, {begun} steps were left to take")
