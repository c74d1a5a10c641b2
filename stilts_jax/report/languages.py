"""The scores of every language: a chart for each task, and the numbers behind it."""

import math
from dataclasses import replace

from stilts_jax.report.figures import Figures, dots
from stilts_jax.report.grid import Grid
from stilts_jax.report.names import meaning
from stilts_jax.report.overview import number_cell
from stilts_jax.report.results import BASELINE
from stilts_jax.report.significance import Comparisons
from stilts_jax.report.tables import Block, Cell, Column, Section, Table, fixed, folded, stem, words


def language_section(grid: Grid, comparisons: Comparisons, figures: Figures) -> Section | None:
    """A chart for each task, and the numbers behind it; stars where a corrected test finds a difference."""
    charts, tables = [], []
    for task in grid.scored:
        charts.append(_chart(grid, task, figures))
        title = f"{grid.title(task)}: numbers for every language"
        tables.append(folded(title, _language_table(grid, task, comparisons)))
    reading = (
        "One line a language, from the best to the worst baseline, whose percentage stands beside the name; marks "
        "are what each intermediate adds to it. Means over seeds. Tables below say the same in numbers."
    )
    return (
        Section("languages", "Languages", reading, [Block("row", blocks=charts), *tables]) if charts else None
    )


def _ordered_languages(grid: Grid, task: str) -> list[str]:
    """The languages that were trained on first, then from the baseline's best to its worst."""
    base: dict[str, float] = {}
    for row in grid.rows:
        base = {
            code: grid.language_numbers[*row, task, code].percent for code in grid.codes(task, row)
        } | base
    return sorted(base, key=lambda code: (code not in grid.trained_languages, -base[code], code))


def _chart(grid: Grid, task: str, figures: Figures) -> Block:
    """Gains over the baseline, whose own percentage stands beside the language; scores where there is none."""
    languages = _ordered_languages(grid, task)
    labels = [grid.language_label(code) for code in languages]
    values = {row: gains for row in grid.compared if (gains := grid.gains(row, task))}
    axis, is_gain = f"{meaning(grid.metrics(task))}, percent", bool(values)
    if is_gain:
        axis = f"gain in {meaning(grid.metrics(task))}, points"
        if len({row[1] for row in values}) == 1:
            base = (BASELINE, next(iter(values))[1], task)
            found = [grid.language_numbers.get((*base, code)) for code in languages]
            labels = [
                f"{label} {fixed(one.percent if one else math.nan)}" for label, one in zip(labels, found)
            ]
    else:
        for row in grid.rows:
            values[row] = {
                code: grid.language_numbers[*row, task, code].percent for code in grid.codes(task, row)
            }
    series = {
        grid.row_title(row): [own.get(code, math.nan) for code in languages] for row, own in values.items()
    }
    drawing = figures.draw(f"languages_{stem(task)}", dots(labels, series, axis, zero=is_gain))
    return Block("chart", f"{grid.title(task)}, {grid.splits(task)}", drawing)


def _language_table(grid: Grid, task: str, comparisons: Comparisons) -> Table:
    """Languages as rows, intermediates as columns; the baseline in percent, the others as differences."""
    here = {row: number for row in grid.rows if (number := grid.number(row, task))}
    details = ("percent", "difference")
    columns = words("Language") + [
        Column(grid.row_title(row), details[one.is_difference]) for row, one in here.items()
    ]
    tests = {
        (row, test.languages[0]): test for row in here for test in comparisons.languages.get((row, task), ())
    }
    rows = []
    for code in _ordered_languages(grid, task):
        rows.append([Cell(grid.language_label(code))])
        for row in here:
            number, test = grid.language_numbers.get((*row, task, code)), tests.get((row, code))
            if number is None:
                rows[-1].append(Cell("–", note="no score in this language"))
                continue
            shown = number_cell(number)
            found = (
                {"low": test.interval.low, "high": test.interval.high, "p_holm": test.holm} if test else {}
            )
            text = shown.text + "*" * bool(test and test.holds)
            rows[-1].append(replace(shown, text=text, numbers={**shown.numbers, **found}))
    rows.append([Cell("mean", strong=True), *map(number_cell, here.values())])
    notes = [
        "± is the standard deviation over seeds, of a difference that of its pairs of equal target seed."
    ]
    notes *= any(len(grid.cells[row, task]) > 1 for row in here)
    if any(test.holds for test in tests.values()):
        notes.append("* differs from the baseline beyond noise, Holm-corrected over this table.")
    title = f"{grid.title(task)} by language, {meaning(grid.metrics(task))}, {grid.splits(task)} split"
    return Table(f"languages_{stem(task)}", title, columns, rows, notes, [len(rows) - 2], latex=True)
