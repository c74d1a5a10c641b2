import numpy as np
import pytest
from scipy import stats

from stilts_jax.report.statistics import (
    bootstrap_interval,
    correlate,
    crossed_components,
    holm,
    partial_spearman,
    resample_counts,
    spearman,
    spearman_interval,
)


def test_every_resample_has_as_many_items_as_the_data():
    counts = resample_counts(np.random.default_rng(0), 50, 400)
    assert counts.shape == (400, 50)
    assert (counts.sum(axis=1) == 50).all()
    # How often one item is drawn is binomial(50, 1/50): variance 0.98.
    assert counts.var() == pytest.approx(0.98, rel=0.05)


def test_bootstrap_agrees_with_the_paired_t_test():
    generator = np.random.default_rng(1)
    first = generator.random(2000)
    second = first + generator.normal(0.01, 0.2, 2000)
    counts = resample_counts(generator, 2000, 2000)
    difference = float(np.mean(second - first))
    interval = bootstrap_interval(difference, counts @ (second - first) / 2000)
    expected = stats.ttest_rel(second, first)
    low, high = expected.confidence_interval(0.95)
    assert interval.p == pytest.approx(expected.pvalue, rel=0.2)
    assert interval.low == pytest.approx(low, abs=0.001)
    assert interval.high == pytest.approx(high, abs=0.001)


def test_a_difference_without_any_variance_is_not_called_significant():
    assert bootstrap_interval(0.0, np.zeros(100)).p == 1.0
    assert np.isnan(bootstrap_interval(2.0, np.full(100, 2.0)).p)


def test_holm_by_hand():
    # Sorted 0.01 x4, 0.02 x3, 0.03 x2, 0.04 x1, each at least the one before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    adjusted = holm([0.01, np.nan, 0.5])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.5])
    assert np.isnan(adjusted[1])


def test_components_by_hand():
    # Rows 1, 3 (means 2 and 6), columns differ by 2: an additive table has no rest.
    components = crossed_components(np.array([[1.0, 3.0], [5.0, 7.0]]))
    # MS_I = 2 * ((2-4)^2 + (6-4)^2) = 16, MS_T = 2 * ((3-4)^2 + (5-4)^2) = 4, MS_R = 0.
    assert (components.intermediate, components.target, components.rest) == pytest.approx((8.0, 2.0, 0.0))


def test_components_agree_with_one_way_anova():
    scores = np.random.default_rng(3).normal(70, 1, (4, 6))
    found = crossed_components(scores)
    rows, columns = scores.shape
    between = columns * found.intermediate + found.rest
    within = (columns - 1) * (rows * found.target + found.rest) + (rows - 1) * (columns - 1) * found.rest
    assert between / (within / (rows * (columns - 1))) == pytest.approx(stats.f_oneway(*scores).statistic)


def test_components_recover_what_was_simulated():
    generator = np.random.default_rng(4)
    scores = (
        generator.normal(0, 2.0, (300, 1))
        + generator.normal(0, 1.0, 300)
        + generator.normal(0, 0.5, (300, 300))
    )
    found = crossed_components(scores)
    assert found.intermediate == pytest.approx(4.0, rel=0.2)
    assert found.target == pytest.approx(1.0, rel=0.2)
    assert found.rest == pytest.approx(0.25, rel=0.05)


def test_components_are_those_of_a_mixed_model():
    """On a full table with positive components, restricted maximum likelihood gives the same numbers.

    Those here are of statsmodels 0.15, ``MixedLM`` with crossed random effects.
    """
    scores = np.array([[71.2, 70.4, 72.9, 71.0], [69.8, 69.1, 70.6, 70.9], [73.0, 71.5, 74.2, 72.1]])
    found = crossed_components(scores)
    expected = (1.60499, 0.72222, 0.34083)
    assert (found.intermediate, found.target, found.rest) == pytest.approx(expected, abs=2e-5)


def test_components_of_one_kind_of_seed():
    found = crossed_components(np.array([[1.0, 2.0, 4.0]]))
    assert found.target == pytest.approx(np.var([1, 2, 4], ddof=1))
    assert np.isnan(found.intermediate)
    assert np.isnan(found.rest)


def test_spearman_with_ties():
    x, y = np.array([1.0, 2, 2, 3, 5, 8]), np.array([2.0, 1, 4, 4, 6, 5])
    expected = stats.pearsonr(stats.rankdata(x), stats.rankdata(y))
    assert spearman(x, y)[0] == pytest.approx(expected.statistic)
    assert np.isnan(spearman(np.ones(6), y)[0])


@pytest.mark.parametrize("count", [5, 8, 20, 38])
def test_the_interval_of_spearman_leaves_zero_out_where_scipy_finds_p_below_5_percent(count):
    generator = np.random.default_rng(count)
    for _ in range(200):
        x = generator.random(count)
        y = x + generator.normal(0, 0.8, count)
        expected = stats.spearmanr(x, y)
        low, high = spearman_interval(expected.statistic, count)
        assert low <= expected.statistic <= high
        assert (low > 0 or high < 0) == (expected.pvalue < 0.05)


def test_partial_correlation_given_one_control_has_a_closed_form():
    generator = np.random.default_rng(7)
    z = generator.random(25)
    x, y = z + generator.random(25), z + generator.random(25)
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    found, p = partial_spearman(x, y, z[:, None])
    assert found == pytest.approx(expected)
    t = expected * np.sqrt(22 / (1 - expected**2))
    assert p == pytest.approx(2 * stats.t.sf(abs(t), 22))


def test_languages_without_controls_are_left_out_of_the_partial_correlation_only():
    generator = np.random.default_rng(8)
    x, y, z = generator.random(20), generator.random(20), generator.random((20, 2))
    gaps = z.copy()
    gaps[:4, 0] = np.nan
    found = correlate(x, y, gaps)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.partial == pytest.approx(partial_spearman(x[4:], y[4:], z[4:])[0])
    nothing = correlate(x, y, np.full((20, 2), np.nan))
    assert np.isnan(nothing.partial)
