"""Which differences from the baseline are more than the luck of the test items."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from stilts_jax.report.grid import Grid, Row
from stilts_jax.report.names import GROUP_TITLES
from stilts_jax.report.resampling import resample_languages
from stilts_jax.report.results import Items
from stilts_jax.report.statistics import RESAMPLES, Interval, benjamini_hochberg, bootstrap_interval, holm
from stilts_jax.report.tables import (
    Block,
    Cell,
    Column,
    Section,
    Table,
    cells,
    change,
    fixed,
    folded,
    gain_tone,
    numbers,
    probability,
    signed,
    words,
)

SIGNIFICANT = 0.05
_FEW_ITEMS = 100  # below this the normal approximation of the bootstrap's p-value is a rough one


@dataclass(frozen=True)
class Comparison:
    """One row against its baseline: on one task, or the mean over all tasks.

    Attributes:
        row: None for the mean over rows.
        interval: of the difference of the items' statistic, mean over ``languages``, points.
        items: items resampled: of one language where they are aligned, else of all languages together.
        resampled: [R] the difference in every resample.
    """

    row: Row | None
    task: str
    interval: Interval
    items: int = 0
    aligned: bool = False
    languages: tuple[str, ...] = ()
    holm: float = math.nan
    resampled: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)


@dataclass(frozen=True)
class LanguageTest:
    """One row against its baseline in one language: McNemar where items are right or wrong."""

    row: Row
    task: str
    language: str
    test: str
    p: float
    holm: float = math.nan


def compare_all(
    grid: Grid, tick: Callable[[], None] = lambda: None
) -> tuple[list[Comparison], list[LanguageTest], list[Comparison]]:
    """Returns comparisons on all tasks, Holm-corrected over all of (row, task), of single languages, of means."""
    comparisons: list[Comparison] = []
    tests: list[LanguageTest] = []
    for task in grid.tasks:
        found, of_languages = compare_task(grid, task)
        comparisons += found
        tests += of_languages
        tick()
    corrected = holm([one.interval.p for one in comparisons])
    comparisons = [replace(one, holm=float(p)) for one, p in zip(comparisons, corrected)]
    return comparisons, tests, compare_means(comparisons)


def compare_task(
    grid: Grid, task: str, resamples: int = RESAMPLES
) -> tuple[list[Comparison], list[LanguageTest]]:
    """Compares every row with its baseline; empty where no items were kept.

    Items that are the same in every language are drawn together for all languages: translations of one hard
    sentence are not independent. A run's seeds are averaged inside each resample.
    """
    by_row = {row: [run.items(task) for run in grid.cell(row, task).runs] for row in grid.rows}
    by_row = {row: runs for row, runs in by_row.items() if runs and all(runs)}
    rows = [row for row in grid.compared if row in by_row and grid.baseline(row) in by_row]
    rows = [row for row in rows if grid.compared_with(row, task)]
    found = resample_languages(
        by_row, {grid.baseline(row) for row in rows}, grid.languages(task), task, resamples
    )
    comparisons, tests = [], []
    for row in rows:
        base = grid.baseline(row)
        here = {code: one for code, one in found.items() if row in one.scores and base in one.scores}
        if not here:
            continue
        shown = {code: one.scores[row][0] - one.scores[base][0] for code, one in here.items()}
        drawn = {code: one.scores[row][1] - one.scores[base][1] for code, one in here.items()}
        whole = np.mean(list(drawn.values()), axis=0)
        interval = bootstrap_interval(float(np.mean(list(shown.values()))), whole)
        aligned, sizes = all(one.aligned for one in here.values()), [one.size for one in here.values()]
        total = max(sizes) if aligned else sum(sizes)
        comparisons.append(Comparison(row, task, interval, total, aligned, tuple(here), resampled=whole))
        for code in here:
            p, name = _mcnemar(by_row[base][0][code], by_row[row][0][code]), "McNemar"
            if p is None:
                name, p = "paired bootstrap", bootstrap_interval(shown[code], drawn[code]).p
            tests.append(LanguageTest(row, task, code, name, p))
    corrected = holm([test.p for test in tests])
    return comparisons, [replace(test, holm=float(p)) for test, p in zip(tests, corrected)]


def _mcnemar(first: Items, second: Items) -> float | None:
    """The exact test of the items that only one side has right; None where items are not just right or wrong."""
    sides = first.values, second.values
    if any(side.ndim != 1 or not ((side == 0) | (side == 1)).all() for side in sides):
        return None
    one, other = (side > 0.5 for side in sides)
    only = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    return float(stats.binomtest(only[0], sum(only)).pvalue) if any(only) else 1.0


def compare_means(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The mean over all tasks of each row that has all of them, and last that of these rows together.

    Tasks have different items and were resampled apart; rows have the same, and were resampled together.
    """
    tasks = dict.fromkeys(one.task for one in comparisons)
    by_row: dict[Row | None, list[Comparison]] = {}
    for one in comparisons:
        by_row.setdefault(one.row, []).append(one)
    groups = {row: found for row, found in by_row.items() if len(found) == len(tasks)}
    if len(groups) > 1:
        groups[None] = [one for found in groups.values() for one in found]
    means = []
    for row, found in groups.items() if len(tasks) > 1 else ():
        difference = float(np.mean([one.interval.difference for one in found]))
        interval = bootstrap_interval(difference, np.mean([one.resampled for one in found], axis=0))
        means.append(Comparison(row, f"{len(tasks)} tasks", interval))
    return means


