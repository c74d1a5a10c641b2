"""What a process keeps of freed memory, and when it gives it back."""

import subprocess
import sys

import pytest

from stilts_jax.host_memory import total_memory

PROGRAM = """
from stilts_jax import host_memory

host_memory.keep_freed_memory()
freed, before = host_memory.FreedMemory(), host_memory.held_memory()
blocks = [(bytearray(b"1" * 2**20), bytearray(1000)) for _ in range(100)]
blocks = [small for _, small in blocks]  # those between them stay
freed.return_if_short()
print((host_memory.held_memory() - before) >> 20)
host_memory.total_memory = host_memory.held_memory  # nothing is left
freed.return_if_short()
print((host_memory.held_memory() - before) >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_what_was_freed_is_kept_until_it_is_returned():
    freed, returned = map(int, subprocess.check_output([sys.executable, "-c", PROGRAM]).split())
    assert freed > 90 and returned < 10


@pytest.mark.parametrize("place", ["memory.max", "job/memory.max", "memory/job/memory.limit_in_bytes"])
def test_limits_of_the_process_and_of_what_it_runs_in_hold(tmp_path, place):
    groups = "4:memory:/job\n0::/job/step\n"
    for name, text in ((f"sys/fs/cgroup/{place}", "1000\n"), ("proc/self/cgroup", groups)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert total_memory(tmp_path) == 1000
