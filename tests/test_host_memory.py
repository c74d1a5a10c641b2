"""What a process keeps of freed memory, and when it gives it back."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from pathlib import Path
from stilts_jax.host_memory import keep_freed_memory, return_freed_memory

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20

keep_freed_memory()
before = megabytes()
kept = []
for _ in range(100):  # blocks with small ones between them, that stay
    block = bytearray(2**20)
    block[:] = b"1" * len(block)
    kept.append((block, bytearray(1000)))
blocks = [kept.pop()[0] for _ in range(len(kept))]
del blocks, block
freed = megabytes() - before
return_freed_memory()
print(freed, megabytes() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_what_was_freed_is_kept_until_it_is_returned():
    run = [sys.executable, "-c", PROGRAM]
    freed, returned = map(int, subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())
    assert freed > 90
    assert returned < 10
