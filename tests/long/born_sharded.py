"""Walks a state through its life on eight devices; prints by stage the bytes on each device and the share of one.

Run as a script with "tiny", or "xxl": the widths of XLM-R XXL with two layers and a vocabulary of 16,000. A stage's
peak is looked for by a thread that adds up the shards of all live arrays again and again while the stage runs.
"""

import contextlib
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

import stilts_jax as sj
from stilts_jax.checkpoint import Checkpoints
from stilts_jax.features.records import Features, Ragged
from stilts_jax.sharding import bytes_per_device, parameter_paths, state_shardings
from stilts_jax.train.vocabulary import PhaseVocabulary

SHAPES = {
    "tiny": replace(sj.SHAPES["tiny"], hidden_size=128, intermediate_size=512, vocab_size=4096),
    "xxl": replace(sj.SHAPES["xxl"], num_layers=2, vocab_size=16000),
}
ROWS = {"tokens": np.full((8, 8), 5, np.int32), "label": np.arange(8, dtype=np.int32) % 3}
CONFIG = sj.OptimizerConfig(learning_rate=1e-5, total_steps=10)
FOUND: dict[str, dict] = {}


def held() -> list[int]:
    """Returns the bytes on each device."""
    buffers: set[tuple[int, int, int]] = set()  # by place: an array's shards are live arrays too
    for array in jax.live_arrays():
        with contextlib.suppress(RuntimeError):  # deleted meanwhile
            for shard in array.addressable_shards if not array.is_deleted() else ():
                start = shard.data.unsafe_buffer_pointer()
                buffers.add((shard.device.id, start, start + shard.data.nbytes))
    found, ends = [0] * jax.device_count(), [0] * jax.device_count()
    for device, start, end in sorted(buffers):  # a view of another array holds nothing of its own
        found[device] += max(0, end - max(start, ends[device]))
        ends[device] = max(end, ends[device])
    return found


@contextlib.contextmanager
def stage(name: str, share: int):
    """Notes the peak on each device of what runs inside, beside the share of one."""
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
    FOUND[name] = {"peak": [max(device) for device in zip(*peak, held())], "share": share}


def check(name: str, tree, places) -> None:
    """Notes every array of ``tree`` that does not lie as the rules say."""
    wanted = dict(parameter_paths(places))
    FOUND[name]["wrong"] = [
        path
        for path, leaf in parameter_paths(tree)
        if leaf.sharding.shard_shape(leaf.shape) != wanted[path].shard_shape(leaf.shape)
    ]


def walk(folder: Path, mesh) -> None:
    """All stages, one after the other."""
    heads = (("nli", sj.HeadConfig(kind="classify", num_labels=3)),)
    model = sj.Model(SHAPES[sys.argv[1]], heads, sj.Compute(remat="full", attention="xla"))
    tx, key, loss = sj.make_optimizer(CONFIG), jax.random.key(0), sj.make_loss(model, "nli")
    abstract = jax.eval_shape(lambda: sj.init_state(model, tx, key))
    places = state_shardings(abstract, mesh)
    placed = partial(jax.tree.map, lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s))
    share = bytes_per_device(placed(abstract, places))
    with stage("initialise", share):
        state = jax.block_until_ready(sj.init_state(model, tx, key, mesh=mesh))
    check("initialise", state, places)
    encoder_share = bytes_per_device(state.params["encoder"])
    with stage("export", share):
        sj.export_encoder(folder / "exported", model.encoder, state.params["encoder"])
    del state
    with stage("load", share):
        loaded = sj.load_encoder(folder / "exported", sharding=partial(sj.shardings, mesh=mesh))
        state = jax.block_until_ready(sj.init_state(model, tx, key, encoder=loaded.params, mesh=mesh))
    check("load", state, places)
    del loaded
    step = partial(sj.train_step, loss_fn=loss, tx=tx, key=key)
    with stage("step", share):
        step = jax.jit(step, donate_argnums=0, out_shardings=(places, None))
        state, _ = jax.block_until_ready(step(state, ROWS))
    check("step", state, places)
    items = {"params": state.params, "moments": state.moments}
    with stage("save", share), Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(1, items, {})
        checkpoints.wait()
    wanted = placed(items, jax.tree.map(lambda a: a.sharding, items))
    del items, state
    with stage("restore", share), Checkpoints(folder / "checkpoints") as checkpoints:
        items = checkpoints.restore_newest(wanted)[1]
    check("restore", sj.TrainState(None, **items), places)
    params = items.pop("params")
    del items
    # Rows of the phase come out of the table, and the table comes back with them: one table beside the parameters.
    word = params["encoder"]["embeddings"]["word"]
    vocabulary = PhaseVocabulary.from_tokens([ROWS["tokens"]], model.encoder.vocab_size)
    with stage("vocabulary", bytes_per_device(params) + bytes_per_device(word)):
        small, word = vocabulary.shrink(params), np.asarray(word)
        del params
        small["encoder"]["embeddings"]["word"].block_until_ready()
        params = vocabulary.restore(small, word, optimizer=CONFIG, steps=1)
        del small
    check("vocabulary", sj.TrainState(None, params, None), places)
    part = {"encoder": params["encoder"], "head": params["heads"]["nli"]}
    with stage("evaluate", encoder_share):
        jax.block_until_ready(jax.jit(partial(sj.eval_step, loss_fn=loss))(part, ROWS))
    # What selects a model and scores it; on a CPU it reads an encoder that is not deep layer by layer.
    model = replace(model, compute=replace(model.compute, layers="written-out"))
    rows = {"tokens": Ragged.from_list(list(ROWS["tokens"])), "label": ROWS["label"]}
    rows |= {"example": np.arange(8), "language": np.zeros(8, int)}
    with stage("select", encoder_share):
        sj.predict(model, part, Features("classify", rows, ("en",), 8), head="nli", mesh=mesh)


if __name__ == "__main__":
    grid = sj.make_mesh(sj.MeshConfig(data=1, fsdp=4, tensor=2))
    with tempfile.TemporaryDirectory() as below, jax.set_mesh(grid):
        walk(Path(below), grid)
    print(json.dumps(FOUND))
