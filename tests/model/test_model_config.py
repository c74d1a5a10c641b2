"""Records: what they refuse, and the way to transformers' config.json and back."""

from functools import partial

import jax
import numpy as np
import pytest

from stilts_jax.errors import ConfigError, EncoderError
from stilts_jax.model import SHAPES, Compute, EncoderConfig, HeadConfig, Model, abstract_encoder
from stilts_jax.train.optimizer import OptimizerConfig
from tests.model.conftest import SMALL


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


SPAN, TINY = HeadConfig(kind="span"), {"encoder": SHAPES["tiny"]}
ENCODER, RATE = partial(EncoderConfig, **SMALL), {"learning_rate": 1e-3, "total_steps": 9}


@pytest.mark.parametrize(
    ("make", "options", "because"),
    [
        (ENCODER, {"family": "bert"}, "encoder.family='bert'"),
        (ENCODER, {"vocab_size": 0}, "at least 1"),
        (ENCODER, {"num_heads": 5}, "do not divide"),
        (ENCODER, {"pad_id": 61}, "not in a vocabulary"),
        (ENCODER, {"max_positions": 2}, "no room"),
        (ENCODER, {"hidden_dropout": 1.0}, "encoder.hidden_dropout"),
        *((ENCODER, {name: None}, f"{name}=None is") for name in ("hidden_size", "pad_id", "layer_norm_eps")),
        (HeadConfig, {"kind": "rank"}, "head.kind"),
        (HeadConfig, {"kind": "classify"}, "needs labels"),
        (HeadConfig, {"kind": "span", "form": "bert"}, "head.form"),
        (HeadConfig, {"kind": "span", "layer": 3}, "only embed heads"),
        (Compute, {"remat": "fast"}, "remat='fast'"),
        (Model, TINY | {"heads": (("a", SPAN), ("a", SPAN))}, "one name"),
        *((Model, TINY | {"heads": ((name, SPAN),)}, "the name of a head") for name in ("", "a/b")),
        (Model, TINY | {"heads": {"a": SPAN}}, "a dict is tuple(heads.items())"),
        (Model, TINY | {"heads": (("a", None),)}, "a name and a HeadConfig"),
        *((OptimizerConfig, RATE | {name: None}, f"{name}=None is") for name in ("learning_rate", "beta2")),
        (OptimizerConfig, RATE | {"total_steps": "10"}, "a whole number from 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make, options, because):
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert because in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"model_type": "bert"}, "'bert' model"),
        ({"hidden_act": "gelu_new"}, "hidden_act"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"vocab_size": "many"}, "makes no sense"),
    ],
)
def test_a_config_json_that_describes_something_else(changes, because):
    with pytest.raises(EncoderError, match=because):
        EncoderConfig.from_transformers(SHAPES["tiny"].to_transformers() | changes, where="some/config.json")
