import threading

import numpy as np
import pytest

from stilts_jax.batches.prefetch import made_ahead, prefetch
from stilts_jax.features.records import Batch


def running():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_results_come_in_order_whatever_finishes_first():
    gates = {step: threading.Event() for step in range(4)}
    gates[3].set()

    def make(step):
        # A step waits for the one behind it, so that they finish in the reverse order.
        assert gates[step].wait(10)
        if step:
            gates[step - 1].set()
        return step * step

    assert list(prefetch(make, range(4), threads=4, ahead=4)) == [0, 1, 4, 9]
    assert not running()


def test_no_more_is_made_than_asked_for():
    made = []
    batches = prefetch(lambda step: made.append(step) or step, range(100, 200), threads=1, ahead=3)
    assert made == []
    assert next(batches) == 100
    batches.close()
    assert len(made) <= 4 and not running()


def test_an_error_comes_where_its_batch_would_have_come():
    def make(step):
        if step == 2:
            raise ValueError("broken row")
        return step

    batches = prefetch(make, range(9), threads=2)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="broken row"):
        next(batches)
    assert not running()


def test_nothing_to_make():
    assert list(prefetch(lambda step: step, [])) == []


def test_batches_are_made_ahead_from_any_step():
    made = []

    def make(step):
        made.append(step)
        return Batch("t", {"tokens": np.array([step])}, np.zeros(1, int))

    with made_ahead(make, lambda arrays: {"tokens": 2 * arrays["tokens"]}) as batch_at:
        assert [int(batch_at(step).arrays["tokens"][0]) for step in (7, 8, 3, 4, 4)] == [14, 16, 6, 8, 8]
    assert not running() and {7, 8, 9, 3, 4, 5} <= set(made) and max(made) <= 12
