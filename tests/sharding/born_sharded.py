"""Walks a state through its life on eight devices and prints, stage by stage, GiB a device against its share.

Run as a script with "tiny", or "xxl": the widths of XLM-R XXL with two layers and a vocabulary of 16,000. A stage's
peak is looked for by a thread that adds up the shards of all live arrays again and again while the stage runs.
"""

import contextlib
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

import stilts_jax as sj
from stilts_jax.checkpoint import Checkpoints
from stilts_jax.sharding import bytes_per_device, parameter_paths, state_shardings
from stilts_jax.train.vocabulary import PhaseVocabulary

SHAPES = {
    "tiny": replace(sj.SHAPES["tiny"], hidden_size=128, intermediate_size=512, vocab_size=4096),
    "xxl": replace(sj.SHAPES["xxl"], num_layers=2, vocab_size=16000),
}
ROWS = {"tokens": np.full((8, 8), 5, np.int32), "label": np.arange(8, dtype=np.int32) % 3}


def held() -> int:
    """Returns the bytes on the device that holds most."""
    buffers: dict[tuple[int, int], int] = {}  # by place: an array's shards are live arrays too
    for array in jax.live_arrays():
        with contextlib.suppress(RuntimeError):  # deleted meanwhile
            for shard in array.addressable_shards if not array.is_deleted() else ():
                buffers[shard.device.id, shard.data.unsafe_buffer_pointer()] = shard.data.nbytes
    found: Counter = Counter()
    for (device, _), size in buffers.items():
        found[device] += size
    return max(found.values(), default=0)


class Stages:
    """Peaks and shares by stage, and which arrays lie whole on a device although the mesh cuts them."""

    def __init__(self, places: dict) -> None:
        self.found: dict[str, dict] = {}
        self.places = places

    @contextlib.contextmanager
    def stage(self, name: str, share: int):
        """Watches what runs inside."""
        peak, stopped = [held()], threading.Event()

        def look() -> None:
            while not stopped.is_set():
                peak.append(held())
                time.sleep(0.05)

        watch = threading.Thread(target=look)
        watch.start()
        try:
            yield
        finally:
            stopped.set()
            watch.join()
        self.found[name] = {"peak": max(*peak, held()), "share": share}

    def check(self, name: str, tree) -> None:
        """Notes every array of ``tree`` that does not lie as the rules say."""
        wanted = dict(parameter_paths(self.places))
        self.found[name]["wrong"] = [
            path
            for path, leaf in parameter_paths(tree)
            if leaf.sharding.shard_shape(leaf.shape) != wanted[path].shard_shape(leaf.shape)
        ]


def main() -> None:
    shape = SHAPES[sys.argv[1]]
    mesh = sj.make_mesh(sj.MeshConfig(data=1, fsdp=4, tensor=2))
    model = sj.Model(
        shape,
        (("nli", sj.HeadConfig(kind="classify", num_labels=3)),),
        sj.Compute(remat="full", attention="xla"),
    )
    tx = sj.make_optimizer(sj.OptimizerConfig(learning_rate=1e-5, total_steps=10))
    key = jax.random.key(0)
    abstract = jax.eval_shape(lambda: sj.init_state(model, tx, key))
    places = state_shardings(abstract, mesh)
    share = bytes_per_device(
        jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, places)
    )
    stages = Stages(places)
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(mesh):
        walk(model, tx, key, mesh, places, share, stages, Path(folder))
    print(json.dumps(stages.found))


def walk(model, tx, key, mesh, places, share, stages, folder) -> None:
    """All stages, one after the other."""
    of_mesh = partial(sj.shardings, mesh=mesh)
    with stages.stage("initialise", share):
        state = jax.block_until_ready(sj.init_state(model, tx, key, mesh=mesh))
    stages.check("initialise", state)

    encoder_share = bytes_per_device(state.params["encoder"])
    with stages.stage("export", share):
        sj.export_encoder(folder / "exported", model.encoder, state.params["encoder"])
    del state
    with stages.stage("load", share):
        loaded = sj.load_encoder(folder / "exported", sharding=of_mesh)
        state = jax.block_until_ready(sj.init_state(model, tx, key, encoder=loaded.params, mesh=mesh))
    stages.check("load", state)
    del loaded

    step = jax.jit(
        partial(sj.train_step, loss_fn=sj.make_loss(model, "nli"), tx=tx, key=key),
        donate_argnums=0,
        out_shardings=(places, None),
    )
    with stages.stage("step", share):
        state, _ = jax.block_until_ready(step(state, ROWS))
    stages.check("step", state)

    items = {"params": state.params, "moments": state.moments}
    with stages.stage("save", share), Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(1, items, {})
        checkpoints.wait()
    wanted = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), items)
    del items, state
    with stages.stage("restore", share), Checkpoints(folder / "checkpoints") as checkpoints:
        items = checkpoints.restore_newest(wanted)[1]
    stages.check("restore", sj.TrainState(None, **items))
    params = items.pop("params")
    del items

    # Rows of the phase come out of the table, and the table comes back with them: one table beside the parameters.
    word = params["encoder"]["embeddings"]["word"]
    table = bytes_per_device(word)
    vocabulary = PhaseVocabulary.from_tokens([ROWS["tokens"]], model.encoder.vocab_size)
    with stages.stage("vocabulary", bytes_per_device(params) + table):
        small, word = vocabulary.shrink(params), np.asarray(word)
        del params
        small["encoder"]["embeddings"]["word"].block_until_ready()
        config = sj.OptimizerConfig(learning_rate=1e-5, total_steps=10)
        params = vocabulary.restore(small, word, optimizer=config, steps=1)
        del small
    stages.check("vocabulary", sj.TrainState(None, params, None))

    part = {"encoder": params["encoder"], "head": params["heads"]["nli"]}
    evaluate = jax.jit(partial(sj.eval_step, loss_fn=sj.make_loss(model, "nli")))
    with stages.stage("evaluate", encoder_share):
        jax.block_until_ready(evaluate(part, ROWS))


if __name__ == "__main__":
    main()
