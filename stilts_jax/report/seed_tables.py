"""Seed variance: components of the intermediate seed, the target seed and the rest; collapsed runs."""

import math
from collections.abc import Sequence

import numpy as np

from stilts_jax.report.benchmarks import task_title
from stilts_jax.report.document import Block, Folded, Section, Text
from stilts_jax.report.grid import CellScores, Grid, Row
from stilts_jax.report.results import BASELINE
from stilts_jax.report.statistics import Components, crossed_components
from stilts_jax.report.tables import Cell, Table, cells, change, numbers, score, words


def seed_section(grid: Grid) -> Section:
    """Variance components for each target, and what collapsed runs change."""
    reading = (
        "How much of the spread over runs comes from the intermediate training's seed, how much from the "
        "target training's, how much from neither (their interaction). Standard deviations in points. With "
        "few seeds these are rough: a standard deviation from three seeds can be off by a factor of two."
    )
    parts = [(row, task, seed_table(grid.cell(row, task))) for row in grid.rows for task in grid.tasks]
    known = [(row, task, crossed_components(table)) for row, task, table in parts if table.size > 1]
    blocks: list[Block] = []
    if known:
        blocks.append(_pooled(grid, known))
        blocks.append(Folded("Every row and target", [_every(grid, known)]))
    else:
        reading = "Every number here is a single run: nothing is known about seeds. Run with seeds=3."
    blocks += _collapsed(grid)
    return Section("seeds", "Seeds", reading, blocks)


def seed_table(cell: CellScores) -> np.ndarray:
    """Returns [intermediate seeds, target seeds]: the largest full table that the runs fill.

    Scores are means over languages. Of equally large tables the one nearer to a square is taken.
    """
    values = dict(zip((run.seeds for run in cell.runs), cell.per_run(cell.languages)))
    values = {seeds: value for seeds, value in values.items() if math.isfinite(value)}
    seconds_of: dict[int | None, set[int | None]] = {}
    for first, second in values:
        seconds_of.setdefault(first, set()).add(second)
    # The columns of a full table are those that some rows share: each row's, cut with others', are tried.
    shared = {frozenset(seconds) for seconds in seconds_of.values()}
    while more := {one & other for one in shared for other in shared} - shared:
        shared |= more
    order = list(dict.fromkeys(second for _, second in values))
    tables = [
        np.array([[values[first, second] for second in order if second in seconds] for first in firsts])
        for seconds in sorted(shared, key=lambda seconds: sorted(map(order.index, seconds)))
        if (firsts := [first for first, own in seconds_of.items() if seconds <= own]) and seconds
    ]
    return max(tables, key=lambda table: (table.size, min(table.shape)), default=np.empty((0, 0)))


Known = Sequence[tuple[Row, str, Components]]


def _pooled(grid: Grid, known: Known) -> Table:
    columns = [*words("Target"), *numbers("seeds: intermediate x target")]
    columns += numbers("intermediate seed", "target seed", "rest", "rows: pooled")
    rows = []
    for task in grid.tasks:
        designs: dict[tuple[bool, tuple[int, int]], list[Components]] = {}
        for row, name, components in known:
            if name == task:
                designs.setdefault((row[0] == BASELINE, components.shape), []).append(components)
        for (is_base, shape), pooled in sorted(designs.items(), reverse=True):
            name = task_title(task) + (" (baseline)" if is_base else "")
            rows.append(cells(name, " x ".join(map(str, shape)), *_deviations(pooled), len(pooled)))
    notes = [
        "Variances are pooled over rows of the same design by their mean (method of moments, two-way random "
        "effects); an estimate below zero is shown as 0.0. Where only one kind of seed varies, its column includes "
        "the rest."
    ]
    return Table("seeds", "Standard deviation by source, pooled over intermediates", columns, rows, notes)


def _deviations(found: Sequence[Components]) -> list[Cell]:
    return [_deviation([getattr(one, name) for one in found]) for name in ("intermediate", "target", "rest")]


def _deviation(variances: Sequence[float]) -> Cell:
    there = [variance for variance in variances if math.isfinite(variance)]
    if not there:
        return Cell("–")
    return score(math.sqrt(max(float(np.mean(there)), 0.0)), 2)


def _every(grid: Grid, known: Known) -> Table:
    columns = [*words("Intermediate", "Target")]
    columns += numbers("seeds: intermediate x target", "intermediate seed", "target seed", "rest")
    rows = [
        cells(grid.row_title(row), task_title(task), " x ".join(map(str, one.shape)), *_deviations([one]))
        for row, task, one in known
    ]
    return Table("seeds_details", "Standard deviation by source, every row and target", columns, rows)


def _collapsed(grid: Grid) -> list[Block]:
    bad = [
        (row, task, cell)
        for (row, task), cell in grid.cells.items()
        if any(run.collapsed for run in cell.runs)
    ]
    lost = [run for run in grid.intermediates if run.collapsed]
    blocks: list[Block] = []
    if lost:
        names = ", ".join(run.name for run in lost)
        blocks.append(Text(f"Intermediate phases that ended at chance level: {names}."))
    if not bad:
        return [*blocks, Text("No target run ended at chance level.")]
    columns = [*words("Intermediate", "Target")]
    columns += numbers("runs", "at chance", "mean with them", "mean without", "change")
    rows = []
    for row, task, cell in bad:
        rest = cell.without_collapsed()
        whole = float(np.nanmean(cell.per_run(cell.languages)))
        without = float(np.nanmean(rest.per_run(cell.languages))) if rest else math.nan
        who = grid.row_title(row), task_title(task)
        counts = len(cell.runs), len(cell.runs) - len(rest.runs)
        rows.append(cells(*who, *counts, score(whole), score(without), change(without - whole)))
    return [*blocks, Table("collapsed", "Runs that ended at chance level", columns, rows)]
