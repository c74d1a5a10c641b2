from functools import partial

import jax
import numpy as np
import optax
import optax.contrib
import pytest

from stilts_jax.errors import ConfigError, TrainingError
from stilts_jax.model.layers import row_keys
from stilts_jax.sharding import parameter_paths
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import TrainState, select_head, train_step

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-2, total_steps=20, warmup=0))
# What it gets as a gradient is what it leaves as the first moment.
GRADIENT = make_optimizer(OptimizerConfig(learning_rate=0.0, total_steps=20, beta1=0.0, clip_norm=0))


def _step(tiny, batch, *, optimizer=OPTIMIZER, loss=None, accumulation=1, seed=3, params=None, **options):
    state = TrainState.create(params or tiny.make_params(), optimizer)
    loss = loss or tiny.without_dropout(tiny.label_loss)
    step = partial(train_step, loss_fn=loss, tx=optimizer, accumulation=accumulation, **options)
    return jax.jit(lambda state, batch: step(state, batch, key=jax.random.key(seed)))(state, batch)


def _assert_close(one, other, tolerance=1e-6):
    for (path, a), b in zip(parameter_paths(one), jax.tree.leaves(other), strict=True):
        scale = max(float(np.abs(b).max()), 1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=path)


@pytest.mark.parametrize("head", ["labels", "mlm"])
def test_accumulated_is_unaccumulated(tiny, head):
    batch = tiny.batch_at(1, rows=8).arrays
    batch["weight"][[2, 7]] = 0  # microbatches of unequal weight
    loss = tiny.LOSSES[head]  # with dropout, which does not depend on the microbatches either
    whole, metrics = _step(tiny, batch, optimizer=GRADIENT, loss=loss)
    for accumulation in (2, 8):
        parts, others = _step(tiny, batch, optimizer=GRADIENT, loss=loss, accumulation=accumulation)
        _assert_close(parts.moments, whole.moments, 3e-6)
        _assert_close(others, metrics, 3e-6)


def test_accumulated_embedding_gradients_against_a_plain_sum(tiny):
    # Scatter-adds inside a scan were once summed wrongly by a compiler (openxla/xla issue 49143).
    batch = tiny.batch_at(0, rows=8).arrays
    batch["tokens"][:] = batch["tokens"][0]  # every row hits the same embeddings
    state, _ = _step(tiny, batch, optimizer=GRADIENT, accumulation=4)
    params = select_head(tiny.make_params(), "labels")

    def loss(params, rows):
        return tiny.label_loss(params, jax.tree.map(lambda x: x[rows], batch), None)[0]

    parts = [jax.grad(loss)(params, np.arange(2) + 2 * part) for part in range(4)]
    expected = sum(np.asarray(part["encoder"]["embeddings"]["word"], np.float64) for part in parts) / 8
    np.testing.assert_allclose(state.moments["encoder"]["mu"]["embeddings"]["word"], expected, atol=1e-7)


def test_the_gradient_is_divided_once_by_the_weight(tiny):
    """And rows without weight change nothing."""
    batch = tiny.batch_at(0, rows=4).arrays
    batch["weight"] = np.array([1, 0.5, 0, 1], np.float32)
    state, metrics = _step(tiny, batch, optimizer=GRADIENT, accumulation=2)
    params = select_head(tiny.make_params(), "labels")
    expected = jax.grad(lambda p: tiny.label_loss(p, batch, None)[0] / 2.5)(params)
    _assert_close(state.moments["encoder"]["mu"], expected["encoder"])
    _assert_close(state.moments["heads"]["labels"]["mu"], expected["head"])
    assert float(metrics["weight"]) == 2.5


def test_a_head_that_is_not_in_the_batch_does_not_move(tiny):
    before = tiny.make_params()["heads"]
    state, _ = _step(tiny, tiny.batch_at(0).arrays)
    after, moments = state.params["heads"], state.moments["heads"]
    assert np.array_equal(before["mlm"]["bias"], after["mlm"]["bias"])
    assert (before["labels"]["out"]["kernel"] != after["labels"]["out"]["kernel"]).all()
    assert (int(moments["mlm"]["count"]), int(moments["labels"]["count"])) == (0, 1)


def test_dropout_depends_on_seed_step_and_row(tiny):
    batch = tiny.batch_at(0, rows=4).arrays
    batch = {name: np.repeat(array[:1], 4, axis=0) for name, array in batch.items()}
    run = partial(_step, tiny, batch, loss=tiny.label_loss)
    assert float(run(seed=3)[1]["loss"]) == float(run(seed=3)[1]["loss"])
    assert float(run(seed=3)[1]["loss"]) != float(run(seed=4)[1]["loss"])
    seen = []

    def spy(params, batch, keys):
        take = lambda data: seen.extend(map(tuple, np.asarray(data).tolist()))  # noqa: E731
        jax.debug.callback(take, jax.random.key_data(keys))
        return tiny.label_loss(params, batch, keys)

    spy.head = "labels"
    step = jax.jit(partial(train_step, loss_fn=spy, tx=OPTIMIZER, key=jax.random.key(3), accumulation=4))
    step(step(TrainState.create(tiny.make_params(), OPTIMIZER), batch)[0], batch)
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 8


