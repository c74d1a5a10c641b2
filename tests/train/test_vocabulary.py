import jax
import numpy as np
import pytest

from stilts_jax.errors import TrainingError
from stilts_jax.features.records import Ragged
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import TrainState, train_step
from stilts_jax.train.vocabulary import PhaseVocabulary


def make_batches(tiny, count):
    # Ids up to 40 of 64: the rest never occurs.
    return [tiny.batch_at(step, rows=4, tasks=("labels",), vocabulary=40).arrays for step in range(count)]


def train(tiny, params, batches, optimizer, loss):
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


def test_steps_that_were_left_out_do_not_decay(tiny):
    optimizer = OptimizerConfig(learning_rate=1e-2, total_steps=8, warmup=0, weight_decay=0.1)
    batches = make_batches(tiny, 8)
    batches[5]["weight"][0] = np.inf
    vocabulary = PhaseVocabulary.from_tokens((b["tokens"] for b in batches), tiny.VOCABULARY, multiple=8)
    params = tiny.make_params()
    plain, _, _ = train(tiny, params, batches, optimizer, tiny.label_loss)
    word, options = params["encoder"]["embeddings"]["word"], {"steps": 8, "skipped": (5,)}
    restored = vocabulary.restore(vocabulary.shrink(plain.params), word, optimizer=optimizer, **options)
    ours, theirs = (p["encoder"]["embeddings"]["word"] for p in (restored, plain.params))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_array_equal(ours[vocabulary.ids], theirs[vocabulary.ids])


def test_special_ids_stay_what_they_are_and_the_size_is_a_multiple():
    vocabulary = PhaseVocabulary.from_tokens([np.array([[7, 900], [7, 1]])], 1000)
    assert len(vocabulary) == 128
    assert vocabulary.ids[:4].tolist() == [0, 1, 2, 3] and vocabulary.ids[-1] == 999
    assert 900 in vocabulary.ids and np.all(np.diff(vocabulary.ids) > 0)
    tokens = Ragged.from_list([[0, 7, 2], [0, 900, 1, 2]])
    columns = vocabulary.remap({"tokens": tokens, "label": np.array([900])})
    found = columns["tokens"]
    assert found.values[[0, 2, 5, 6]].tolist() == [0, 2, 1, 2] and found.values.dtype == np.int32
    np.testing.assert_array_equal(vocabulary.ids[found.values], tokens.values)
    assert found.lengths.tolist() == [3, 4] and columns["label"].tolist() == [900]
    assert len(PhaseVocabulary.from_tokens([np.arange(100)], 100)) == 100
    with pytest.raises(TrainingError, match="from 5 to 1000"):
        PhaseVocabulary.from_tokens([np.array([5, 1000])], 1000)
