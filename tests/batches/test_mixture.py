from collections import Counter

import numpy as np
import pytest

from stilts_jax.batches.plan import Schedule, count_steps, smoothed_rows, weigh_tasks
from stilts_jax.errors import ConfigError
from stilts_jax.settings import MixtureSettings


@pytest.mark.parametrize("weights", [[1, 1], [3, 1, 7.5], [1, 1000], [0.2, 0.3, 0.5, 1e-4]])
def test_every_block_gives_each_its_share_and_occurrences_count_up(weights):
    schedule = Schedule(weights, seed=5, block=50, purpose="test")
    shares = np.array(weights) / sum(weights)
    np.testing.assert_allclose(schedule.shares, shares, rtol=1e-6)
    steps = np.arange(6 * schedule.block)
    seen: Counter[int] = Counter()
    for step, (item, occurrence) in enumerate(schedule.take(steps).T.tolist()):
        assert occurrence == seen[item]
        seen[item] += 1
        if (step + 1) % schedule.block == 0:
            counts = np.array([seen[number] for number in range(len(weights))])
            assert (np.abs(counts - shares * (step + 1)) <= 1 + 1e-6).all()
    order = np.random.default_rng(0).permutation(steps)[:99]
    np.testing.assert_array_equal(schedule.take(order), schedule.take(steps)[:, order])
    with pytest.raises(ConfigError, match="too small"):
        Schedule([*weights, 1e-30], seed=0, block=8, purpose="test")


def test_samplers_by_hand():
    sizes = {"a": 100, "b": 400, "c": 900}

    def weigh(given=None, more=None, **options):
        return weigh_tasks(sizes | (more or {}), MixtureSettings(**options), given or {})

    assert weigh(sampler="uniform") == {"a": 1, "b": 1, "c": 1}
    assert weigh(cap=300) == {"a": 100, "b": 300, "c": 300}
    assert weigh(sampler="temperature", temperature=2) == {"a": 10, "b": 20, "c": 30}
    assert weigh({"c": 1.0, "a": 2.0, "b": 3.0, "of another row": 9.0}) == {"a": 2.0, "b": 3.0, "c": 1.0}
    assert weigh(more={"mlm": 7}, cap=300, mlm_weight=0.3) == pytest.approx(
        {"a": 0.1, "b": 0.3, "c": 0.3, "mlm": 0.3}
    )


def test_the_length_of_a_phase_by_hand():
    # 392702 rows capped at 131072 are 4096 batches of 32; 100 rows are 4.
    assert count_steps([(392702, 2.0, 32), (100, 10.0, 32)], cap=131072) == 2 * 4096 + 40
    assert count_steps([(392702, 2.0, 32)], cap=10**9) == 2 * 12272
    assert count_steps([(100, 0.5, 32)], cap=100) == 2


def test_languages_come_as_the_power_of_their_rows():
    group = np.array([0] * 16 + [1] * 4 + [2])
    rows = smoothed_rows(group, alpha=0.5, seed=0)  # weights 4, 2, 1
    taken = rows(np.arange(7 * 256 * 4))
    assert np.bincount(group[taken]).tolist() == pytest.approx([4096, 2048, 1024], abs=3)
    for number, size in enumerate((16, 4, 1)):  # and inside a language each row equally often
        counts = np.bincount(taken[group[taken] == number], minlength=21)[group == number]
        assert counts.max() - counts.min() <= 1 and len(counts) == size
    np.testing.assert_array_equal(rows(np.arange(500, 520)), taken[500:520])
