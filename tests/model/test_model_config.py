"""Records: what they refuse, and the way to transformers' config.json and back."""

import dataclasses

import jax
import numpy as np
import pytest

from stilts_jax.errors import ConfigError, EncoderError
from stilts_jax.model import SHAPES, Compute, EncoderConfig, HeadConfig, Model, abstract_encoder


@pytest.mark.parametrize("name", ["base", "large", "xl", "xxl", "e5-small"])
def test_shapes_have_the_sizes_of_the_published_models(name):
    c = SHAPES[name]
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(abstract_encoder(c)))
    width, inner = c.hidden_size, c.intermediate_size
    layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    # one norm beside the layers: behind the embeddings, or at the end
    assert count == (c.vocab_size + 514 + 1) * width + c.num_layers * layer + 2 * width
    published = {"base": 277.5e6, "large": 558.8e6, "xl": 3.48e9, "xxl": 10.70e9, "e5-small": 117.5e6}
    assert count == pytest.approx(published[name], rel=2e-3)


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"family": "bert"}, "encoder.family='bert'"),
        ({"vocab_size": 0}, "at least 1"),
        ({"hidden_size": 2.5}, "at least 1"),
        ({"num_heads": 5}, "do not divide"),
        ({"pad_id": 61}, "not in a vocabulary"),
        ({"max_positions": 2}, "no room"),
        ({"hidden_dropout": 1.0}, "encoder.hidden_dropout"),
    ],
    ids=lambda value: str(value),
)
def test_a_shape_that_makes_no_sense(maker, changes, because):
    with pytest.raises(ConfigError, match=because):
        maker.config(**changes)


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"model_type": "bert"}, "'bert' model"),
        ({"hidden_act": "gelu_new"}, "hidden_act"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"vocab_size": "many"}, "makes no sense"),
        ({"num_attention_heads": 7}, "makes no sense"),
    ],
    ids=lambda value: str(value),
)
def test_a_config_json_that_describes_something_else(changes, because):
    described = {**SHAPES["tiny"].to_transformers(), **changes}
    with pytest.raises(EncoderError, match=because):
        EncoderConfig.from_transformers(described, where="some/config.json")


@pytest.mark.parametrize(
    ("values", "because"),
    [
        ({"kind": "rank"}, "head.kind"),
        ({"kind": "classify"}, "needs labels"),
        ({"kind": "span", "form": "bert"}, "head.form"),
        ({"kind": "span", "dropout": 1.5}, "head.dropout"),
        ({"kind": "span", "layer": 3}, "only embed heads"),
        ({"kind": "embed", "layer": -1}, "count from 0"),
    ],
    ids=lambda value: str(value),
)
def test_a_head_that_makes_no_sense(values, because):
    with pytest.raises(ConfigError) as caught:
        HeadConfig(**values)
    assert because in str(caught.value)


def test_an_unknown_way_to_compute():
    with pytest.raises(ConfigError, match="remat='fast'"):
        Compute(remat="fast")


def test_models(maker):
    span, deep = HeadConfig(kind="span"), HeadConfig(kind="embed", layer=4)
    with pytest.raises(ConfigError, match="one name"):
        Model(maker.config(), (("a", span), ("a", span)))
    with pytest.raises(ConfigError, match="Layer 4 of an encoder of 3"):
        Model(maker.config(), (("a", deep),))
    with pytest.raises(ConfigError) as caught:
        Model(maker.config(), (("squad", span),)).head("squat")
    assert "did you mean 'squad'" in str(caught.value)
    one, other = (Model(maker.config(), (("squad", span),)) for _ in range(2))
    assert hash(one) == hash(other) and one == other
    assert hash(dataclasses.replace(one, compute=Compute(dtype="bfloat16"))) != hash(one)
