"""The section on significance: one table of differences with intervals, one with every detail."""

import math
from collections.abc import Sequence

import numpy as np

from stilts_jax.report.benchmarks import GROUP_TITLES, group_of, task_title
from stilts_jax.report.document import Block, Folded, Section, Text
from stilts_jax.report.grid import Grid, Row, summarize
from stilts_jax.report.significance import SIGNIFICANT, Comparison, LanguageTest, Mean
from stilts_jax.report.statistics import RESAMPLES, benjamini_hochberg
from stilts_jax.report.tables import (
    Cell,
    Column,
    Table,
    cells,
    change,
    format_p,
    gain_tone,
    numbers,
    probability,
    signed,
    words,
)

_FEW_ITEMS = 100  # below this the normal approximation of the bootstrap's p-value is a rough one


def significance_section(
    grid: Grid, comparisons: Sequence[Comparison], tests: Sequence[LanguageTest], means: Sequence[Mean]
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
        words = "No per-item scores of both a row and the baseline were kept, so nothing can be tested."
        return Section("significance", "Significance", reading, [Text(words)])
    blocks: list[Block] = [_overview(grid, comparisons, means), _sentence(comparisons)]
    details = [_details(grid, comparisons)] + ([_means(grid, means)] if means else [])
    blocks.append(Folded("Every comparison", details))
    if tests:
        blocks.append(Folded("Every language", [_language_details(grid, tests)]))
    return Section("significance", "Significance", reading, blocks)


def _overview(grid: Grid, comparisons: Sequence[Comparison], means: Sequence[Mean]) -> Table:
    found = {(one.row, one.task): one for one in comparisons}
    tasks = [task for task in grid.tasks if any(one.task == task for one in comparisons)]
    columns = words("Intermediate")
    columns += [
        Column(task_title(task), _clustered(comparisons, task), GROUP_TITLES[group_of(task)])
        for task in tasks
    ]
    of_rows = {one.row: one for one in means}
    if means:
        columns.append(Column("Mean", f"{len(means[0].tasks)} tasks", "Average"))
    rows = [
        [
            Cell(grid.row_title(row)),
            *(_overview_cell(grid, row, task, found.get((row, task))) for task in tasks),
            *([_mean_cell(of_rows.get(row))] if means else []),
        ]
        for row, _ in grid.compared
    ]
    notes = (
        ["The mean over tasks is in no correction: it is one number a row, with its own interval."]
        if means
        else []
    )
    return Table("significance", "Differences from the baseline, with 95 % intervals", columns, rows, notes)


def _means(grid: Grid, means: Sequence[Mean]) -> Table:
    columns = [*words("Intermediate"), *numbers("tasks", "difference", "low", "high", "p")]
    rows = [
        cells(
            grid.row_title(one.row) if one.row else "mean of these rows",
            len(one.tasks),
            *(change(value, 2) for value in (one.interval.difference, one.interval.low, one.interval.high)),
            probability(one.interval.p),
        )
        for one in means
    ]
    return Table("significance_means", "Mean over tasks, compared with the baseline", columns, rows)


def _mean_cell(one: Mean | None) -> Cell:
    if one is None:
        return Cell("–", note="some task has no items that pair with the baseline's")
    found = one.interval
    return Cell(signed(found.difference), found.difference, f"{signed(found.low)} to {signed(found.high)}")


def _clustered(comparisons: Sequence[Comparison], task: str) -> str:
    one = next(one for one in comparisons if one.task == task)
    return "by item" if one.aligned and len(one.languages) > 1 else "by language"


def _overview_cell(grid: Grid, row: Row, task: str, one: Comparison | None) -> Cell:
    if one is None:
        reason = grid.cell(row, task).reason or "no items that pair with the baseline's"
        return Cell("–", note=reason)
    holds = one.holm < SIGNIFICANT
    interval = f"{signed(one.low)} to {signed(one.high)}"
    hint = (
        f"p {format_p(one.p)}, Holm {format_p(one.holm)}, {one.items} items, {len(one.languages)} languages"
    )
    note = f"fewer than {_FEW_ITEMS} items: the test is rough" if one.items < _FEW_ITEMS else ""
    shown = summarize(grid, row, task)
    if shown and math.isfinite(shown.difference) and abs(shown.difference - one.difference) > 0.05:
        note = "; ".join(
            filter(None, [note, "the items cover other languages or metrics than the main table"])
        )
    text = signed(one.difference) + ("*" if holds else "")
    return Cell(
        text, one.difference, interval, note, hint, gain_tone(one.difference) if holds else None, holds
    )


def _sentence(comparisons: Sequence[Comparison]) -> Text:
    raw = sum(one.p < SIGNIFICANT for one in comparisons)
    corrected = sum(one.holm < SIGNIFICANT for one in comparisons)
    found = int(np.sum(benjamini_hochberg([one.p for one in comparisons]) < SIGNIFICANT))
    total = len(comparisons)
    by_luck = f"{SIGNIFICANT * total:.1f}".removesuffix(".0")
    return Text(
        f"p < {SIGNIFICANT} uncorrected in {raw} of {total} comparison{'s' * (total != 1)} (by luck alone "
        f"it would be about {by_luck}); in {corrected} after Holm's correction (no false one expected); in "
        f"{found} after Benjamini and Hochberg's (5 % of them expected to be false)."
    )


def _details(grid: Grid, comparisons: Sequence[Comparison]) -> Table:
    rates = benjamini_hochberg([one.p for one in comparisons])
    columns = [
        *words("Intermediate", "Target"),
        *numbers("difference", "low", "high", "p", "p, Holm", "q, BH"),
    ]
    columns += [*numbers("items", "languages"), *words("resampled by")]
    rows = [
        cells(
            grid.row_title(one.row),
            task_title(one.task),
            *(change(value, 2) for value in (one.difference, one.low, one.high)),
            *(probability(value) for value in (one.p, one.holm, float(rate))),
            one.items,
            len(one.languages),
            "item, over all languages" if one.aligned else "item, in each language",
        )
        for one, rate in zip(comparisons, rates)
    ]
    notes = ["p takes the difference over its bootstrap standard error as normal, two-sided."]
    return Table("significance_details", "Every comparison with the baseline", columns, rows, notes)


def _language_details(grid: Grid, tests: Sequence[LanguageTest]) -> Table:
    columns = [*words("Target", "Language", "Intermediate", "test"), *numbers("p", "p, Holm")]
    rows = [
        cells(
            task_title(test.task),
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
