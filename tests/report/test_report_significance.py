import made_up_grid
import numpy as np
import pytest
from scipy import stats

from stilts_jax.report.grid import Grid
from stilts_jax.report.names import find_benchmark
from stilts_jax.report.results import read_results
from stilts_jax.report.significance import compare_all, compare_task


def make_grid(tmp_path, task, training, items, statistic, aligned, metric="accuracy") -> Grid:
    """``items`` is {intermediate: {language: values}}."""
    for intermediate, by_language in items.items():
        encoded = {
            language: made_up_grid.encode_items(values, statistic, aligned)
            for language, values in by_language.items()
        }
        scores = {task: {metric: {code: made_up_grid._score(values) for code, values in by_language.items()}}}
        record = made_up_grid.make_record(intermediate, training, scores, items={task: encoded})
        made_up_grid.write_record(tmp_path, record)
    return Grid(read_results(tmp_path)[0], find_benchmark("xtreme"))


def test_translations_are_resampled_together(tmp_path):
    """Four languages with the very same outcomes tell no more than one: the interval must not shrink."""
    generator = np.random.default_rng(0)
    first, second = (generator.random((2, 1500)) < 0.7).astype(np.uint8)
    widths = {}
    for aligned in (True, False):
        items = {
            "none": dict.fromkeys(("de", "fr", "ru", "zh"), first),
            "mnli": dict.fromkeys(("de", "fr", "ru", "zh"), second),
        }
        grid = make_grid(tmp_path / str(aligned), "xnli", "mnli", items, "mean", aligned)
        [found], _ = compare_task(grid, "xnli")
        assert found.interval.difference == pytest.approx(100 * (second.mean() - first.mean()))
        widths[aligned] = found.interval.high - found.interval.low
        assert found.items == (1500 if aligned else 6000)
    standard_error = 100 * np.std(second.astype(float) - first) / np.sqrt(1500)
    assert widths[True] == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert widths[False] == pytest.approx(widths[True] / 2, rel=0.1)


def test_chunk_f1_is_recomputed_in_each_resample(tmp_path):
    generator = np.random.default_rng(1)
    gold = generator.integers(0, 4, 400)
    rows = {}
    for name, chance in (("none", 0.6), ("mnli", 0.68)):
        predicted = generator.integers(0, 4, 400)
        right = generator.binomial(np.minimum(gold, predicted), chance)
        rows[name] = np.stack([right, predicted, gold], axis=1).astype(np.int32)
    grid = make_grid(
        tmp_path,
        "panx",
        "panx",
        {name: {"sw": values} for name, values in rows.items()},
        "chunk_f1",
        False,
        "f1",
    )
    [found], [test] = compare_task(grid, "panx", 2000)
    slow = []
    for _ in range(2000):
        drawn = generator.integers(0, 400, 400)
        scores = [made_up_grid._score(rows[name][drawn]) for name in ("none", "mnli")]
        slow.append(scores[1] - scores[0])
    assert found.interval.difference == pytest.approx(
        made_up_grid._score(rows["mnli"]) - made_up_grid._score(rows["none"])
    )
    assert (found.interval.low, found.interval.high) == pytest.approx(
        tuple(np.percentile(slow, [2.5, 97.5])), abs=0.6
    )
    assert test.test == "paired bootstrap"


def test_pairs_found_beside_the_gold_set_need_not_match_between_runs(tmp_path):
    def pairs(right: np.ndarray, beside: int) -> np.ndarray:
        gold = np.stack([right, right, np.ones_like(right)], axis=1)
        return np.concatenate([gold, np.tile([0, 1, 0], (beside, 1))]).astype(np.int32)

    generator = np.random.default_rng(2)
    right = (generator.random((2, 800)) < 0.6).astype(int)
    right[1] |= (generator.random(800) < 0.2).astype(int)
    items = {"none": {"de": pairs(right[0], 300)}, "mnli": {"de": pairs(right[1], 90)}}
    grid = make_grid(tmp_path, "bucc", None, items, "binary_f1", False, "f1")
    [found], _ = compare_task(grid, "bucc")
    assert found.items == 800
    assert found.interval.low < found.interval.difference < found.interval.high
    assert found.interval.p < 1e-6


def test_mcnemar_of_each_language(tmp_path):
    generator = np.random.default_rng(3)
    rows = {
        name: {code: (generator.random(300) < 0.6).astype(np.uint8) for code in ("en", "sw")}
        for name in ("none", "mnli")
    }
    grid = make_grid(tmp_path, "xnli", "mnli", rows, "mean", True)
    _, tests = compare_task(grid, "xnli")
    for test in tests:
        one, other = rows["none"][test.language], rows["mnli"][test.language]
        only_one, only_other = int(np.sum((one == 1) & (other == 0))), int(np.sum((one == 0) & (other == 1)))
        assert test.test == "McNemar"
        assert test.p == pytest.approx(stats.binomtest(only_one, only_one + only_other).pvalue)
    assert sorted(test.holm for test in tests)[0] == pytest.approx(
        min(1.0, 2 * min(test.p for test in tests))
    )


def test_another_number_of_items_is_not_paired(tmp_path):
    rows = {"none": {"en": np.ones(10, np.uint8)}, "mnli": {"en": np.ones(11, np.uint8)}}
    grid = make_grid(tmp_path, "xnli", "mnli", rows, "mean", True)
    assert compare_all(grid) == ([], [], [])
