"""What a process of several does alone; tests/long/test_hosts.py and test_processes.py run two."""

import jax
import pytest
from jax.experimental import multihost_utils

from stilts_jax import distributed
from stilts_jax.distributed import _explicit_place, _read_heartbeat, is_preempted, leave_together
from stilts_jax.errors import ConfigError


def test_a_signal_between_phases_is_not_lost(monkeypatch):
    """All hosts stop at the number that they agreed on: it must come again, whichever phase is at work then."""
    asked = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        multihost_utils, "reached_preemption_sync_point", lambda number: asked.append(number) or False
    )
    assert not any(is_preempted() for _ in range(5))
    assert asked == list(range(asked[0], asked[0] + 5))


def test_memory_that_runs_out_on_all_hosts_fails_one_phase_only(monkeypatch):
    """All come to the barrier, so all go on together: nobody ends the others."""

    class Service:
        def wait_at_barrier(self, name, timeout_in_ms):
            asked.append(name)

    asked = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "_client", Service)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"), leave_together():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")
    assert len(asked) == 1


PLACE = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


def test_the_place_of_a_process() -> None:
    assert _explicit_place(PLACE) == ("a:1", 4, 3) and _explicit_place({}) is None
    for name, value in (("COORDINATOR_ADDRESS", "a"), ("PROCESS_ID", "4"), ("NUM_PROCESSES", "")):
        with pytest.raises(ConfigError, match="needs all three"):
            _explicit_place(PLACE | {f"JAX_{name}": value})


@pytest.mark.parametrize("text", ["soon", "-1", "0", "1.5", "٣"])
def test_a_heartbeat_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("STILTS_HEARTBEAT", text)
    with pytest.raises(ConfigError, match="STILTS_HEARTBEAT"):
        _read_heartbeat()
