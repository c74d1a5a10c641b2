"""Scores of every language: one table and one chart a task."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stilts_jax.report.benchmarks import metric_title, task_title
from stilts_jax.report.charts import Series, dot_chart
from stilts_jax.report.document import Block, Chart, Folded, Row, Section
from stilts_jax.report.grid import Grid, Summary, paired_differences, summarize
from stilts_jax.report.grid import Row as GridRow
from stilts_jax.report.main_tables import summary_cell
from stilts_jax.report.results import BASELINE
from stilts_jax.report.statistics import standard_deviation
from stilts_jax.report.tables import Cell, Column, Table, fixed, stem, words

Stars = Mapping[tuple[GridRow, str, str], bool]  # (row, task, language) of differences that hold


def language_section(grid: Grid, stars: Stars) -> Section:
    """A chart for each task, and the numbers behind it.

    Args:
        stars: differences from the baseline that a corrected test calls significant.
    """
    charts: list[Block] = [_chart(grid, task) for task in grid.tasks if grid.languages(task)]
    tables: list[Block] = [
        Folded(f"{task_title(task)}: numbers for every language", [language_table(grid, task, stars)])
        for task in grid.tasks
        if grid.languages(task)
    ]
    reading = (
        "One line a language, from the best to the worst baseline, whose percentage stands beside the name; marks "
        "are what each intermediate adds to it. Means over seeds. Tables below say the same in numbers."
    )
    return Section("languages", "Languages", reading, [Row(charts), *tables])


def _ordered_languages(grid: Grid, task: str) -> list[str]:
    """The languages that were trained on first, then from the baseline's best to its worst."""
    base: dict[str, float] = {}
    for row in grid.rows:
        for language, value in grid.cell(row, task).language_means.items():
            base.setdefault(language, value)
    sources = grid.trained_languages
    return sorted(base, key=lambda language: (language not in sources, -base[language], language))


def _chart(grid: Grid, task: str) -> Chart:
    """Gains over the baseline, whose own percentage stands beside the language; scores where there is none."""
    languages = _ordered_languages(grid, task)
    styles = {row: index for index, row in enumerate(row for row in grid.rows if row[0] != BASELINE)}
    differences = {row: gains for row in styles if (gains := grid.language_gains(row, task))}
    labels = [grid.language_label(code) for code in languages]
    title = f"{task_title(task)}, {grid.splits(task)}"
    metrics = " and ".join(metric_title(metric) for metric in grid.metrics(task))
    what = f"mean of {metrics}" if len(grid.metrics(task)) > 1 else metrics
    if not differences:
        shown = {row: grid.cell(row, task).language_means for row in grid.rows if grid.cell(row, task)}
        series = _series(grid, shown, languages, {row: index for index, row in enumerate(shown)})
        return Chart(title, dot_chart(title, labels, series, f"{what}, percent"))
    bases = {grid.baseline(row) for row in differences}
    if len(bases) == 1:
        base = grid.cell(bases.pop() or grid.rows[0], task).language_means
        labels = [f"{label} {fixed(base.get(code, math.nan))}" for label, code in zip(labels, languages)]
    series = _series(grid, differences, languages, styles)
    return Chart(title, dot_chart(title, labels, series, f"gain in {what}, points", zero=True))


def _series(
    grid: Grid,
    values: Mapping[GridRow, Mapping[str, float]],
    languages: Sequence[str],
    styles: Mapping[GridRow, int],
) -> list[Series]:
    return [
        Series(grid.row_title(row), [own.get(code, math.nan) for code in languages], styles[row])
        for row, own in values.items()
    ]


def language_table(grid: Grid, task: str, stars: Stars) -> Table:
    """Languages as rows, intermediates as columns; the baseline in percent, the others as differences."""
    rows_here = [row for row in grid.rows if grid.cell(row, task)]
    columns = words("Language")
    for row in rows_here:
        is_difference = grid.compared_with(row, task) is not None
        columns.append(Column(grid.row_title(row), "difference" if is_difference else "percent"))
    rows = [
        [Cell(grid.language_label(language))] + [_cell(grid, row, task, language, stars) for row in rows_here]
        for language in _ordered_languages(grid, task)
    ]
    rows.append([Cell("mean", strong=True), *(_mean_cell(grid, row, task) for row in rows_here)])
    notes = (
        ["± is the standard deviation over seeds, of a difference that of its pairs of equal target seed."]
        if _has_seeds(grid, task)
        else []
    )
    if any(key[1] == task for key, holds in stars.items() if holds):
        notes.append(
            "* differs from the baseline beyond the sampling of test items, Holm-corrected over this table: "
            "McNemar on the runs of the lowest seeds where items are right or wrong, else paired bootstrap."
        )
    metrics = " and ".join(metric_title(metric) for metric in grid.metrics(task))
    what = f"mean of {metrics}" if len(grid.metrics(task)) > 1 else metrics
    title = f"{task_title(task)} by language, {what}, {grid.splits(task)} split"
    return Table(
        f"languages_{stem(task)}", title, columns, rows, notes, [len(rows) - 2] if len(rows) > 1 else []
    )


def _has_seeds(grid: Grid, task: str) -> bool:
    return any(len(grid.cell(row, task).runs) > 1 for row in grid.rows)


def _cell(grid: Grid, row: GridRow, task: str, language: str, stars: Stars) -> Cell:
    cell = grid.cell(row, task)
    if language not in cell.languages:
        return Cell("–", note="no score in this language")
    values = cell.per_language()[:, cell.languages.index(language)]
    values = values[np.isfinite(values)]
    mean = float(np.mean(values)) if len(values) else math.nan
    base, spread, difference = grid.compared_with(row, task), values, math.nan
    if base is not None and language in base.languages:
        spread = np.array(list(paired_differences(cell, base, [language]).values()))
        difference = float(np.mean(spread)) if len(spread) else grid.language_gains(row, task)[language]
    own = standard_deviation(values)
    shown = summary_cell(Summary(mean, standard_deviation(spread), difference, len(values), (), own))
    star = "*" if stars.get((row, task, language)) else ""
    hint = fixed(mean, 2) if math.isfinite(difference) else ""
    return replace(shown, text=shown.text + star, hint=hint)


def _mean_cell(grid: Grid, row: GridRow, task: str) -> Cell:
    summary = summarize(grid, row, task)
    return replace(summary_cell(summary), detail="") if summary else Cell("–")
