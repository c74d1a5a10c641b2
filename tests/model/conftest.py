"""Small random encoders that hide no mistake: every norm, bias and pad row is something else than its default."""

import dataclasses

import jax
import numpy as np
import pytest

from stilts_jax.model import Compute, EncoderConfig, HeadConfig, abstract_encoder, init_head
from stilts_jax.model.heads import init_pooler

SMALL = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_layers": 3,
    "num_heads": 3,
    "intermediate_size": 40,
    "max_positions": 20,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
}


def perturbed(abstract, seed, dtype):
    """Random values for a tree of shapes; kernels keep activations of about one."""
    draw = np.random.default_rng(seed)

    def fill(path, leaf):
        name, values = path[-1].key, draw.normal(size=leaf.shape)
        if name == "kernel":
            values /= np.sqrt(leaf.shape[-2])
        return {"scale": 1 + 0.3 * values, "bias": 0.3 * values}.get(name, values).astype(dtype)

    return jax.tree_util.tree_map_with_path(fill, abstract)


class Maker:
    """Makes configurations, parameters and batches; a fixture, as test folders are no packages."""

    replace = staticmethod(dataclasses.replace)

    def config(self, family="xlm-roberta", **changes):
        return EncoderConfig(**{"family": family, **SMALL, **changes})

    def encoder(self, config, seed=0, dtype="float32"):
        return perturbed(abstract_encoder(config), seed, dtype)

    def head(self, config, head, seed=1, dtype="float32"):
        return perturbed(jax.eval_shape(lambda: init_head(head, config, jax.random.key(0))), seed, dtype)

    def pooler(self, config, seed=2, dtype="float32"):
        return perturbed(jax.eval_shape(lambda: init_pooler(config, jax.random.key(0))), seed, dtype)

    def tokens(self, config, lengths=(9, 4, 1, 7), length=9, seed=3):
        draw = np.random.default_rng(seed)
        rows = np.full((len(lengths), length), config.pad_id, np.int32)
        for row, count in zip(rows, lengths):
            row[:count] = draw.integers(4, config.vocab_size, count)
            row[0] = 0
            row[count - 1] = 2
        return rows

    def batch(self, kind, tokens):
        """What a head of this kind reads beside the tokens; of mlm two places a row."""
        if kind == "choice":
            return {"tokens": tokens.reshape(2, 2, -1), "choice_mask": np.ones((2, 2), np.float32)}
        segments = (tokens != 1).astype(np.int32)
        lengths = segments.sum(-1)
        return {
            "tokens": tokens,
            "segments": segments,
            "positions": np.where(segments > 0, np.arange(tokens.shape[1]), 0).astype(np.int32),
            "masked_positions": np.stack([lengths // 2, lengths - 1], 1).astype(np.int32),
        }

    def outputs(self, found):
        """One array of what ``apply_model`` returns."""
        if "features" in found:
            return found["features"] @ found["table"].T + found["bias"]
        if "start_logits" in found:
            return jax.numpy.stack([found["start_logits"], found["end_logits"]], -1)
        return found["logits"]

    def heads(self, **changes):
        kinds = ("classify", "choice", "tag", "span", "mlm")
        return {kind: HeadConfig(kind=kind, num_labels=3, dropout=0.0, **changes) for kind in kinds}

    def compare_gradients(self, ours, theirs, tolerance):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        whole = np.sqrt(sum(float((np.asarray(leaf) ** 2).sum()) for leaf in jax.tree.leaves(theirs)))
        for (path, found), expected in zip(
            jax.tree_util.tree_flatten_with_path(ours)[0], jax.tree.leaves(theirs)
        ):
            # A floor for key biases, whose gradient is zero in theory.
            bound = tolerance * max(np.linalg.norm(expected), 1e-2 * whole)
            assert np.linalg.norm(np.asarray(found) - expected) <= bound, jax.tree_util.keystr(path)


@pytest.fixture(scope="session")
def maker():
    return Maker()


@pytest.fixture(scope="session")
def exact():
    """float32 products as float32 computes them, whatever the platform would like better."""
    return Compute(matmul_precision="highest", attention="xla")
