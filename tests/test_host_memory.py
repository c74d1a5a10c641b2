"""Large blocks are taken from the system once, whichever thread asks for them."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, threading
from stilts_jax.host_memory import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=bytearray, args=(200 * 2**20,))
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(new_pages(), new_pages())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_a_block_that_was_freed_is_used_again(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")

    def run(*arguments):
        command = [sys.executable, "-c", SCRIPT, *arguments]
        return [int(word) for word in subprocess.run(command, capture_output=True, check=True).stdout.split()]

    first, second = run("keep")
    assert first > 50 * second
    first, second = run()
    assert second > first / 2  # what would happen without us; large pages count alike in both


@pytest.mark.parametrize("platforms", ["tpu", "cuda,cpu"])
def test_beside_an_accelerator_the_c_library_is_left_alone(monkeypatch, platforms):
    from stilts_jax import host_memory

    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(host_memory.ctypes, "CDLL", None)
    host_memory.keep_freed_memory()
