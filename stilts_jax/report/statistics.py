"""Statistics on plain arrays: errors of items and seeds, corrections, variance components, rank correlation."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from stilts_jax.evaluation.metrics import Items

FEWEST_DEGREES = 3  # of freedom, below which a partial correlation is no more than noise
# By what was drawn together: how much each item moves a difference, in points.
Shares = dict[tuple, np.ndarray]


class Interval(NamedTuple):
    """A difference with its 95 % interval and two-sided p-value; and the standard errors that they are made of."""

    difference: float
    low: float
    high: float
    p: float
    error_items: float
    error_seeds: float


def find_interval(difference: float, moved: Shares, seeds: tuple = (0.0, 0.0)) -> Interval:
    """The interval of a difference (or score) that each item moves by ``moved``; ``seeds`` as of ``seed_error``.

    Student's t with the degrees of freedom of Welch and Satterthwaite: of one source it is the usual t interval. What
    is random in a run's answer to an item is in both parts: with few items and steady seeds it is rather too wide.
    """
    items, count = 0.0, 0
    for name, one in moved.items():
        own = len(one) if name[0] == "items" else 0
        items += float(one @ one) * (own / max(own - 1, 1) if own else 1.0)
        count += own
    variance = items + seeds[0]
    error, p, half = math.sqrt(variance), math.nan, 0.0
    if error > 1e-9:
        squares = items**2 / max(count - 1, 1) + (seeds[0] ** 2 / seeds[1] if seeds[1] else 0.0)
        degrees = variance**2 / squares
        half = error * float(special.stdtrit(degrees, 0.975))
        p = float(2 * special.stdtr(degrees, -abs(difference) / error))
    elif abs(difference) < 1e-9:
        p = 1.0
    errors = math.sqrt(items), math.sqrt(seeds[0]) if seeds[1] else math.nan
    return Interval(difference, difference - half, difference + half, p, *errors)


def seed_error(by_seeds: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """The squared standard error of the mean over runs, and its degrees of freedom; zeros for one run.

    Two-way random effects where seeds are crossed: runs that share a seed are not independent. The sum of the variances
    of the means of both kinds of seed holds that of the rest twice; it is taken off once where the table is full.
    """
    values, count = np.array(list(by_seeds.values())), len(by_seeds)
    sides = np.array(list(by_seeds), object).T
    means = [np.array([values[side == seed].mean() for seed in dict.fromkeys(side)]) for side in sides]
    if count in map(len, means):  # a seed of its own for each run: that is all there is
        means = [values]
    parts = [(float(np.var(one, ddof=1)) / len(one), len(one) - 1) for one in means if len(one) > 1]
    if len(parts) == 2 and math.prod(map(len, means)) == count:
        degrees = parts[0][1] * parts[1][1]
        between = sum(variance * (freedom * count) for variance, freedom in parts)
        parts.append((-max(float(np.var(values)) * count - between, 0.0) / degrees / count, degrees))
    variance = max([sum(one for one, _ in parts), *(one for one, _ in parts)], default=0.0)
    spread = sum(one**2 / degrees for one, degrees in parts)
    return variance, max(variance**2 / spread, 1.0) if spread else float(len(parts) > 0)


def count_items(items: Items) -> int:
    """How many items can be paired between runs: of a set of pairs, those in the gold set."""
    return int(np.count_nonzero(items.values[:, 2])) if items.statistic == "binary_f1" else len(items.values)


def score_items(items: Items) -> float:
    """The percentage that the items add up to."""
    if items.statistic == "mean":
        return 100.0 * float(np.mean(items.values, dtype=np.float64)) if len(items.values) else math.nan
    right, predicted, gold = items.values.sum(axis=0, dtype=np.float64)
    return 200.0 * right / (predicted + gold) if predicted + gold else 0.0


def shares(runs: Sequence[Items]) -> tuple[np.ndarray, list[np.ndarray]]:
    """How much each item moves the mean score of runs, in points, which sums to zero; and each run's own items.

    Drawing items again (the bootstrap) changes a mean by the sum of the shares of what was drawn, and F1 to first
    order. Of pairs only those of the gold set are the same in every run; the others vary as a Poisson count.
    """
    if runs[0].statistic == "mean":
        means = np.stack([one.values for one in runs]).mean(axis=0, dtype=np.float64)
        return 100.0 * (means - means.mean()) / len(means), []
    paired, beside = [], []
    for one in runs:
        values = one.values.astype(np.float64)
        right, predicted, gold = values.sum(axis=0)
        total = max(predicted + gold, 1.0)
        found = 200.0 * (values[:, 0] * total - right * (values[:, 1] + values[:, 2])) / total**2 / len(runs)
        in_gold = values[:, 2] > 0 if one.statistic == "binary_f1" else np.ones(len(values), bool)
        paired.append(found[in_gold] - found[in_gold].mean())
        beside.append(found[~in_gold])
    return np.sum(paired, axis=0), beside


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction (family-wise error); NaN is left out of the family and stays NaN."""
    p = pd.Series(p_values, dtype=float).dropna().sort_values()
    adjusted = (p * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0)
    return adjusted.reindex(range(len(p_values))).to_numpy()


