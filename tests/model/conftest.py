"""Small random encoders that hide no mistake: every norm, bias and pad row is something else than its default."""

import dataclasses

import jax
import numpy as np
import pytest

from stilts_jax.model import HeadConfig, abstract_encoder, init_head

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


def perturbed(abstract, seed, dtype="float32"):
    """Random values for a tree of shapes; kernels keep activations of about one."""
    draw = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        values = draw.normal(size=leaf.shape)
        if name == "scale":
            values = 1 + 0.3 * values
        elif name == "kernel":
            values /= np.sqrt(leaf.shape[-2])
        elif name == "bias":
            values *= 0.3
        return values.astype(dtype)

    return jax.tree_util.tree_map_with_path(fill, abstract)


class Maker:
    """Makes configurations, parameters and batches; a fixture, as test folders are no packages."""

    def config(self, family="xlm-roberta", **changes):
        from stilts_jax.model import EncoderConfig

        return EncoderConfig(**{"family": family, **SMALL, **changes})

    def encoder(self, config, seed=0, dtype="float32"):
        return perturbed(abstract_encoder(config), seed, dtype)

    def head(self, config, head, seed=1, dtype="float32"):
        abstract = jax.eval_shape(lambda: init_head(head, config, jax.random.key(0)))
        return perturbed(abstract, seed, dtype)

    def pooler(self, config, seed=2, dtype="float32"):
        size = config.hidden_size
        shapes = {"kernel": (size, size), "bias": (size,)}
        return perturbed({n: jax.ShapeDtypeStruct(s, "float32") for n, s in shapes.items()}, seed, dtype)

    def tokens(self, config, lengths=(9, 4, 1, 7), length=9, seed=3):
        draw = np.random.default_rng(seed)
        rows = np.full((len(lengths), length), config.pad_id, np.int32)
        for row, count in zip(rows, lengths):
            row[:count] = draw.integers(4, config.vocab_size, count)
            row[0] = 0
            row[count - 1] = 2
        return rows

    def heads(self, **changes):
        kinds = ("classify", "choice", "tag", "span", "mlm")
        return {kind: HeadConfig(kind=kind, num_labels=3, dropout=0.0, **changes) for kind in kinds}

    replace = staticmethod(dataclasses.replace)


@pytest.fixture(scope="session")
def maker():
    return Maker()


@pytest.fixture(scope="session")
def exact():
    """float32 products as float32 computes them, whatever the platform would like better."""
    from stilts_jax.model import Compute

    return Compute(matmul_precision="highest", attention="xla")
