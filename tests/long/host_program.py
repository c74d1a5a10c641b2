"""One of two hosts that add up numbers; `test_hosts.py` starts them and says how the second comes to an end."""

import sys
import time
from pathlib import Path

import jax
import numpy as np

from stilts_jax import distributed
from stilts_jax.checkpoint import Checkpoints
from stilts_jax.distributed import initialize, leave_together
from stilts_jax.errors import DataError
from stilts_jax.sharding import MeshConfig, make_mesh, shard_batch

ROWS = 8


def list_checkpoints(folder: Path) -> None:
    """Prints the steps in a folder that another host shows with another content, as shared file systems do a while."""
    seen = folder / f"seen by {jax.process_index()}"
    (seen / str(7 - jax.process_index())).mkdir(parents=True)
    print("steps", Checkpoints(seen, read_only=True).steps())


def main(how: str, folder: Path) -> None:
    if how == "looking":
        distributed._LOOK_EVERY = 0.0  # after the other all the time, as both end too
    initialize()
    if how == "listing":
        return list_checkpoints(folder)
    mesh = make_mesh(MeshConfig(2, 1, 1))
    total = jax.jit(lambda batch: batch["label"].sum())
    labels = np.arange(ROWS, dtype=np.int32)
    for step in range(3):
        if step == 2 and jax.process_index() == 1 and how != "looking":
            if how == "failed":
                raise DataError("This host's disk holds something else.", where="host")
            time.sleep(3600)  # "stuck": the other waits for it until somebody kills it
        assert int(total(shard_batch({"label": labels}, mesh))) == ROWS * (ROWS - 1) // 2


if __name__ == "__main__":
    with leave_together():
        main(sys.argv[1], Path(sys.argv[2]))
