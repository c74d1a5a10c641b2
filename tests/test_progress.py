import io

import pytest

from stilts_jax import progress as module
from stilts_jax.progress import Progress, format_seconds


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("seconds", "text"), [(7.6, "8 s"), (185, "3:05"), (7450, "2:04:10")])
def test_seconds_read_as_people_write_them(seconds, text):
    assert format_seconds(seconds) == text


def test_what_comes_once_does_not_count_towards_the_time_left(clock):
    """Loading and compiling before the first unit, and compiling another shape later."""
    with Progress(io.StringIO()).track("training", 10) as bar:
        clock[0] += 60.0
        bar.advance()
        assert bar.state == "1/10 steps  1:00"
        clock[0] += 2.0
        bar.advance()
        clock[0] += 42.0
        bar.aside = 40.0
        bar.advance()
        assert bar.state == "3/10 steps  0.5 steps/s  14 s left"


def test_a_run_that_goes_on_counts_its_own_steps_only(clock):
    with Progress(io.StringIO()).track("training", 100, start=89) as bar:
        bar.advance()
        clock[0] += 5.0
        bar.advance(5, loss=0.25)
        assert bar.state == "95/100 steps  loss 0.25  1 steps/s  5 s left"


def test_compiling_is_told_at_once_and_until_the_unit_is_done(clock):
    stream = Terminal()
    with Progress(stream).track("training", 4) as bar:
        bar.tell("compiling 2 of 6")
        assert stream.getvalue().endswith("training: 0/4 steps  compiling 2 of 6  0 s")
        clock[0] += 1.0
        bar.advance()
        assert stream.getvalue().endswith("training: 1/4 steps  1 s")


@pytest.mark.parametrize("columns", [30, 60, 200])
def test_a_redrawn_line_fits_the_window_and_leaves_nothing_behind(clock, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    progress = Progress(stream)
    with (
        pytest.raises(ValueError),
        progress.part("[1/2] phase"),
        progress.track("l" * 50, 1000, "rows") as bar,
    ):
        clock[0] += 1.0
        bar.advance()
        clock[0] += 1.0
        bar.advance()
        raise ValueError
    lines = stream.getvalue().split("\r\x1b[2K")
    assert len(lines) == 4 and lines[-1] == ""
    assert all(len(line) < columns for line in lines)
    assert all("000 rows" in line for line in lines[:-1]) or columns == 30


def test_a_log_gets_a_line_now_and_then_and_the_end(clock):
    stream = io.StringIO()
    with Progress(stream).track("rows", 100, "rows") as bar:
        for _ in range(40):
            clock[0] += 1.0
            bar.advance()
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "rows: 15/100 rows",
        "rows: 30/100 rows",
        "rows: 40/100 rows",
    ]


def test_a_terminal_has_one_line_that_is_redrawn_and_goes_away_after_short_work(clock):
    stream = Terminal()
    with Progress(stream).track("rows", 2, "rows") as bar:
        assert stream.getvalue() == "rows: 0/2 rows  0 s"
        clock[0] += 0.5
        bar.advance()
        assert stream.getvalue() == "rows: 0/2 rows  0 s\r\x1b[2Krows: 1/2 rows  0 s"
        clock[0] += 0.5
        bar.advance()
    assert stream.getvalue().endswith("\r\x1b[2K")
