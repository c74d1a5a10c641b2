"""Which differences from the baseline are more than the luck of the test items."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stilts_jax.report.grid import Grid, Row
from stilts_jax.report.results import Items
from stilts_jax.report.statistics import (
    RESAMPLES,
    Interval,
    bootstrap_interval,
    holm,
    mcnemar,
    resample_counts,
)

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """One row against its baseline on one task.

    Attributes:
        difference: of the items' statistic, mean over ``languages``, points.
        resampled: [R] the difference in every resample.
        items: items resampled: of one language where they are aligned, else of all languages together.
    """

    row: Row
    task: str
    difference: float
    low: float
    high: float
    p: float
    items: int
    aligned: bool
    languages: tuple[str, ...]
    holm: float = math.nan
    resampled: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)


@dataclass(frozen=True)
class Mean:
    """The difference from the baseline, mean over tasks (and rows, where ``row`` is None), and its interval."""

    row: Row | None
    tasks: tuple[str, ...]
    interval: Interval


@dataclass(frozen=True)
class LanguageTest:
    """One row against its baseline in one language: McNemar where items are right or wrong."""

    row: Row
    task: str
    language: str
    test: str
    p: float
    holm: float = math.nan


def compare_task(
    grid: Grid, task: str, resamples: int = RESAMPLES
) -> tuple[list[Comparison], list[LanguageTest]]:
    """Compares every row with its baseline; empty where no items were kept.

    Items that are the same in every language are drawn together for all languages: translations of one hard
    sentence are not independent. A run's seeds are averaged inside each resample.
    """
    decoded = {run.key: run.items(task) for row in grid.rows for run in grid.cell(row, task).runs}
    by_row = {row: [decoded[run.key] for run in grid.cell(row, task).runs] for row in grid.rows}
    by_row = {row: runs for row, runs in by_row.items() if runs and all(runs)}
    pairs = [pair for pair in grid.compared if set(pair) <= set(by_row) and grid.compared_with(pair[0], task)]
    if not pairs:
        return [], []
    generator = np.random.default_rng(zlib.crc32(task.encode()))
    resampled: dict[tuple[Row, str], np.ndarray] = {}
    scores: dict[tuple[Row, str], float] = {}
    sizes: dict[str, int] = {}
    aligned_language: dict[str, bool] = {}
    aligned_counts: dict[tuple[int, str], np.ndarray] = {}
    for language in grid.languages(task):
        ready = {row: found for row, runs in by_row.items() if (found := _of_language(runs, language))}
        of_baselines = {_identity(ready[base]) for _, base in pairs if base in ready}
        if len(of_baselines) != 1:
            continue
        size, ids = of_baselines.pop()
        sizes[language] = size
        # A row that was scored on other items can't be paired.
        ready = {row: runs for row, runs in ready.items() if _same(_identity(runs), (size, ids))}
        first = next(iter(ready.values()))[0]
        aligned_language[language] = first.aligned
        counts = aligned_counts.get((size, ids)) if first.aligned else None
        if counts is None:
            counts = resample_counts(generator, size, resamples)
            if first.aligned:
                aligned_counts[size, ids] = counts
        for row, values in _resample(ready, counts, generator).items():
            scores[row, language] = float(np.mean([items.score() for items in ready[row]]))
            resampled[row, language] = values
    comparisons, tests = [], []
    for row, base in pairs:
        languages = tuple(code for code in sizes if (row, code) in resampled and (base, code) in resampled)
        if not languages:
            continue
        differences = {code: resampled[row, code] - resampled[base, code] for code in languages}
        shown = {code: scores[row, code] - scores[base, code] for code in languages}
        resampled_mean = np.mean(list(differences.values()), axis=0)
        interval = bootstrap_interval(float(np.mean(list(shown.values()))), resampled_mean)
        aligned = all(aligned_language[code] for code in languages)
        total = max(sizes[code] for code in languages) if aligned else sum(sizes[code] for code in languages)
        comparisons.append(
            Comparison(
                row,
                task,
                interval.difference,
                interval.low,
                interval.high,
                interval.p,
                total,
                aligned,
                languages,
                resampled=resampled_mean,
            )
        )
        for code in languages:
            p = _mcnemar(by_row[base][0][code], by_row[row][0][code])
            name = "McNemar"
            if p is None:
                name, p = "paired bootstrap", bootstrap_interval(shown[code], differences[code]).p
            tests.append(LanguageTest(row, task, code, name, p))
    corrected = holm([test.p for test in tests])
    return comparisons, [replace(test, holm=float(p)) for test, p in zip(tests, corrected)]


def _of_language(runs: list[dict[str, Items]], language: str) -> list[Items]:
    """The items of every run in ``language``; nothing if some run lacks them or has others."""
    found = [run[language] for run in runs if language in run]
    sizes, names = {_size(items) for items in found}, {items.ids for items in found if items.ids}
    if len(found) < len(runs) or len(sizes) != 1 or len(names) > 1 or not _size(found[0]):
        return []
    return found


def _identity(runs: list[Items]) -> tuple[int, str]:
    """How many items, and the digest of their ids where one was kept."""
    return _size(runs[0]), next((items.ids for items in runs if items.ids), "")


def _same(one: tuple[int, str], other: tuple[int, str]) -> bool:
    """Whether items are the same: equally many, and of equal ids where both have them."""
    return one[0] == other[0] and (one[1] == other[1] or not (one[1] and other[1]))


def _size(items: Items) -> int:
    """How many items can be paired between runs: of a set of pairs, those in the gold set."""
    if items.statistic == "binary_f1":
        return int(np.count_nonzero(items.values[:, 2]))
    return len(items.values)


def _resample(
    ready: dict[Row, list[Items]], counts: np.ndarray, generator: np.random.Generator
) -> dict[Row, np.ndarray]:
    """Returns [R] by row: the score in each resample, mean over the row's runs, percent.

    All rows share one matrix product: reading ``counts`` is what takes the time.
    """
    columns = {row: _columns(runs) for row, runs in ready.items()}
    sums = counts @ np.concatenate(list(columns.values()), axis=1)
    scores, start = {}, 0
    for row, runs in ready.items():
        own = sums[:, start : start + columns[row].shape[1]].astype(np.float64)
        start += own.shape[1]
        if runs[0].statistic == "mean":
            scores[row] = 100.0 * own[:, 0] / counts.shape[1]
        else:
            by_run = [_f1(items, own[:, 3 * at : 3 * at + 3], generator) for at, items in enumerate(runs)]
            scores[row] = np.mean(by_run, axis=0)
    return scores


def _columns(runs: list[Items]) -> np.ndarray:
    """Returns float32 [n, 1] for means, [n, 3 * runs] for F1."""
    if runs[0].statistic == "mean":
        return np.stack([items.values for items in runs]).mean(axis=0, dtype=np.float32, keepdims=True).T
    if runs[0].statistic == "binary_f1":
        return np.concatenate([items.values[items.values[:, 2] > 0] for items in runs], 1, dtype=np.float32)
    return np.concatenate([items.values for items in runs], axis=1, dtype=np.float32)


def _f1(items: Items, sums: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns [R] from the sums [R, 3] of right, predicted and gold.

    Of a set of pairs only those in the gold set are the same in every run and were resampled together; what
    was found beside them is the run's own, and varies as a count does.
    """
    total = sums[:, 1] + sums[:, 2]
    if items.statistic == "binary_f1":
        beside = items.values[items.values[:, 2] == 0, 1].sum(dtype=np.int64)
        total += generator.poisson(float(beside), len(sums))
    return 200.0 * np.divide(sums[:, 0], total, out=np.zeros(len(sums)), where=total > 0)


