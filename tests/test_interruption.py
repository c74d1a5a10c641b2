"""What a signal does where it arrives: raised, put off until a check, ignored, or insisted on."""

import contextlib
import signal

import jax
import pytest

from stilts_jax import interruption
from stilts_jax.errors import EXIT_INTERRUPTED, EXIT_RUN_AGAIN, RunAgain
from stilts_jax.progress import SILENT

pytestmark = pytest.mark.usefixtures("usual_handlers")
CODES = {signal.SIGTERM: EXIT_RUN_AGAIN, signal.SIGINT: EXIT_INTERRUPTED}


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_nothing_loses_a_signal(number, code):
    def swallowing():
        with contextlib.suppress(BaseException):
            signal.raise_signal(number)

    def below_jax():
        # Raised here it would stop in the middle of JAX.
        jax.tree.map(lambda _: signal.raise_signal(number), [1])

    def put_off():
        with interruption.deferred():
            signal.raise_signal(number)
            interruption.check()

    for arrive in (swallowing, below_jax, put_off):
        with interruption.catch_signals():
            arrive()
            assert interruption.is_asked()
            for _ in range(2):  # again and again
                with pytest.raises(RunAgain) as caught, SILENT.track("work") as bar:
                    bar.advance()
                assert caught.value.exit_code == code
    with interruption.catch_signals():
        interruption.check()  # what came before is over


def test_a_second_ctrl_c_aborts_and_a_second_sigterm_does_not():
    with interruption.catch_signals(), interruption.deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_stays_ignored_where_it_was():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruption.catch_signals():
        signal.raise_signal(signal.SIGINT)
        with interruption.catch_signals():  # of a training loop inside of the command
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert not interruption.is_asked()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