def significance_section(
    grid: Grid, comparisons: Sequence[Comparison], tests: Sequence[LanguageTest], means: Sequence[Comparison]
) -> Section | None:
    """Returns nothing where there is no baseline to compare with."""
    if not grid.compared:
        return None
    reading = (
        "Would the sign of a difference survive other test items? Each field is the difference from the "
        f"baseline with its 95 % interval from {RESAMPLES} paired bootstrap resamples; bold with * where it "
        "differs from zero after Holm's correction over this whole table. Where the languages have the same items, "
        "translated, an item is drawn for all of them at once (“by item”), else each language's items are drawn by "
        "themselves (“by language”). The trained models are taken as given: what other seeds would do is in the "
        "next section."
    )
    if not comparisons:
        text = "No per-item scores of both a row and the baseline were kept, so nothing can be tested."
        return Section("significance", "Significance", reading, [Block("text", text=text)])
    details = [_details(grid, comparisons)] + ([_means(grid, means)] if means else [])
    blocks: list[Block | Table] = [
        _overview(grid, comparisons, means),
        _sentence(comparisons),
        folded("Every comparison", *details),
    ]
    if tests:
        blocks.append(folded("Every language", _language_details(grid, tests)))
    return Section("significance", "Significance", reading, blocks)


def _overview(grid: Grid, comparisons: Sequence[Comparison], means: Sequence[Comparison]) -> Table:
    found = {(one.row, one.task): one for one in comparisons}
    firsts = {one.task: one for one in reversed(comparisons)}
    tasks = [task for task in grid.tasks if task in firsts]
    columns = words("Intermediate")
    for task in tasks:
        drawn = "by item" if firsts[task].aligned and len(firsts[task].languages) > 1 else "by language"
        columns.append(Column(grid.title(task), drawn, GROUP_TITLES[grid.group(task)]))
    columns += [Column("Mean", means[0].task, "Average")] if means else []
    of_rows = {one.row: one for one in means}
    rows = []
    for row in grid.compared:
        rows.append([Cell(grid.row_title(row))])
        rows[-1] += [_overview_cell(grid, row, task, found.get((row, task))) for task in tasks]
        rows[-1] += [_interval_cell(of_rows[row].interval) if row in of_rows else Cell("–")] if means else []
    notes = ["The mean over tasks is in no correction: it is one number a row."] if means else []
    return Table("significance", "Differences from the baseline, with 95 % intervals", columns, rows, notes)


def _interval_cell(one: Interval) -> Cell:
    return Cell(signed(one.difference), one.difference, f"{signed(one.low)} to {signed(one.high)}")