def test_a_step_that_is_not_finite_changes_nothing(tiny):
    batch, before = tiny.batch_at(0).arrays, TrainState.create(tiny.make_params(), OPTIMIZER)
    batch["weight"][3] = np.inf
    after, metrics = _step(tiny, batch, skip_non_finite=True)
    assert bool(metrics["skipped"]) and int(after.step) == 1
    pairs = (before.params, before.moments), (after.params, after.moments)
    assert jax.tree.all(jax.tree.map(np.array_equal, *pairs))
    assert not bool(_step(tiny, tiny.batch_at(0).arrays, skip_non_finite=True)[1]["skipped"])
    spoiled, _ = _step(tiny, batch)  # an option, not a habit
    assert not np.isfinite(spoiled.params["heads"]["labels"]["out"]["kernel"]).any()


def test_mistakes_are_named(tiny):
    for accumulation in (3, 0):
        with pytest.raises(ConfigError, match=f"8 rows does not fall into {accumulation}"):
            _step(tiny, tiny.batch_at(0).arrays, accumulation=accumulation)
    with pytest.raises(TrainingError, match="returns three things"):
        _step(tiny, tiny.batch_at(0).arrays, loss=lambda params, batch, key: np.zeros([]))
    with pytest.raises(ConfigError, match="no optax transformation"):
        TrainState.create(tiny.make_params(), optax.adamw)
    with pytest.raises(ConfigError, match="0 is no random key"):
        row_keys(0, 8)
    for tx in (optax.lbfgs(), optax.contrib.sam(OPTIMIZER, OPTIMIZER)):
        with pytest.raises(ConfigError, match=r"does not take what a step has(.|\n)* that of init_state"):
            _step(tiny, tiny.batch_at(0).arrays, optimizer=tx)
    loss = tiny.without_dropout(tiny.label_loss)
    loss.needs_whole_batch = True
    with pytest.raises(ConfigError, match="in-batch negatives"):
        _step(tiny, tiny.batch_at(0).arrays, loss=loss, accumulation=2)
    loss.head, loss.needs_whole_batch = "label", False
    with pytest.raises(ConfigError, match="no head 'label'") as caught:
        _step(tiny, tiny.batch_at(0).arrays, loss=loss)
    assert "'labels'" in caught.value.fix


@pytest.mark.parametrize(
    "tx",
    [
        optax.adafactor(1e-2),
        optax.MultiSteps(optax.adamw(1e-2), 2),
        optax.contrib.schedule_free_adamw(1e-2),
        optax.chain(optax.sgd(1e-2), optax.contrib.reduce_on_plateau(patience=1, rtol=1.0)),  # reads the loss
    ],
)
def test_any_optax_transformation_takes_the_steps_that_it_takes_alone(tiny, tx):
    """Beside a plain loop of jax.grad and tx.update on all parameters."""
    loss, state = tiny.without_dropout(tiny.label_loss), TrainState.create(tiny.make_params(), tx)
    params, memory = tiny.make_params(), tx.init(tiny.make_params())
    step = jax.jit(partial(train_step, loss_fn=loss, tx=tx, key=jax.random.key(0)))
    for number in range(4):
        batch = tiny.batch_at(number).arrays
        state, _ = step(state, batch)
        compute = jax.value_and_grad(lambda p, b=batch: loss(select_head(p, "labels"), b, None)[0] / 8)
        value, gradients = compute(params)
        updates, memory = optax.with_extra_args_support(tx).update(gradients, memory, params, value=value)
        params = optax.apply_updates(params, updates)
    _assert_close(state.params, params, 1e-5)
    narrow = TrainState.create(jax.tree.map(partial(jax.numpy.asarray, dtype="bfloat16"), params), tx)
    after = jax.eval_shape(step, narrow, batch)[0]  # the next step is the same program
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(narrow)]


def test_a_loss_without_a_head_gets_all_parameters(tiny):
    def both(params, batch, key):
        parts = [tiny.LOSSES[name](select_head(params, name), batch, None) for name in ("labels", "mlm")]
        return parts[0][0] + parts[1][0], parts[0][1], {}

    before = tiny.make_params()
    after, _ = _step(tiny, tiny.batch_at(0).arrays, loss=both)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), before, after.params)))
    assert int(after.moments["heads"]["mlm"]["count"]) == int(after.moments["heads"]["labels"]["count"]) == 1
