"""Draws test items again: all languages at once where they have the same items, all rows with the same draws."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stilts_jax.report.grid import Row
from stilts_jax.report.results import Items
from stilts_jax.report.statistics import resample_counts


@dataclass(frozen=True)
class Resampled:
    """One language: its number of items, whether they are aligned, and by row the score and [R] resampled scores."""

    size: int
    aligned: bool
    scores: Mapping[Row, tuple[float, np.ndarray]]


def resample_languages(
    by_row: Mapping[Row, list[dict[str, Items]]],
    bases: set[Row],
    languages: Sequence[str],
    task: str,
    resamples: int,
) -> dict[str, Resampled]:
    """Returns what every row scores in each resample, by language; ``bases`` are the rows that others compare with."""
    generator = np.random.default_rng(zlib.crc32(task.encode()))
    counts_of: dict[tuple[int, str], np.ndarray] = {}
    found = {}
    for language in languages if bases else ():
        ready = {row: runs for row in by_row if (runs := _of_language(by_row[row], language))}
        identities = {_identity(ready[base]) for base in bases if base in ready}
        if len(identities) != 1:
            continue
        size, ids = identities.pop()
        # A row that was scored on other items can't be paired.
        ready = {row: runs for row, runs in ready.items() if _same(_identity(runs), (size, ids))}
        aligned = next(iter(ready.values()))[0].aligned
        counts = counts_of.get((size, ids)) if aligned else None
        if counts is None:
            counts = resample_counts(generator, size, resamples)
            if aligned:
                counts_of[size, ids] = counts
        scores = {row: float(np.mean([items.score() for items in runs])) for row, runs in ready.items()}
        drawn = _resample(ready, counts, generator)
        found[language] = Resampled(size, aligned, {row: (scores[row], drawn[row]) for row in ready})
    return found


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
    ready: Mapping[Row, list[Items]], counts: np.ndarray, generator: np.random.Generator
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
    gold = [items.values[items.values[:, 2] > 0] for items in runs]
    kept = gold if runs[0].statistic == "binary_f1" else [items.values for items in runs]
    return np.concatenate(kept, axis=1, dtype=np.float32)


def _f1(items: Items, sums: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns [R] from the sums [R, 3] of right, predicted and gold.

    Of a set of pairs only those in the gold set are the same in every run and were resampled together. False
    positives differ between runs; their count is resampled as a Poisson variable.
    """
    total = sums[:, 1] + sums[:, 2]
    if items.statistic == "binary_f1":
        beside = items.values[items.values[:, 2] == 0, 1].sum(dtype=np.int64)
        total += generator.poisson(float(beside), len(sums))
    return 200.0 * np.divide(sums[:, 0], total, out=np.zeros(len(sums)), where=total > 0)
