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

    Scores are means over languages. Target seeds that some intermediate seed lacks are left out.
    """
    values = dict(zip((run.seeds for run in cell.runs), cell.per_run(cell.languages)))
    values = {seeds: value for seeds, value in values.items() if math.isfinite(value)}
    firsts = list(dict.fromkeys(first for first, _ in values))
    seconds = [
        second
        for second in dict.fromkeys(second for _, second in values)
        if all((first, second) in values for first in firsts)
    ]
    return np.array([[values[first, second] for second in seconds] for first in firsts]).reshape(
        len(firsts), len(seconds)
    )


Known = Sequence[tuple[Row, str, Components]]


def _pooled(grid: Grid, known: Known) -> Table:
    columns = [*words("Target"), *numbers("intermediate seed", "target seed", "rest")]
    columns += numbers("rows: pooled", "target seed: baseline row")
    rows = []
    for task in grid.tasks:
        here = [components for row, name, components in known if name == task and row[0] != BASELINE]
        base = [components for row, name, components in known if name == task and row[0] == BASELINE]
        if not here and not base:
            continue
        rows.append(
            cells(task_title(task), *_deviations(here), len(here), _deviation([one.target for one in base]))
        )
    notes = [
        "Variances are pooled over rows by their mean (method of moments, two-way random effects); an "
        "estimate below zero is shown as 0.0. Where only one kind of seed varies, its column includes the "
        "rest."
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
