import io

import pytest

from stilts_jax import progress as module
from stilts_jax.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    now = [100.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_and_the_end(clock):
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.part("[1/2] mnli"), progress.track("training", 100, start=60) as bar:
        for number in range(40):
            clock[0] += 1.0
            bar.advance(loss=number / 10)
        progress.say("saved")
    with progress.track("short", 2) as bar:
        bar.advance(2)
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        "[1/2] mnli training: 75/100 steps [00:15<00:25",
        "[1/2] mnli training: 90/100 steps [00:30<00:10",
        "[1/2] mnli saved",
        "[1/2] mnli training: 100/100 steps [00:40<00:00",
    ]
    assert " 1.00 steps/s, loss=1.4]" in stream.getvalue()


def test_what_holds_for_all_parts_is_said_once():
    stream = io.StringIO()
    progress = Progress(stream)
    for number in (1, 2):
        with progress.part(f"[{number}/2]"):
            progress.say("attention: xla", once=True)
            progress.say("saved")
    assert stream.getvalue().splitlines() == ["[1/2] attention: xla", "[1/2] saved", "[2/2] saved"]


def test_compiling_is_told_at_once_and_does_not_count_towards_the_time_left(clock):
    stream = io.StringIO()
    with Progress(stream).track("training", 50) as bar:
        for _ in range(20):
            clock[0] += 1.0
            bar.advance()
        bar.tell("compiling 2 of 6")
        assert stream.getvalue().splitlines()[-1].endswith("compiling 2 of 6]")
        clock[0] += 1000.0
        for _ in range(16):
            bar.advance()
            clock[0] += 1.0
    assert "36/50 steps [17:15<00:14,  1.00 steps/s]" in stream.getvalue()


def test_a_terminal_has_one_line_that_is_redrawn_and_goes_away_after_short_work(clock, monkeypatch):
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda stream: (60, 20))
    stream = Terminal()
    with Progress(stream).track("l" * 40, 1000, "rows") as bar:
        for _ in range(4):
            clock[0] += 0.25
            bar.advance(100)
    *drawn, last = stream.getvalue().split("\r")
    assert sum("00/1000" in line or "lll" in line for line in drawn) == 5 and not last.strip()
    assert all(len(line) <= 60 for line in drawn) and "\n" not in stream.getvalue()
