"""One host of a small training run; `test_distributed.py` starts one, two or more of them.

Arguments: folder for the record, steps, then (or empty) the host that comes to an end, at which step, and how.
"""

import hashlib
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

from stilts_jax.distributed import initialize, is_main, leave_together
from stilts_jax.errors import DataError
from stilts_jax.model.config import Compute, EncoderConfig, HeadConfig, Model
from stilts_jax.model.heads import init_params
from stilts_jax.sharding import MeshConfig, host_rows, make_mesh, shard_batch, state_shardings
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.state import init_state
from stilts_jax.train.step import train_step

HEARTBEAT = 10
ROWS = 8
ENCODER = EncoderConfig(vocab_size=128, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32)
MODEL = Model(ENCODER, (("task", HeadConfig(kind="classify", num_labels=3)),), Compute(attention="xla"))


def batch_at(step: int) -> dict[str, np.ndarray]:
    """The whole batch of a step, on every host."""
    random = np.random.default_rng((7, step))
    tokens = random.integers(4, 128, (ROWS, 16)).astype(np.int32)
    tokens[np.arange(16) >= random.integers(4, 17, (ROWS, 1))] = 1
    label = random.integers(0, 3, ROWS).astype(np.int32)
    return {"tokens": tokens, "label": label, "weight": np.ones(ROWS, np.float32)}


def end(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "failed":
        raise DataError("This host's disk holds something else.", where="host")
    time.sleep(3600)  # "stuck": the others wait for it until somebody kills it


def add_up(mesh: jax.sharding.Mesh, steps: int, end_at: int, how: str) -> None:
    """Only a collective a step; this host comes to an end at step ``end_at``."""
    total = jax.jit(lambda batch: batch["label"].sum())
    rows = host_rows(mesh, ROWS)
    for step in range(steps):
        if step == end_at:
            end(how)
        int(total(shard_batch({"label": batch_at(step)["label"][rows]}, mesh)))


def train(mesh: jax.sharding.Mesh, steps: int) -> dict:
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3, total_steps=100))
    state = init_state(jax.jit(partial(init_params, MODEL))(jax.random.key(0)), optimizer.init)
    shardings = state_shardings(state, mesh, zero1=True)
    state = jax.device_put(jax.tree.map(np.asarray, state), shardings)
    step_function = jax.jit(
        partial(train_step, loss_fn=make_loss(MODEL, "task"), tx=optimizer, key=jax.random.key(3)),
        donate_argnums=0,
        out_shardings=(shardings, jax.sharding.NamedSharding(mesh, jax.P())),
    )
    rows = host_rows(mesh, ROWS)
    losses, norms, digests = [], [], {}
    for step in range(steps):
        placed = shard_batch({name: column[rows] for name, column in batch_at(step).items()}, mesh)
        for shard in placed["tokens"].addressable_shards:
            for row, values in zip(range(ROWS)[shard.index[0]], np.asarray(shard.data)):
                digests[f"{step}/{row}"] = hashlib.sha256(values.tobytes()).hexdigest()
        with jax.set_mesh(mesh):
            state, metrics = step_function(state, placed)
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
    return {"losses": losses, "norms": norms, "digests": digests, "main": is_main()}


def main() -> None:
    folder, steps, victim, end_at, how = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
    initialize(heartbeat_timeout=HEARTBEAT)
    mesh = make_mesh(MeshConfig(2, 2, 1))
    if victim:
        add_up(mesh, steps, int(end_at) if victim == str(jax.process_index()) else -1, how)
    else:
        (folder / f"host{jax.process_index()}.json").write_text(json.dumps(train(mesh, steps)))


if __name__ == "__main__":
    with leave_together(HEARTBEAT):
        main()
