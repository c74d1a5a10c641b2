"""A tiny encoder with random weights."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from stilts_jax.model import SHAPES, HeadConfig, Model, apply_model, init_params

HEADS = {
    "classify": HeadConfig(kind="classify", num_labels=3),
    "choice": HeadConfig(kind="choice"),
    "span": HeadConfig(kind="span"),
}


@pytest.fixture(scope="session")
def encoder_config():
    return replace(SHAPES["tiny"], num_layers=3)


@pytest.fixture(scope="session")
def model(encoder_config):
    return Model(encoder_config, tuple(HEADS.items()))


@pytest.fixture(scope="session")
def params(model):
    """Wide embeddings, attention and heads, so that predictions differ from token to token."""
    drawn = init_params(model, jax.random.key(0))
    for name in ("word", "position"):
        drawn["encoder"]["embeddings"][name] = 50 * drawn["encoder"]["embeddings"][name]
    attention = drawn["encoder"]["layers"]["attention"]
    for name in ("query", "key", "value", "output"):
        attention[name]["kernel"] = 12 * attention[name]["kernel"]
    drawn["heads"] = jax.tree.map(lambda leaf: 20 * leaf if leaf.ndim == 2 else leaf, drawn["heads"])
    return drawn


@pytest.fixture(scope="session")
def head_params(params):
    """``{"encoder", "head"}`` of one head."""
    return lambda head: {"encoder": params["encoder"], "head": params["heads"][head]}


@pytest.fixture(scope="session")
def run_at_once(model, head_params):
    """Runs token rows as one batch in their own order, all padded to one length: outputs as numpy."""

    def run(head, rows, length=48, **arrays):
        tokens = np.full((len(rows), length), 1, np.int32)
        for row, ids in zip(tokens, rows):
            row[: len(ids)] = ids
        if head == "choice":
            tokens = tokens[:, None]
        apply = jax.jit(partial(apply_model, model, head=head))
        found = apply(head_params(head), {"tokens": tokens, **arrays})
        return {name: np.asarray(array) for name, array in found.items()}

    return run