def crossed_components(scores: np.ndarray) -> tuple[float, float, float]:
    """The variance of a full table of scores [intermediate seeds, target seeds] by rows, by columns, and the rest.

    Two-way random effects without replication, by the method of moments (a variance may come out below zero). With one
    row or column only the variance over the other is known, and it includes the rest; what can't be told is NaN.
    """
    rows, columns = scores.shape
    if rows == 1 or columns == 1:
        variance = float(np.var(scores, ddof=1)) if scores.size > 1 else math.nan
        return variance if rows > 1 else math.nan, variance if columns > 1 else math.nan, math.nan
    by_row, by_column = scores.mean(axis=1), scores.mean(axis=0)
    residual = scores - by_row[:, None] - by_column + scores.mean()
    rest = float(np.sum(residual**2)) / ((rows - 1) * (columns - 1))
    first, second = (float(np.var(one, ddof=1)) for one in (by_row, by_column))
    return first - rest / columns, second - rest / rows, rest


def full_table(by_seeds: Mapping[tuple[int, int], float]) -> np.ndarray:
    """Returns a full table [intermediate seeds, target seeds]: seeds that lack a run are left out, emptiest first."""
    table = pd.Series(by_seeds, dtype=float).unstack() if by_seeds else pd.DataFrame()
    while table.isna().any(axis=None):
        empty = [table.isna().mean(axis=1), table.isna().mean(axis=0)]
        side = int(empty[1].max() > empty[0].max())
        table = table.drop(empty[side].idxmax(), axis=side)
    return table.to_numpy()


def correlate(x: np.ndarray, y: np.ndarray, controls: np.ndarray) -> dict[str, float]:
    """Spearman's ``rho`` of ``x`` and ``y`` ([N]) over languages, and ``partial``, given ``controls`` ([N, K]).

    Languages without a control (NaN) are left out of ``partial``, and so is a control that no language has. Half the
    interval's width, on Fisher's scale, is the rho with p = 0.05, so that the two never disagree; that of a larger rho
    is as much wider as Bonett and Wright (2000) say.
    """
    rho, p = spearman(x, y)
    t = float(special.stdtrit(len(x) - 2, 0.975))
    least = t / math.sqrt(len(x) - 2 + t * t)
    half = math.atanh(least) * math.sqrt(max((1 + rho**2 / 2) / (1 + least**2 / 2), 1.0))
    middle = math.atanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))
    controls = controls[:, np.isfinite(controls).any(axis=0)]
    known = np.isfinite(controls).all(axis=1)
    held = x[known], y[known], controls[known]
    partial, partial_p = spearman(*held) if controls.shape[1] else (math.nan, math.nan)
    found = {"rho": rho, "p": p, "low": math.tanh(middle - half), "high": math.tanh(middle + half)}
    counts = {"languages": len(x), "partial_languages": int(known.sum())}
    return found | {"partial": partial, "partial_p": partial_p} | counts


def spearman(x: np.ndarray, y: np.ndarray, controls: np.ndarray | None = None) -> tuple[float, float]:
    """Spearman's rho and its two-sided p-value (t approximation); NaN where they can't be told.

    Given ``controls`` ([N, K]) it is the correlation of what a linear regression on their ranks leaves of the ranks,
    with a degree of freedom taken off for each.
    """
    used = np.empty((len(x), 0))
    if controls is not None and len(x):
        used = controls[:, np.ptp(controls, axis=0) > 0]
    degrees = len(x) - 2 - used.shape[1]
    if degrees < (FEWEST_DEGREES if used.shape[1] else 2):
        return math.nan, math.nan
    design = np.column_stack([np.ones(len(x)), *(stats.rankdata(one) for one in used.T)])
    ranks = np.column_stack([stats.rankdata(x), stats.rankdata(y)])
    left, right = (ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]).T
    size = math.sqrt(float(left @ left) * float(right @ right))
    if size < 1e-9:
        return math.nan, math.nan
    rho = float(np.clip(left @ right / size, -1, 1))
    t = math.inf if abs(rho) > 1 - 1e-12 else abs(rho) * math.sqrt(degrees / (1 - rho**2))
    # Of n! orders none is rarer than these two.
    return rho, max(float(2 * special.stdtr(degrees, -t)), 2 / math.factorial(len(x)))
