"""What a process keeps of freed memory, and when it gives it back."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from pathlib import Path
from stilts_jax import host_memory

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20

host_memory.keep_freed_memory()
before = megabytes()
kept = []
for _ in range(100):  # blocks with small ones between them, that stay
    kept.append((bytearray(b"1" * 2**20), bytearray(1000)))
blocks = [kept.pop()[0] for _ in range(len(kept))]
del blocks
host_memory.return_surplus_memory()  # it is no surplus
freed = megabytes() - before
host_memory._SHARE = 10 * 2**20 / host_memory.total_memory()
host_memory.return_surplus_memory()
print(freed, megabytes() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_what_was_freed_is_kept_until_it_is_returned():
    freed, returned = map(int, subprocess.check_output([sys.executable, "-c", PROGRAM]).split())
    assert freed > 90
    assert returned < 10
