import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stilts_jax.errors import ConfigError
from stilts_jax.train.optimizer import Optimizer, OptimizerConfig, is_decayed, learning_rate_at
from stilts_jax.train.state import abstract_state, select_head
from stilts_jax.train.trees import merge, path_of


def _paths(tree):
    return {path_of(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(tree)[0]}


@pytest.mark.parametrize("warmup", [0.0, 0.1, 7])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedules_are_those_of_optax(schedule, warmup):
    config = OptimizerConfig(learning_rate=3e-5, total_steps=50, warmup=warmup, schedule=schedule)
    rise = config.warmup_steps
    after = {
        "linear": optax.linear_schedule(3e-5, 0.0, 50 - rise),
        "cosine": optax.cosine_decay_schedule(3e-5, 50 - rise),
        "constant": optax.constant_schedule(3e-5),
    }[schedule]
    theirs = optax.join_schedules([optax.linear_schedule(0.0, 3e-5, rise), after], [rise]) if rise else after
    steps = np.arange(60)
    expected = np.array([theirs(step) for step in steps])
    np.testing.assert_allclose(learning_rate_at(config, steps), expected, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(learning_rate_at(config, steps, np), expected, rtol=1e-5, atol=1e-12)


def test_a_warmup_is_a_share_or_a_number_of_steps():
    assert OptimizerConfig(learning_rate=1.0, total_steps=1000, warmup=0.1).warmup_steps == 100
    assert OptimizerConfig(learning_rate=1.0, total_steps=1000, warmup=500).warmup_steps == 500


def test_what_decays():
    decayed = ["encoder/embeddings/word", "encoder/layers/ffn/up/kernel", "head/out/kernel"]
    spared = ["encoder/layers/ffn/up/bias", "encoder/embeddings/norm/scale", "encoder/final_norm/scale"]
    spared += ["head/norm/scale", "head/bias", "head/logit_scale", "encoder/layers/attention/norm/bias"]
    assert all(map(is_decayed, decayed)) and not any(map(is_decayed, spared))


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="schedule='stairs'"):
        OptimizerConfig(learning_rate=1.0, total_steps=3, schedule="stairs")
    with pytest.raises(ConfigError, match="0 steps"):
        OptimizerConfig(learning_rate=1.0, total_steps=0)


@pytest.mark.parity
def test_many_steps_are_those_of_torch(tiny):
    torch = pytest.importorskip("torch")
    params = select_head(tiny.make_params(), "labels")
    config = OptimizerConfig(learning_rate=1e-2, total_steps=30, warmup=0.2, weight_decay=0.1)
    optimizer = Optimizer(config)
    moments = select_head(optimizer.init(tiny.make_params()), "labels")
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
    update = jax.jit(optimizer.update)
    random = np.random.default_rng(1)
    for step in range(30):
        # Now and then above the limit of 1, now and then below.
        gradients = [
            random.normal(0, 0.3 * (1 + step % 3) / 10, leaf.shape).astype(np.float32) for _, leaf in leaves
        ]
        for parameter, gradient in zip(theirs, gradients):
            parameter.grad = torch.tensor(gradient)
        norm = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        adam.step()
        schedule.step()
        tree = jax.tree.unflatten(form, [jnp.asarray(g) for g in gradients])
        params, moments, ours, _ = update(tree, moments, params, jnp.asarray(step))
        np.testing.assert_allclose(float(ours), float(norm), rtol=1e-5)
    for (keys, _), mine, parameter in zip(leaves, jax.tree.leaves(params), theirs):
        np.testing.assert_allclose(
            mine, parameter.detach().numpy(), rtol=2e-5, atol=2e-6, err_msg=path_of(keys)
        )


def test_layer_decay_and_frozen_layers(tiny):
    config = OptimizerConfig(learning_rate=1.0, total_steps=9, warmup=0, schedule="constant", layer_decay=0.5)
    scale = Optimizer(config).rate_scale
    assert scale("head/out/kernel", 4) == scale("encoder/pooler/kernel", 4) == 1.0
    np.testing.assert_allclose(scale("encoder/layers/ffn/up/kernel", 4), [1 / 16, 1 / 8, 1 / 4, 1 / 2])
    assert scale("encoder/embeddings/word", 4) == 1 / 32

    params = select_head(tiny.make_params(), "labels")
    ones = jax.tree.map(jnp.ones_like, params)
    frozen = OptimizerConfig(learning_rate=0.1, total_steps=9, warmup=0, freeze_layers=1, clip_norm=0)
    optimizer = Optimizer(frozen)
    moments = select_head(optimizer.init(tiny.make_params()), "labels")
    moved, moments, norm, _ = optimizer.update(ones, moments, params, jnp.asarray(0))
    before, after = (tree["encoder"]["layers"]["ffn"]["up"]["kernel"] for tree in (params, moved))
    np.testing.assert_array_equal(after[0], before[0])
    assert np.abs(np.asarray(after[1] - before[1])).min() > 0.05
    counted = sum(leaf.size for leaf in jax.tree.leaves(params)) - tiny.WIDTH * (tiny.WIDTH + 1)
    np.testing.assert_allclose(
        norm, np.sqrt(counted), rtol=1e-6
    )  # a frozen layer takes no share of the clipping
    with pytest.raises(ConfigError, match="3 layers can't be frozen"):
        Optimizer(OptimizerConfig(learning_rate=0.1, total_steps=9, freeze_layers=3)).update(
            ones, moments, params, jnp.asarray(0)
        )


def test_frozen_embeddings_have_no_moments(tiny):
    optimizer = Optimizer(OptimizerConfig(learning_rate=0.1, total_steps=9, freeze_embeddings=True))
    params = tiny.make_params()
    assert not any("embeddings" in path for path in _paths(optimizer.init(params)))
    trained, frozen = optimizer.split(select_head(params, "labels"))
    assert _paths(frozen) == {f"encoder/embeddings/{name}" for name in ("word", "norm/scale", "norm/bias")}
    assert jax.tree.all(jax.tree.map(np.array_equal, merge(trained, frozen), select_head(params, "labels")))


def test_moments_repeat_the_paths_of_parameters(tiny):
    params = jax.eval_shape(tiny.make_params)
    state = abstract_state(params, Optimizer(OptimizerConfig(learning_rate=0.1, total_steps=9)).init)
    moments = _paths(state.moments)
    for path in _paths(params["encoder"]):
        assert f"encoder/mu/{path}" in moments and f"encoder/nu/{path}" in moments
    assert "heads/labels/mu/out/kernel" in moments and "heads/mlm/count" in moments


def test_moments_in_bfloat16_halve_the_first_one_only(tiny):
    config = OptimizerConfig(learning_rate=0.01, total_steps=9, moment_dtype="bfloat16")
    optimizer = Optimizer(config)
    params = tiny.make_params()
    moments = select_head(optimizer.init(params), "labels")
    active = select_head(params, "labels")
    gradients = jax.tree.map(lambda p: 0.1 * jnp.ones_like(p), active)
    for step in range(3):
        active, moments, _, _ = optimizer.update(gradients, moments, active, jnp.asarray(step))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(moments["encoder"]["mu"])} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(moments["encoder"]["nu"])} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(active)} == {"float32"}


def test_the_factor_of_untouched_rows():
    config = OptimizerConfig(learning_rate=0.1, total_steps=4, warmup=0, weight_decay=0.5, layer_decay=0.5)
    # Rates 0.1, 0.075, 0.05, 0.025; embeddings below one layer learn at a quarter of them.
    expected = (1 - 0.0125) * (1 - 0.00625)
    assert Optimizer(config).untouched_factor("encoder/embeddings/word", 1, 3, (1,)) == pytest.approx(
        expected, rel=1e-15
    )
    assert Optimizer(config).untouched_factor("encoder/embeddings/norm/scale", 1, 3) == 1.0
