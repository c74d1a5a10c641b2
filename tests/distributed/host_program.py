"""One of two hosts that add up numbers; `test_distributed.py` starts them and says how the second comes to an end."""

import sys
import time

import jax
import numpy as np

from stilts_jax.distributed import initialize, leave_together
from stilts_jax.errors import DataError
from stilts_jax.sharding import MeshConfig, host_rows, make_mesh, shard_batch

HEARTBEAT = 10
ROWS = 8


def main(how: str) -> None:
    initialize(heartbeat_timeout=HEARTBEAT)
    mesh = make_mesh(MeshConfig(2, 1, 1))
    total = jax.jit(lambda batch: batch["label"].sum())
    labels = np.arange(ROWS, dtype=np.int32)[host_rows(mesh, ROWS)]
    for step in range(3):
        if step == 2 and jax.process_index() == 1:
            if how == "failed":
                raise DataError("This host's disk holds something else.", where="host")
            time.sleep(3600)  # "stuck": the other waits for it until somebody kills it
        assert int(total(shard_batch({"label": labels}, mesh))) == ROWS * (ROWS - 1) // 2


if __name__ == "__main__":
    with leave_together(HEARTBEAT):
        main(sys.argv[1])
