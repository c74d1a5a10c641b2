"""What a process keeps of freed memory, and when it gives it back."""

import subprocess
import sys

import pytest

PROGRAM = """
from stilts_jax import host_memory

host_memory.keep_freed_memory()
freed, before = host_memory.FreedMemory(), host_memory.held_memory()
blocks, kept = [], []
for _ in range(100):  # blocks with small ones between them, that stay
    blocks.append(bytearray(b"1" * 2**20))
    kept.append(bytearray(1000))
del blocks
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