def _mcnemar(first: Items, second: Items) -> float | None:
    if first.values.ndim != 1 or second.values.ndim != 1:
        return None
    one, other = first.values, second.values
    if not (_is_binary(one) and _is_binary(other)):
        return None
    one, other = one > 0.5, other > 0.5
    return float(mcnemar(int(np.sum(one & ~other)), int(np.sum(other & ~one))))


def _is_binary(values: np.ndarray) -> bool:
    return bool(np.all((values == 0) | (values == 1)))


def compare_all(
    grid: Grid, tick: Callable[[], None] = lambda: None
) -> tuple[list[Comparison], list[LanguageTest]]:
    """Compares on all tasks, with Holm's correction over all of (row, task)."""
    comparisons: list[Comparison] = []
    tests: list[LanguageTest] = []
    for task in grid.tasks:
        found, of_languages = compare_task(grid, task)
        comparisons += found
        tests += of_languages
        tick()
    corrected = holm([comparison.p for comparison in comparisons])
    return [replace(one, holm=float(p)) for one, p in zip(comparisons, corrected)], tests


def compare_means(comparisons: Sequence[Comparison], tasks: Sequence[str]) -> list[Mean]:
    """The mean over all tasks of each row that has all of them, and last that of these rows together.

    Tasks have different items and were resampled apart; rows have the same, and were resampled together.
    """
    tasks = tuple(task for task in tasks if any(one.task == task for one in comparisons))
    by_row: dict[Row, list[Comparison]] = {}
    for one in comparisons:
        if one.task in tasks:
            by_row.setdefault(one.row, []).append(one)
    whole = {row: found for row, found in by_row.items() if len(found) == len(tasks)}
    groups: list[tuple[Row | None, list[Comparison]]] = list(whole.items())
    groups += [(None, [one for found in whole.values() for one in found])] if len(whole) > 1 else []
    return [
        Mean(
            row,
            tasks,
            bootstrap_interval(
                float(np.mean([one.difference for one in found])),
                np.mean([one.resampled for one in found], axis=0),
            ),
        )
        for row, found in groups
        if len(tasks) > 1 or row is None
    ]
