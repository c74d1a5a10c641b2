import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.errors import TrainingError
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import TrainState, train_step
from stilts_jax.train.vocabulary import PhaseVocabulary, fits_phase_vocabulary

STEPS = 200


def _batches(tiny, count):
    # Ids up to 40 of 64: the rest never occurs.
    return [tiny.batch_at(step, rows=4, tasks=("labels",), vocabulary=40).arrays for step in range(count)]


def _train(tiny, params, batches, optimizer, loss):
    tx = make_optimizer(optimizer)
    state = TrainState.create(params, tx)
    options = {"loss_fn": loss, "tx": tx, "key": jax.random.key(0), "skip_non_finite": True}
    step = jax.jit(lambda state, batch: train_step(state, batch, **options))
    losses, norms = [], []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
    return state, np.array(losses), np.array(norms)


def _both_ways(tiny, dtype, steps, **config):
    optimizer = OptimizerConfig(learning_rate=2e-3, total_steps=steps, weight_decay=0.1, **config)
    batches = _batches(tiny, steps)
    vocabulary = PhaseVocabulary.from_tokens((b["tokens"] for b in batches), tiny.VOCABULARY, multiple=8)
    params = tiny.make_params(dtype=dtype)
    plain = _train(tiny, params, batches, optimizer, tiny.label_loss)
    small = _train(
        tiny, vocabulary.shrink(params), [vocabulary.remap(b) for b in batches], optimizer, tiny.label_loss
    )
    return vocabulary, optimizer, params, plain, small


@pytest.mark.slow
def test_two_hundred_steps_in_float64(tiny):
    with jax.enable_x64(True):
        vocabulary, optimizer, params, plain, small = _both_ways(tiny, np.float64, STEPS, layer_decay=0.9)
        assert len(vocabulary) < tiny.VOCABULARY - 8
        original = params["encoder"]["embeddings"]["word"]
        restored = vocabulary.restore(small[0].params, original, optimizer=optimizer, steps=STEPS)
        for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(plain[0].params), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
        untouched = np.setdiff1d(np.arange(tiny.VOCABULARY), vocabulary.ids)
        rows, before = (
            np.asarray(plain[0].params["encoder"]["embeddings"]["word"])[untouched],
            np.asarray(original)[untouched],
        )
        # The product written out once more, over the schedule as the docs describe it: 20 steps up, 180 down.
        rates = [2e-3 * (s / 20 if s < 20 else (200 - s) / 180) * 0.9**3 for s in range(STEPS)]
        np.testing.assert_allclose(rows, before * np.prod([1 - rate * 0.1 for rate in rates]), rtol=1e-12)
        assert np.abs(rows / before - 1).min() > 1e-3  # the decay is not nothing


def test_losses_and_gradients_in_float32(tiny):
    _, _, _, plain, small = _both_ways(tiny, np.float32, 20)
    np.testing.assert_allclose(small[1], plain[1], rtol=1e-6)
    np.testing.assert_allclose(small[2], plain[2], rtol=1e-5)


def test_steps_that_were_left_out_do_not_decay(tiny):
    optimizer = OptimizerConfig(learning_rate=1e-2, total_steps=8, warmup=0, weight_decay=0.1)
    batches = _batches(tiny, 8)
    batches[5]["weight"][0] = np.inf
    vocabulary = PhaseVocabulary.from_tokens((b["tokens"] for b in batches), tiny.VOCABULARY, multiple=8)
    params = tiny.make_params()
    plain, _, _ = _train(tiny, params, batches, optimizer, tiny.label_loss)
    restored = vocabulary.restore(
        vocabulary.shrink(plain.params),
        params["encoder"]["embeddings"]["word"],
        optimizer=optimizer,
        steps=8,
        skipped=(5,),
    )
    ours, theirs = (p["encoder"]["embeddings"]["word"] for p in (restored, plain.params))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_array_equal(ours[vocabulary.ids], theirs[vocabulary.ids])


def test_special_ids_stay_what_they_are_and_the_size_is_a_multiple():
    vocabulary = PhaseVocabulary.from_tokens([np.array([[7, 900], [7, 1]])], 1000)
    assert len(vocabulary) == 128
    assert vocabulary.ids[:4].tolist() == [0, 1, 2, 3] and vocabulary.ids[-1] == 999
    assert 900 in vocabulary.ids and np.all(np.diff(vocabulary.ids) > 0)
    tokens = np.array([[0, 7, 900, 2, 1, 1]], np.int32)
    arrays = vocabulary.remap({"tokens": tokens, "label": np.array([900])})
    assert arrays["tokens"][0, [0, 3, 4]].tolist() == [0, 2, 1] and arrays["tokens"].dtype == np.int32
    np.testing.assert_array_equal(vocabulary.ids[arrays["tokens"]], tokens)
    assert arrays["label"].tolist() == [900]
    assert len(PhaseVocabulary.from_tokens([np.arange(100)], 100)) == 100


def test_unknown_tokens_are_named():
    vocabulary = PhaseVocabulary.from_tokens([np.array([200])], 1000)
    with pytest.raises(TrainingError, match="1 token id") as caught:
        vocabulary.remap({"tokens": np.array([[200, 555]], np.int32)})
    assert "555" in caught.value.where
    with pytest.raises(TrainingError, match="from 5 to 1000"):
        PhaseVocabulary.from_tokens([np.array([5, 1000])], 1000)


def test_shrinking_takes_rows_of_device_and_host_arrays(tiny):
    params = tiny.make_params()
    vocabulary = PhaseVocabulary(np.array([0, 1, 2, 3, 9, 63], np.int32), 64)
    host = jax.tree.map(np.asarray, params)
    for tree in (params, host):
        small = vocabulary.shrink(tree)["encoder"]["embeddings"]["word"]
        np.testing.assert_array_equal(
            small, np.asarray(params["encoder"]["embeddings"]["word"])[vocabulary.ids]
        )
    assert isinstance(vocabulary.shrink(params)["encoder"]["embeddings"]["word"], jnp.ndarray)


def test_where_it_is_right():
    assert fits_phase_vocabulary("float32", {"classify", "tag"})
    assert not fits_phase_vocabulary("bfloat16", {"classify"})
    assert not fits_phase_vocabulary("float32", {"classify", "mlm"})
