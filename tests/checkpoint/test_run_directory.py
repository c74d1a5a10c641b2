import os
import subprocess
import sys

import pytest

from stilts_jax.checkpoint import lock_run
from stilts_jax.errors import CheckpointError, LockedError

HOLD = """
import sys, time
from stilts_jax.checkpoint import lock_run
with lock_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    try:
        said = rf"pid {process.pid} on {os.uname().nodename}"
        with pytest.raises(LockedError, match=said), lock_run(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    assert str(process.pid) in (tmp_path / "run.holder").read_text()  # its record is still there
    for _ in range(2):
        with lock_run(tmp_path), pytest.raises(LockedError, match=str(os.getpid())), lock_run(tmp_path):
            pass


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe"])
def test_a_lock_that_is_no_plain_file_is_refused_and_nothing_is_overwritten(tmp_path, kind):
    (tmp_path / "run").mkdir()
    lock, other = tmp_path / "run/run.lock", tmp_path / "other"
    if kind == "folder":
        lock.mkdir()
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(other)
    if kind == "link":
        other.write_text("precious")
    with pytest.raises(CheckpointError, match="lock") as caught, lock_run(tmp_path / "run"):
        pass
    assert caught.value.where == str(lock) and not isinstance(caught.value, LockedError)
    assert other.read_text() == "precious" if kind == "link" else not other.exists()
