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
    with Progress(io.StringIO()).track("training", 10) as bar:
        clock[0] += 62.0  # 60 of them compiling
        bar.aside = 60.0
        bar.advance()
        assert bar.line() == "training: 1/10 steps  0.5 steps/s  18 s left"


def test_a_step_that_was_only_sent_off_tells_no_rate(clock):
    with Progress(io.StringIO()).track("training", 10) as bar:
        clock[0] += 60.003
        bar.aside = 60.0
        bar.advance()
        assert bar.line() == "training: 1/10 steps  1:00"


def test_a_run_that_goes_on_counts_its_own_steps_only(clock):
    with Progress(io.StringIO()).track("training", 100, start=90) as bar:
        clock[0] += 5.0
        bar.advance(5, loss=0.25)
        assert bar.line() == "training: 95/100 steps  loss 0.25  1 steps/s  5 s left"


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
        clock[0] += 0.5
        bar.advance()
        assert stream.getvalue() == "rows: 1/2 rows  2 rows/s  0 s left"
        clock[0] += 0.5
        bar.advance()
    assert stream.getvalue().endswith("\r\x1b[2K")
