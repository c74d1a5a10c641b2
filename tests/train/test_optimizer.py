import math
from dataclasses import replace
from functools import reduce
from operator import getitem

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stilts_jax.errors import ConfigError
from stilts_jax.model import SHAPES, HeadConfig, Model, abstract_params
from stilts_jax.sharding import parameter_paths
from stilts_jax.train.optimizer import OptimizerConfig, is_decayed, make_optimizer
from stilts_jax.train.step import select_head


@pytest.mark.parametrize("warmup", [0.0, 0.1, 7])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedules_by_hand(schedule, warmup):
    config = OptimizerConfig(learning_rate=3e-5, total_steps=50, warmup=warmup, schedule=schedule)
    rise = config.warmup_steps

    def by_hand(step):
        if step < rise:
            return 3e-5 * step / rise
        done = min(1.0, (step - rise) / (50 - rise))
        shares = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
        return 3e-5 * shares[schedule]

    rates = config.rates()
    found = [float(rates(jnp.asarray(step))) for step in range(60)]
    np.testing.assert_allclose(found, [by_hand(step) for step in range(60)], rtol=1e-5, atol=1e-12)


@pytest.mark.parity
def test_many_steps_are_those_of_torch(tiny):
    torch, params = pytest.importorskip("torch"), tiny.make_params()
    config = OptimizerConfig(learning_rate=1e-2, total_steps=30, warmup=0.2, weight_decay=0.1)
    tx = make_optimizer(config)
    moments = tx.init(params)
    del params["heads"]["mlm"], moments["heads"]["mlm"]
    leaves, form = parameter_paths(params), jax.tree.structure(params)
    theirs = [torch.nn.Parameter(torch.tensor(np.array(leaf))) for _, leaf in leaves]
    parts: dict = {True: [], False: []}
    for (path, _), parameter in zip(leaves, theirs):
        parts[path.endswith(("bias", "scale"))].append(parameter)
    groups = [{"params": parts[False]}, {"params": parts[True], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.1, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda s: s / 6 if s < 6 else (30 - s) / 24)

    @jax.jit
    def update(gradients, moments, params, step):
        updates, moments = tx.update(gradients, moments, params, step=step, head="labels")
        return optax.apply_updates(params, updates), moments

    random = np.random.default_rng(1)
    for step in range(30):
        # Now and then above the limit of 1, now and then below.
        size = 0.03 * (1 + step % 3)
        gradients = [random.normal(0, size, leaf.shape).astype(np.float32) for _, leaf in leaves]
        for parameter, gradient in zip(theirs, gradients):
            parameter.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        adam.step()
        schedule.step()
        tree = jax.tree.unflatten(form, [jnp.asarray(g) for g in gradients])
        params, moments = update(tree, moments, params, jnp.asarray(step))
    for (path, mine), parameter in zip(parameter_paths(params), theirs):
        np.testing.assert_allclose(mine, parameter.detach().numpy(), rtol=2e-5, atol=2e-6, err_msg=path)


def _update(config, gradients, params):
    tx = make_optimizer(config)
    updates, _ = tx.update(gradients, tx.init(params), params, step=jnp.asarray(0), head="labels")
    return optax.apply_updates(params, updates)


def test_it_works_where_nobody_tells_it_the_step(tiny):
    """In another's loop, and inside a transformation that passes nothing on: it counts by itself."""
    config = OptimizerConfig(learning_rate=0.1, total_steps=4, warmup=0.5, clip_norm=0)
    params, tx = tiny.make_params(), make_optimizer(config)
    gradients = jax.tree.map(jnp.ones_like, params)
    expected, moments = params, tx.init(params)
    for step in range(3):
        updates, moments = tx.update(gradients, moments, expected, step=jnp.asarray(step))
        expected = optax.apply_updates(expected, updates)
    every_second = optax.MultiSteps(make_optimizer(config), 2)
    found, memory = params, every_second.init(params)
    for _ in range(6):
        updates, memory = every_second.update(gradients, memory, found)
        found = optax.apply_updates(found, updates)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=r"these are \['weights'\]"):
        tx.init({"weights": jnp.ones(3)})


LAYERS = "encoder/layers/ffn/up/kernel"


def _at(tree, path):
    return reduce(getitem, path.split("/"), tree)


def test_layer_decay_head_rate_and_frozen_layers(tiny):
    config = OptimizerConfig(learning_rate=1.0, total_steps=9, warmup=0, schedule="constant", layer_decay=0.5)
    scale = config.rate_scale
    assert scale("heads/labels/out/kernel", 4) == scale("encoder/pooler/kernel", 4) == 1.0
    np.testing.assert_allclose(scale("encoder/layers/ffn/up/kernel", 4), [1 / 16, 1 / 8, 1 / 4, 1 / 2])
    assert scale("encoder/embeddings/word", 4) == 1 / 32

    params = tiny.make_params()
    ones = jax.tree.map(jnp.ones_like, params)
    faster = replace(config, learning_rate=0.01, head_rate=10.0, weight_decay=0.0, clip_norm=0)
    moved = _update(faster, ones, params)
    highest = 0.005  # of the layers, by the decay
    for path, step in (("heads/labels/out/kernel", 0.1), (LAYERS, highest)):
        np.testing.assert_allclose(np.abs(_at(moved, path) - _at(params, path)).max(), step, rtol=1e-3)

    frozen = OptimizerConfig(learning_rate=0.1, total_steps=9, warmup=0, freeze_layers=1, clip_norm=0)
    change = np.abs(_at(_update(frozen, ones, params), LAYERS) - _at(params, LAYERS))
    assert change[0].max() == 0 and change[1].min() > 0.05
    # A frozen layer has no gradient, so that it takes no share of the clipping.
    active = select_head(params, "labels")
    gradients = jax.grad(lambda p: sum(leaf.sum() for leaf in jax.tree.leaves(frozen.freeze(p))))(active)
    kernel = _at(gradients, LAYERS)
    assert float(jnp.abs(kernel[0]).max()) == 0.0 and float(kernel[1].min()) == 1.0
    config = OptimizerConfig(learning_rate=0.1, total_steps=9, warmup=0, freeze_embeddings=True)
    assert "embeddings" not in str(jax.tree.structure(make_optimizer(config).init(params)))
    moved = _update(config, ones, params)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, *(_at(tree, "encoder/embeddings") for tree in (params, moved)))
    )
    with pytest.raises(ConfigError, match="3 layers can't be frozen"):
        replace(config, freeze_layers=3).freeze(active)


@pytest.mark.parametrize("family", ["xlm-roberta", "xlm-roberta-xl"])
def test_what_decays_in_real_trees(family):
    """As in transformers' examples: no bias and no LayerNorm weight."""
    kinds = ("classify", "choice", "tag", "span", "embed", "mlm")
    heads = tuple((kind, HeadConfig(kind=kind, num_labels=3, pooling="pooler")) for kind in kinds)
    params = abstract_params(Model(replace(SHAPES["tiny"], family=family), heads))
    paths = [path for path, _ in parameter_paths(params)]
    spared = {path for path in paths if not is_decayed(path)}
    assert spared == {path for path in paths if not path.endswith(("/kernel", "/word", "/position", "/type"))}
    assert any("norm/scale" in path for path in spared) and "heads/embed/logit_scale" in spared
    assert ("encoder/final_norm/scale" in spared) is (family == "xlm-roberta-xl")
