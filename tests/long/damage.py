"""A finished toy grid, damage to its files, and what a command makes of it; for tests and ``tests/long``."""

import contextlib
import io
import json
import shutil
import signal
import time
import traceback
from pathlib import Path

from stilts_jax.main import main


def cut(path, draw):
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) or 1)])


def flip(path, draw):
    content = bytearray(path.read_bytes()) or bytearray(b"x")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def zero(path, draw):
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content) or 1)
    content[start : start + 64] = bytes(len(content[start : start + 64]))
    path.write_bytes(content)


def empty(path, draw):
    path.write_bytes(b"")


def remove(path, draw):
    path.unlink()


def folder(path, draw):
    path.unlink()
    path.mkdir()


def other_type(path, draw):
    path.write_text(draw.choice(("[]", "{}", "null", "3", '"text"', '{"format": 99}', "[[[" * 9999)))


def change_value(path, draw):
    """Changes one digit, or one value of a JSON record to null; other files get a flipped bit."""
    try:
        record = json.loads(path.read_text())
        name = draw.choice(sorted(record))
    except (ValueError, TypeError):
        return flip(path, draw)
    content = path.read_text()
    digits = [place for place, letter in enumerate(content) if letter.isdigit()]
    if digits and draw.random() < 0.5:
        place = draw.choice(digits)
        content = f"{content[:place]}{(int(content[place]) + 1) % 10}{content[place + 1 :]}"
    else:
        content = json.dumps(record | {name: None})
    path.write_text(content)


DAMAGES = (cut, flip, zero, empty, remove, folder, other_type, change_value)


class Workdir:
    """A work directory with the command that filled it."""

    def __init__(self, path: Path, data: Path, encoder: Path) -> None:
        self.path, self.data, self.encoder = path, data, encoder

    def copy(self, path: Path) -> "Workdir":
        """Returns a copy of the work directory and of the encoder below ``path``."""
        shutil.copytree(self.path, path / "grid")
        shutil.copytree(self.encoder, path / "encoder")
        return Workdir(path / "grid", self.data, path / "encoder")

    def grid(self, *more: str) -> tuple[int, str]:
        """Runs the grid; every model and checkpoint is kept."""
        return run(
            "grid",
            "--config=toy:size=test",
            f"--data_root={self.data}",
            f"--workdir={self.path}",
            f"--config.encoder={self.encoder}",
            "--config.experiment.targets=udpos+tatoeba",
            "--config.experiment.keep=all",
            *more,
        )

    def files(self) -> dict[str, Path]:
        """Returns every file below the work directory by its relative path, and those of the encoder."""
        found = {f"encoder/{path.name}": path for path in sorted(self.encoder.iterdir()) if path.is_file()}
        below = sorted(path for path in self.path.rglob("*") if path.is_file())
        return {str(path.relative_to(self.path)): path for path in below} | found

    def scores(self) -> dict[str, dict]:
        """Returns the scores of every phase whose result is JSON."""
        found = {}
        for path in sorted(self.path.glob("phases/*/result.json")):
            with contextlib.suppress(ValueError, KeyError, TypeError, OSError, RecursionError):
                found[path.parent.name] = json.loads(path.read_text())["scores"]
        return found


def run(*arguments: str, limit: int = 300) -> tuple[int, str]:
    """Runs ``stilts`` in this process; returns its exit code (-1: a traceback, -2: it hung) and what it printed."""
    printed = io.StringIO()

    def stop(*_):
        raise TimeoutError("it hung")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    began = time.monotonic()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = main(list(arguments))
    except (Exception, SystemExit):
        code = -2 if time.monotonic() - began >= limit else -1
        printed.write(traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    text = printed.getvalue()
    return (-1 if "Traceback" in text and code != -2 else code), text
