"""What the command line does whichever command runs."""

import os
import signal
import time

import pytest

from stilts_jax.commands import tasks
from stilts_jax.errors import EXIT_INTERRUPTED, EXIT_RUN_AGAIN
from stilts_jax.main import main


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, EXIT_RUN_AGAIN), (signal.SIGINT, EXIT_INTERRUPTED)]
)
def test_a_signal_outside_of_training_ends_with_its_code(monkeypatch, capsys, number, code):
    def work(arguments):
        os.kill(os.getpid(), number)
        time.sleep(60)
        return 0

    monkeypatch.setattr(tasks, "run", work)
    before = signal.getsignal(number)
    assert main(["tasks"]) == code
    assert signal.getsignal(number) is before
    assert "run the same command again" in capsys.readouterr().err
