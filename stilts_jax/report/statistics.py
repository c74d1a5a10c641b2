"""Statistics on plain arrays: bootstrap, McNemar, corrections, variance components, rank correlation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 1000
_FEWEST_DEGREES = 3  # of freedom, below which a partial correlation is no more than noise


def resample_counts(generator: np.random.Generator, items: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Draws bootstrap samples of ``items`` items.

    Returns:
        float32 [resamples, items]: how often each item is in each sample; a matrix product with the items'
        values then gives the sums over samples.
    """
    counts = np.empty((resamples, items), np.float32)
    for sample in counts:
        sample[:] = np.bincount(generator.integers(0, items, items, dtype=np.int32), minlength=items)
    return counts


@dataclass(frozen=True)
class Interval:
    """A difference, its 95 % bootstrap interval, and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


def bootstrap_interval(difference: float, resampled: np.ndarray) -> Interval:
    """Describes ``difference`` by its values in resampled data ([R]).

    Both take the difference over its bootstrap standard error as normal, so that the interval leaves zero out just
    where p < 0.05. Counting resamples beyond zero could not tell p-values below 1/R apart, which correcting for
    many comparisons needs.
    """
    error = float(np.std(resampled, ddof=1))
    low, high = difference + error * stats.norm.ppf([0.025, 0.975])
    p = math.nan
    if error > 1e-9:
        p = float(2 * stats.norm.sf(abs(difference) / error))
    elif abs(difference) < 1e-9:
        p = 1.0
    return Interval(difference, float(low), float(high), p)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction (family-wise error); NaN is left out of the family and stays NaN."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, math.nan)
    there = np.flatnonzero(np.isfinite(p))
    order = there[np.argsort(p[there], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """Benjamini and Hochberg's correction (false discovery rate); NaN is left out and stays NaN."""
    p = np.asarray(p_values, np.float64)
    adjusted, there = np.full(p.shape, math.nan), np.isfinite(p)
    adjusted[there] = stats.false_discovery_control(p[there])
    return adjusted


@dataclass(frozen=True)
class Components:
    """Variance components of scores over two kinds of seeds; NaN where the design can't tell.

    Attributes:
        intermediate: variance between intermediate seeds, by the method of moments (may be below zero).
        target: variance between target seeds.
        rest: what neither explains: their interaction, and everything else.
        shape: (intermediate seeds, target seeds)
    """

    intermediate: float
    target: float
    rest: float
    shape: tuple[int, int]


def crossed_components(scores: np.ndarray) -> Components:
    """Splits the variance of a full table of scores [intermediate seeds, target seeds].

    Two-way random effects without replication: with mean squares MS_I, MS_T and MS_R of rows, columns and
    rest, rest = MS_R, intermediate = (MS_I - MS_R) / columns, target = (MS_T - MS_R) / rows. With one row or
    column only the variance over the other is known, and it includes the rest.
    """
    rows, columns = scores.shape
    if rows == 1 or columns == 1:
        variance = float(np.var(scores, ddof=1)) if scores.size > 1 else math.nan
        return Components(
            variance if rows > 1 else math.nan,
            variance if columns > 1 else math.nan,
            math.nan,
            (rows, columns),
        )
    grand = scores.mean()
    by_row, by_column = scores.mean(axis=1), scores.mean(axis=0)
    square_rows = columns * float(np.sum((by_row - grand) ** 2)) / (rows - 1)
    square_columns = rows * float(np.sum((by_column - grand) ** 2)) / (columns - 1)
    rest = scores - by_row[:, None] - by_column + grand
    square_rest = float(np.sum(rest**2)) / ((rows - 1) * (columns - 1))
    return Components(
        (square_rows - square_rest) / columns,
        (square_columns - square_rest) / rows,
        square_rest,
        (rows, columns),
    )


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho, its p-value and 95 % interval, and the partial correlation."""

    rho: float
    p: float
    low: float
    high: float
    partial: float
    partial_p: float
    count: int


def correlate(x: np.ndarray, y: np.ndarray, controls: np.ndarray) -> Correlation:
    """Rank correlation of ``x`` and ``y`` ([N]) over languages, and the same given ``controls`` ([N, K]).

    Languages without a control (NaN) are left out of the partial correlation, and so is a control that no
    language has.
    """
    rho, p = spearman(x, y)
    low, high = spearman_interval(rho, len(x))
    controls = controls[:, np.isfinite(controls).any(axis=0)]
    known = np.isfinite(controls).all(axis=1)
    partial, partial_p = math.nan, math.nan
    if controls.shape[1]:
        partial, partial_p = partial_spearman(x[known], y[known], controls[known])
    return Correlation(rho, p, low, high, partial, partial_p, len(x))


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Spearman's rho and its p-value (t approximation); NaN where one side is constant or N < 4."""
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan
    found = stats.spearmanr(x, y)
    return float(found.statistic), float(found.pvalue)


def spearman_interval(rho: float, count: int) -> tuple[float, float]:
    """The 95 % interval of rho over ``count`` languages, on Fisher's scale.

    Half its width is the rho that the test of ``spearman`` finds at p = 0.05, so that the two never disagree.
    """
    if not math.isfinite(rho):
        return math.nan, math.nan
    t = float(stats.t.ppf(0.975, count - 2))
    half = math.atanh(t / math.sqrt(count - 2 + t * t))
    middle = float(np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15)))
    return math.tanh(middle - half), math.tanh(middle + half)


def partial_spearman(x: np.ndarray, y: np.ndarray, controls: np.ndarray) -> tuple[float, float]:
    """Correlation of the ranks of ``x`` and ``y`` after linear regression on the ranks of ``controls``.

    Returns:
        The correlation and its two-sided p-value, with a degree of freedom taken off for each control.
    """
    controls = np.asarray(controls, np.float64).reshape(len(x), -1)
    controls = controls[:, np.ptp(controls, axis=0) > 0] if len(x) else controls
    degrees = len(x) - 2 - controls.shape[1]
    if degrees < _FEWEST_DEGREES:
        return math.nan, math.nan
    ranks = stats.rankdata(controls, axis=0)
    design = np.column_stack([np.ones(len(x)), ranks])
    left, right = (
        values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        for values in (stats.rankdata(x), stats.rankdata(y))
    )
    size = math.sqrt(float(left @ left) * float(right @ right))
    if size < 1e-9:
        return math.nan, math.nan
    rho = float(np.clip(left @ right / size, -1, 1))
    if abs(rho) > 1 - 1e-12:
        return rho, 0.0
    return rho, float(2 * stats.t.sf(abs(rho) * math.sqrt(degrees / (1 - rho**2)), degrees))
