"""A tiny model, its batches and a run of it.

The parameters have the paths of the real ones, so that the real rules for shardings and weight decay apply.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from stilts_jax.model.layers import drop, row_keys, split
from stilts_jax.settings import TrainSettings
from stilts_jax.sharding import MeshConfig, make_mesh
from stilts_jax.train.loop import RunConfig, run_training
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import TrainState

VOCABULARY, WIDTH, LAYERS, CLASSES, LENGTH = 64, 8, 2, 3, 6


def make_params(seed=0, dtype=np.float32):
    random = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(random.normal(0, 0.3, shape).astype(dtype))

    return {
        "encoder": {
            "embeddings": {
                "word": normal(VOCABULARY, WIDTH),
                "norm": {"scale": jnp.ones(WIDTH, dtype), "bias": normal(WIDTH)},
            },
            "layers": {
                "ffn": {"up": {"kernel": normal(LAYERS, WIDTH, WIDTH), "bias": normal(LAYERS, WIDTH)}}
            },
        },
        "heads": {
            "labels": {"out": {"kernel": normal(WIDTH, CLASSES), "bias": normal(CLASSES)}},
            "mlm": {"bias": normal(VOCABULARY)},
        },
    }


def encode(encoder, tokens, key, dropout=0.1):
    """[B, T] -> [B, T, D]"""
    embeddings = encoder["embeddings"]
    hidden = embeddings["word"][tokens] * embeddings["norm"]["scale"] + embeddings["norm"]["bias"]

    def layer(hidden, item):
        weights, keys = item
        out = hidden + jnp.tanh(hidden @ weights["kernel"] + weights["bias"])
        return drop(out, dropout, keys), None

    keys = None if key is None else jnp.stack(split(row_keys(key, len(tokens)), LAYERS))
    return jax.lax.scan(layer, hidden, (encoder["layers"]["ffn"]["up"], keys))[0]


def label_loss(params, batch, key):
    out = params["head"]["out"]
    hidden = encode(params["encoder"], batch["tokens"], key).mean(1)
    scores = jax.nn.log_softmax(hidden @ out["kernel"] + out["bias"])
    losses = -jnp.take_along_axis(scores, batch["label"][:, None], 1)[:, 0]
    return (losses * batch["weight"]).sum(), batch["weight"].sum(), {}


def word_loss(params, batch, key):
    """Every token predicts itself, by a full softmax over the word embeddings."""
    hidden = encode(params["encoder"], batch["tokens"], key)
    scores = jax.nn.log_softmax(hidden @ params["encoder"]["embeddings"]["word"].T + params["head"]["bias"])
    losses = -jnp.take_along_axis(scores, batch["tokens"][..., None], 2)[..., 0]
    weight = batch["weight"][:, None] * (batch["tokens"] != 1)
    return (losses * weight).sum(), weight.sum(), {}


label_loss.head, word_loss.head = "labels", "mlm"


def without_dropout(loss):
    def same(params, batch, key):
        return loss(params, batch, None)

    same.head = loss.head
    return same


LOSSES = {"labels": label_loss, "mlm": word_loss}


def batch_at(step, *, rows=8, tasks=("labels", "labels", "mlm"), vocabulary=VOCABULARY):
    random = np.random.default_rng(100 + step)
    tokens = random.integers(4, vocabulary, (rows, LENGTH + 2 * (step % 2)))
    tokens[rows // 2 :, -2:] = 1
    arrays = {
        "tokens": tokens.astype(np.int32),
        "label": (tokens[:, 0] % CLASSES).astype(np.int32),
        "weight": np.ones(rows, np.float32),
    }
    return SimpleNamespace(task=tasks[step % len(tasks)], arrays=arrays, rows=np.arange(rows) + rows * step)


def one_device():
    return make_mesh(MeshConfig(), jax.devices()[:1])


def run(directory, *, steps=24, mesh=None, batch=batch_at, watch=lambda: None, select=None, **train):
    optimizer = OptimizerConfig(learning_rate=1e-2, total_steps=steps)
    probe = batch_at(999, rows=64, tasks=("labels",))

    def score(params):
        watch()
        active = {"encoder": params["encoder"], "head": params["heads"]["labels"]}
        return -float(label_loss(active, probe.arrays, None)[0])

    config = RunConfig(
        optimizer=optimizer,
        losses=LOSSES,
        batch_at=lambda step: (watch(), batch(step))[1],
        directory=directory,
        mesh=mesh or one_device(),
        seed=3,
        train=TrainSettings(**({"log_every": 1, "eval_every": 6, "checkpoint_every": 4} | train)),
        select=select or score,
        accumulation=2,
    )
    return run_training(TrainState.create(make_params(), make_optimizer(optimizer)), config)
