import numpy as np
import pytest

from stilts_jax.bench.peer import plan_prediction, plan_training
from stilts_jax.bench.workload import LAWS, draw_workload
from stilts_jax.data.batches import PredictionStream, TrainingBatches
from stilts_jax.errors import ConfigError


@pytest.mark.parametrize("name", LAWS)
def test_drawn_rows_follow_their_law(name):
    law = LAWS[name]
    workload = draw_workload(name, 250_002)
    inner = workload.lengths[(workload.lengths > 8) & (workload.lengths < law.longest)]
    assert np.median(workload.lengths) == pytest.approx(np.exp(law.log_mean), rel=0.05)
    assert np.log(inner).std() == pytest.approx(law.log_sd, rel=0.25)
    used = np.unique(workload.features.columns["tokens"].values)
    assert law.pieces * 0.95 <= len(used) <= law.pieces + 2
    tokens = workload.features.columns["tokens"]
    assert all(tokens[row][0] == 0 and tokens[row][-1] == 2 for row in range(50))


@pytest.mark.parametrize("name", LAWS)
def test_drawn_rows_can_be_batched(name):
    workload = draw_workload(name, 320, rows=40, longest=64)
    batches = TrainingBatches("bench", workload.features, batch_size=8, seed=0, max_length=64)
    assert set(batches.batch_at(0).arrays) >= {"tokens", "weight"}
    taken = workload.take(np.array([5, 3, 8]))
    assert sum(len(batch.rows[batch.rows >= 0]) for batch in PredictionStream("bench", taken)) == 3
    assert taken.columns["tokens"][1].tolist() == workload.features.columns["tokens"][3].tolist()


def test_the_peer_gets_our_rows():
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 60, 300)
    rows = np.split(generator.permutation(300)[:288], 3)
    shuffled = plan_training(rows, lengths, 8, sort=False)
    for ours, theirs in zip(rows, shuffled):
        assert sorted(ours) == sorted(np.concatenate(theirs))
        assert all(len(batch) == 8 for batch in theirs)
    grouped = plan_training(rows, lengths, 8, sort=True)
    everything = np.concatenate([np.concatenate(part) for part in grouped])
    assert sorted(everything) == sorted(np.concatenate(rows))
    means = [lengths[np.concatenate(part)].mean() for part in grouped]
    assert max(means) - min(means) < 4  # no round gets the long rows
    padded = lambda plan: sum(lengths[b].max() * len(b) for part in plan for b in part)  # noqa: E731
    assert padded(grouped) < 0.75 * padded(shuffled)
    streamed = plan_prediction(rows[0], lengths, 8, sort=True)
    assert lengths[streamed[0]].min() >= lengths[streamed[1]].max()


def test_an_unknown_law_is_named():
    from stilts_jax.bench.workload import find_workload

    with pytest.raises(ConfigError, match="did you mean 'nli'"):
        find_workload("nlli", 320, None, None)