def _overview_cell(grid: Grid, row: Row, task: str, one: Comparison | None) -> Cell:
    if one is None:
        return Cell("–", note=grid.cell(row, task).reason or "no items that pair with the baseline's")
    holds, found = one.holm < SIGNIFICANT, one.interval
    p = f"p {fixed(found.p, 3)}, Holm {fixed(one.holm, 3)}"
    notes = [f"fewer than {_FEW_ITEMS} items: the test is rough"] * (one.items < _FEW_ITEMS)
    shown = grid.number(row, task)
    if shown and abs(shown.difference - found.difference) > 0.05:
        notes.append("the items cover other languages, metrics or seeds than the main table")
    return replace(
        _interval_cell(found),
        text=signed(found.difference) + "*" * holds,
        note="; ".join(notes),
        hint=f"{p}, {one.items} items, {len(one.languages)} languages",
        tone=gain_tone(found.difference) if holds else None,
        strong=holds,
    )


def _sentence(comparisons: Sequence[Comparison]) -> Block:
    p = [one.interval.p for one in comparisons]
    raw, total = sum(one < SIGNIFICANT for one in p), len(p)
    corrected = sum(one.holm < SIGNIFICANT for one in comparisons)
    found = int(np.sum(benjamini_hochberg(p) < SIGNIFICANT))
    by_luck = f"{SIGNIFICANT * total:.1f}".removesuffix(".0")
    text = (
        f"p < {SIGNIFICANT} uncorrected in {raw} of {total} comparison{'s' * (total != 1)} (by luck alone "
        f"it would be about {by_luck}); in {corrected} after Holm's correction (no false one expected); in "
        f"{found} after Benjamini and Hochberg's (5 % of them expected to be false)."
    )
    return Block("text", text=text)


def _details(grid: Grid, comparisons: Sequence[Comparison]) -> Table:
    rates = benjamini_hochberg([one.interval.p for one in comparisons])
    columns = [
        *words("Intermediate", "Target"),
        *numbers("difference", "low", "high", "p", "p, Holm", "q, BH"),
    ]
    columns += [*numbers("items", "languages"), *words("resampled by")]
    rows = [
        cells(
            grid.row_title(one.row),
            grid.title(one.task),
            *(change(value, 2) for value in (one.interval.difference, one.interval.low, one.interval.high)),
            *(probability(value) for value in (one.interval.p, one.holm, float(rate))),
            one.items,
            len(one.languages),
            "item, over all languages" if one.aligned else "item, in each language",
        )
        for one, rate in zip(comparisons, rates)
        if one.row
    ]
    notes = ["Interval and p (two-sided) take the difference over its bootstrap standard error as normal."]
    return Table("significance_details", "Every comparison with the baseline", columns, rows, notes)


def _means(grid: Grid, means: Sequence[Comparison]) -> Table:
    rows = [
        cells(
            grid.row_title(one.row) if one.row else "mean of these rows",
            *(change(value, 2) for value in (one.interval.difference, one.interval.low, one.interval.high)),
            probability(one.interval.p),
        )
        for one in means
    ]
    columns = [*words("Intermediate"), *numbers("difference", "low", "high", "p")]
    return Table(
        "significance_means", f"Mean over {means[0].task}, compared with the baseline", columns, rows
    )


def _language_details(grid: Grid, tests: Sequence[LanguageTest]) -> Table:
    columns = [*words("Target", "Language", "Intermediate", "test"), *numbers("p", "p, Holm")]
    rows = [
        cells(
            grid.title(test.task),
            grid.language_label(test.language),
            grid.row_title(test.row),
            test.test,
            probability(test.p),
            probability(test.holm),
        )
        for test in tests
        if test.p < SIGNIFICANT
    ]
    notes = [
        f"Of {len(tests)} tests those with p < {SIGNIFICANT} before correction. Holm's correction is over "
        "the rows and languages of each task. McNemar compares the runs of the lowest seeds, item by item; "
        "where items are not just right or wrong, the paired bootstrap compares the means over seeds."
    ]
    return Table("significance_languages", "Differences in single languages", columns, rows, notes)
