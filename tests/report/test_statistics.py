"""Statistics against scipy, statsmodels' numbers, the bootstrap that they stand for, and cases by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from stilts_jax.errors import DataError
from stilts_jax.evaluation.benchmarks import BENCHMARKS
from stilts_jax.evaluation.metrics import Items
from stilts_jax.report import statistics
from stilts_jax.report.names import language_name, read_table
from stilts_jax.report.typology import find_typology, read_distances
from stilts_jax.tasks import get_task
from tests.report import made_up_grid


def test_an_interval_of_seeds_is_that_of_the_t_test():
    values = [1.0, 2.5, 1.7, 3.0]
    expected = stats.ttest_1samp(values, 0.0)
    by_seeds = {(0, seed): one for seed, one in enumerate(values)}
    found = statistics.find_interval(np.mean(values), {}, statistics.seed_error(by_seeds))
    low, high = expected.confidence_interval()
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))
    diagonal = statistics.seed_error({(seed, seed): one for seed, one in enumerate(values)})
    assert diagonal == statistics.seed_error({(seed, None): one for seed, one in enumerate(values)})


def test_a_difference_without_any_variance_is_not_called_significant():
    assert statistics.find_interval(0.0, {}).p == 1.0 and np.isnan(statistics.find_interval(2.0, {}).p)
    assert np.isnan(statistics.find_interval(2.0, {("items",): np.ones(9)}).error_seeds)  # one run


@pytest.mark.parametrize("statistic", ["mean", "chunk_f1", "binary_f1"])
def test_the_shares_of_items_make_the_error_of_the_bootstrap(statistic):
    generator = np.random.default_rng(3)
    task = {"mean": "xnli", "chunk_f1": "panx", "binary_f1": "bucc"}[statistic]
    values = made_up_grid.draw(generator, task, 70.0, 600)
    moved, beside = statistics.shares([Items(statistic, values)])
    gold = values[values[:, 2] > 0] if statistic == "binary_f1" else values
    scores = []
    for _ in range(3000):
        drawn = gold[generator.integers(0, len(gold), len(gold))]
        if statistic == "binary_f1":
            extra = generator.poisson(len(values) - len(gold))
            drawn = np.concatenate([drawn, np.tile([0, 1, 0], (extra, 1))])
        scores.append(made_up_grid.score(drawn))
    assert sum(float(one @ one) for one in [moved, *beside]) ** 0.5 == pytest.approx(np.std(scores), rel=0.06)


def test_holm_by_hand():
    # Sorted 0.01 x4, 0.02 x3, 0.03 x2, 0.04 x1, each at least the one before it.
    assert statistics.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    adjusted = statistics.holm([0.01, np.nan, 0.5])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.5]) and np.isnan(adjusted[1])


def test_components_are_those_of_a_mixed_model():
    """On a full table with positive components, restricted maximum likelihood gives the same numbers.

    Those here are of statsmodels 0.15, ``MixedLM`` with crossed random effects.
    """
    scores = np.array([[71.2, 70.4, 72.9, 71.0], [69.8, 69.1, 70.6, 70.9], [73.0, 71.5, 74.2, 72.1]])
    assert statistics.crossed_components(scores) == pytest.approx((1.60499, 0.72222, 0.34083), abs=2e-5)
    first, second, rest = statistics.crossed_components(np.array([[1.0, 2.0, 4.0]]))
    assert second == pytest.approx(np.var([1, 2, 4], ddof=1)) and np.isnan([first, rest]).all()


@pytest.mark.parametrize("count", [5, 8, 20, 38])
def test_spearman_is_scipys_and_its_interval_leaves_zero_out_where_p_is_below_5_percent(count):
    generator = np.random.default_rng(count)
    for _ in range(100):
        x = generator.integers(0, 3 * count, count).astype(float)  # with ties
        y = x + generator.normal(0, 0.8 * count, count)
        expected, found = stats.spearmanr(x, y), statistics.correlate(x, y, np.full((count, 1), np.nan))
        known = expected.statistic, max(expected.pvalue, 2 / math.factorial(count))  # of so many orders
        assert (found["rho"], found["p"]) == pytest.approx(known)
        assert found["low"] - 1e-9 <= found["rho"] <= found["high"] + 1e-9
        assert (found["low"] > 0 or found["high"] < 0) == (found["p"] < 0.05)
        assert np.isnan(found["partial"])
    assert np.isnan(statistics.spearman(np.ones(6), np.arange(6.0))[0])


def test_partial_correlation_given_one_control_has_a_closed_form():
    generator = np.random.default_rng(7)
    z = generator.random(25)
    x, y = z + generator.random(25), z + generator.random(25)
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    found, p = statistics.spearman(x, y, z[:, None])
    assert found == pytest.approx(expected)
    assert p == pytest.approx(2 * stats.t.sf(abs(expected * np.sqrt(22 / (1 - expected**2))), 22))


def test_languages_of_benchmarks_and_of_targets_of_today_have_names_scripts_and_families():
    known = read_table("languages.csv")
    tasks = [task for name in ("xtreme", "xtreme-r") for task in BENCHMARKS[name].values()]
    assert {code for task in tasks for code in task.languages} <= {*known.index}
    for name in ("sib200", "belebele", "masakhaner_x", "afriqa", "nusax", "masakhanews"):
        assert {*get_task(name).languages} - {*known.index} <= {"eo"}  # a language without a place
    assert known.family.str.count("/").eq(2).all() and known.script.str.fullmatch("[A-Z][a-z]{3}").all()
    assert known.latitude.between(-90, 90).all() and known.longitude.between(-180, 180).all()
    assert language_name("sw") == "Swahili" and language_name("taq_Tfng") == "Tamasheq (Tifinagh)"


def test_built_in_distances():
    found = find_typology(["en", "de", "fr", "hi", "zh", "xx"], "en")
    (north, east), (north0, east0) = np.radians([(36, 112), (53, -1)])
    angle = np.sin(north) * np.sin(north0) + np.cos(north) * np.cos(north0) * np.cos(east - east0)
    assert found.distances["geographic distance"]["zh"] == pytest.approx(np.arccos(angle) / np.pi)
    family = found.distances["genealogical distance"].to_dict()
    assert family == {"en": 0.0, "de": 0.25, "fr": 0.75, "hi": 0.75, "zh": 1.0}
    scripts = {"en": "Latn", "de": "Latn", "fr": "Latn", "hi": "Deva", "zh": "Hani"}
    assert found.controls.script.to_dict() == scripts
    assert found.controls.log_size["de"] == pytest.approx(math.log(18000)) and "xx" in found.note
    assert find_typology(["en", "de"], "xx").distances.empty


def test_own_csv(tmp_path):
    path = tmp_path / "own.csv"
    text = "code,name,word_order,script,log_size,\nen,toy English,0,Latn,3,\nsw,toy Swahili,.5,Latn,,\n"
    path.write_text("\ufeff" + text, "utf-8")
    found = read_distances(path)
    assert found.distances.to_dict() == {"word order": {"en": 0.0, "sw": 0.5}}
    assert found.controls.script.to_dict() == {"en": "Latn", "sw": "Latn"}
    assert found.controls.log_size.dropna().to_dict() == {"en": 3.0} and found.names["sw"] == "toy Swahili"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be read"),
        (b"language,a\nen,1\n", "lacks columns"),
        (b"code,a b,a_b\nen,1,2\n", "has one twice"),
        (b"code,a,code,a\nen,1,en,2\n", "has one twice"),
        (b"code,a\nen,1\nsw,far\n", "own.csv:3, column a"),
        (b"code,a\nsw,inf\n", "no number"),
        (b"\x00\xff\xfe\x93" * 40, "can't be read"),
    ],
)
def test_own_csv_with_mistakes(tmp_path, content, message):
    path = tmp_path / "own.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_distances(path)
