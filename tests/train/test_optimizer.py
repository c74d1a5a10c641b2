import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stilts_jax.errors import ConfigError
from stilts_jax.sharding import path_of
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import select_head


def _paths(tree):
    return {path_of(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(tree)[0]}


@pytest.mark.parametrize("warmup", [0.0, 0.1, 7])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedules_by_hand(schedule, warmup):
    config = OptimizerConfig(learning_rate=3e-5, total_steps=50, warmup=warmup, schedule=schedule)
    rise = config.warmup_steps

    def by_hand(step):
        if step < rise:
            return 3e-5 * step / rise
        done = min(1.0, (step - rise) / (50 - rise))
        return (
            3e-5
            * {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[schedule]
        )

    rates = config.rates()
    found = [float(rates(jnp.asarray(step))) for step in range(60)]
    np.testing.assert_allclose(found, [by_hand(step) for step in range(60)], rtol=1e-5, atol=1e-12)


def test_a_warmup_is_a_share_or_a_number_of_steps():
    assert OptimizerConfig(learning_rate=1.0, total_steps=1000, warmup=0.1).warmup_steps == 100
    assert OptimizerConfig(learning_rate=1.0, total_steps=1000, warmup=500).warmup_steps == 500


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="schedule='stairs'"):
        OptimizerConfig(learning_rate=1.0, total_steps=3, schedule="stairs")
    with pytest.raises(ConfigError, match="got 0"):
        OptimizerConfig(learning_rate=1.0, total_steps=0)
    with pytest.raises(ConfigError, match="make_optimizer"):
        make_optimizer(1e-3)


@pytest.mark.parity
def test_many_steps_are_those_of_torch(tiny):
    torch = pytest.importorskip("torch")
    params = tiny.make_params()
    config = OptimizerConfig(learning_rate=1e-2, total_steps=30, warmup=0.2, weight_decay=0.1)
    tx = make_optimizer(config)
    moments = tx.init(params)
    del params["heads"]["mlm"], moments["heads"]["mlm"]
    leaves, form = jax.tree_util.tree_flatten_with_path(params)
    theirs = [torch.nn.Parameter(torch.tensor(np.array(leaf))) for _, leaf in leaves]
    spared = ("bias", "scale")
    groups = [
        {"params": [p for (k, _), p in zip(leaves, theirs) if not path_of(k).endswith(spared)]},
        {
            "params": [p for (k, _), p in zip(leaves, theirs) if path_of(k).endswith(spared)],
            "weight_decay": 0.0,
        },
    ]
    adam = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.1, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda s: s / 6 if s < 6 else (30 - s) / 24)

    @jax.jit
    def update(gradients, moments, params, step):
        updates, moments = tx.update(gradients, moments, params, step=step, head="labels")
        return optax.apply_updates(params, updates), moments

    random = np.random.default_rng(1)
    for step in range(30):
        # Now and then above the limit of 1, now and then below.
        gradients = [
            random.normal(0, 0.3 * (1 + step % 3) / 10, leaf.shape).astype(np.float32) for _, leaf in leaves
        ]
        for parameter, gradient in zip(theirs, gradients):
            parameter.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        adam.step()
        schedule.step()
        tree = jax.tree.unflatten(form, [jnp.asarray(g) for g in gradients])
        params, moments = update(tree, moments, params, jnp.asarray(step))
    for (keys, _), mine, parameter in zip(leaves, jax.tree.leaves(params), theirs):
        np.testing.assert_allclose(
            mine, parameter.detach().numpy(), rtol=2e-5, atol=2e-6, err_msg=path_of(keys)
        )


def _update(config, gradients, params, steps=1):
    tx = make_optimizer(config)
    moments = tx.init(params)
    for step in range(steps):
        updates, moments = tx.update(gradients, moments, params, step=jnp.asarray(step), head="labels")
        params = optax.apply_updates(params, updates)
    return params, moments


def test_layer_decay_and_frozen_layers(tiny):
    config = OptimizerConfig(learning_rate=1.0, total_steps=9, warmup=0, schedule="constant", layer_decay=0.5)
    scale = config.rate_scale
    assert scale("heads/labels/out/kernel", 4) == scale("encoder/pooler/kernel", 4) == 1.0
    np.testing.assert_allclose(scale("encoder/layers/ffn/up/kernel", 4), [1 / 16, 1 / 8, 1 / 4, 1 / 2])
    assert scale("encoder/embeddings/word", 4) == 1 / 32

    params = tiny.make_params()
    frozen = OptimizerConfig(learning_rate=0.1, total_steps=9, warmup=0, freeze_layers=1, clip_norm=0)
    moved, _ = _update(frozen, jax.tree.map(jnp.ones_like, params), params)
    before, after = (tree["encoder"]["layers"]["ffn"]["up"]["kernel"] for tree in (params, moved))
    np.testing.assert_array_equal(after[0], before[0])
    assert np.abs(np.asarray(after[1] - before[1])).min() > 0.05
    # A frozen layer has no gradient, so that it takes no share of the clipping.
    active = select_head(params, "labels")
    gradients = jax.grad(lambda p: sum(leaf.sum() for leaf in jax.tree.leaves(frozen.freeze(p))))(active)
    kernel = gradients["encoder"]["layers"]["ffn"]["up"]["kernel"]
    assert float(jnp.abs(kernel[0]).max()) == 0.0 and float(kernel[1].min()) == 1.0
    with pytest.raises(ConfigError, match="3 layers can't be frozen"):
        OptimizerConfig(learning_rate=0.1, total_steps=9, freeze_layers=3).freeze(active)


def test_frozen_embeddings_have_no_moments_and_stay(tiny):
    config = OptimizerConfig(learning_rate=0.1, total_steps=9, warmup=0, freeze_embeddings=True)
    params = tiny.make_params()
    assert not any("embeddings" in path for path in _paths(make_optimizer(config).init(params)))
    moved, _ = _update(config, jax.tree.map(jnp.ones_like, params), params)
    before, after = (jax.tree.leaves(tree["encoder"]["embeddings"]) for tree in (params, moved))
    assert all(map(np.array_equal, before, after))


def test_moments_in_bfloat16_halve_the_first_one_only(tiny):
    config = OptimizerConfig(learning_rate=0.01, total_steps=9, moment_dtype="bfloat16")
    params = tiny.make_params()
    moved, moments = _update(config, jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), params), params, steps=3)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(moments["encoder"]["mu"])} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(moments["encoder"]["nu"])} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(moved)} == {"float32"}


def test_the_factor_of_untouched_rows():
    config = OptimizerConfig(learning_rate=0.1, total_steps=4, warmup=0, weight_decay=0.5, layer_decay=0.5)
    # Rates 0.1, 0.075, 0.05, 0.025; embeddings below one layer learn at a quarter of them.
    expected = (1 - 0.0125) * (1 - 0.00625)
    assert config.untouched_factor("encoder/embeddings/word", 1, 3, (1,)) == pytest.approx(expected, rel=1e-8)
    assert config.untouched_factor("encoder/embeddings/norm/scale", 1, 3) == 1.0
