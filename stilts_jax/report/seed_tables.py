"""Seed variance: components of the intermediate seed, the target seed and the rest; collapsed runs."""

import math
from collections.abc import Sequence

import numpy as np

from stilts_jax.report.benchmarks import task_title
from stilts_jax.report.document import Block, Folded, Section, Text
from stilts_jax.report.grid import CellScores, Grid, Row
from stilts_jax.report.results import BASELINE
from stilts_jax.report.statistics import Components, crossed_components
from stilts_jax.report.tables import Cell, Column, Table, fixed, signed


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
        blocks.append(
            Text("Every number here is a single run: nothing is known about seeds. Run with seeds=3.")
        )
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
    columns = [
        Column("Target", numeric=False),
        Column("intermediate seed"),
        Column("target seed"),
        Column("rest"),
        Column("rows", "pooled"),
        Column("target seed", "baseline row"),
    ]
    rows = []
    for task in grid.tasks:
        here = [components for row, name, components in known if name == task and row[0] != BASELINE]
        base = [components for row, name, components in known if name == task and row[0] == BASELINE]
        if not here and not base:
            continue
        rows.append(
            [
                Cell(task_title(task)),
                _deviation([one.intermediate for one in here]),
                _deviation([one.target for one in here]),
                _deviation([one.rest for one in here]),
                Cell(str(len(here)), len(here)),
                _deviation([one.target for one in base]),
            ]
        )
    notes = [
        "Variances are pooled over rows by their mean (method of moments, two-way random effects); an "
        "estimate below zero is shown as 0.0. Where only one kind of seed varies, its column includes the "
        "rest."
    ]
    return Table("seeds", "Standard deviation by source, pooled over intermediates", columns, rows, notes)


def _deviation(variances: Sequence[float]) -> Cell:
    there = [variance for variance in variances if math.isfinite(variance)]
    if not there:
        return Cell("–")
    pooled = math.sqrt(max(float(np.mean(there)), 0.0))
    return Cell(fixed(pooled, 2), pooled)


def _every(grid: Grid, known: Known) -> Table:
    columns = [
        Column("Intermediate", numeric=False),
        Column("Target", numeric=False),
        Column("seeds", "intermediate x target"),
        Column("intermediate seed"),
        Column("target seed"),
        Column("rest"),
    ]
    rows = [
        [
            Cell(grid.row_title(row)),
            Cell(task_title(task)),
            Cell(f"{one.shape[0]} x {one.shape[1]}"),
            _deviation([one.intermediate]),
            _deviation([one.target]),
            _deviation([one.rest]),
        ]
        for row, task, one in known
    ]
    return Table("seeds_details", "Standard deviation by source, every row and target", columns, rows)


def _collapsed(grid: Grid) -> list[Block]:
    cells = [(row, task, grid.cell(row, task)) for row in grid.rows for task in grid.tasks]
    bad = [(row, task, cell) for row, task, cell in cells if any(run.collapsed for run in cell.runs)]
    lost = [run for run in grid.intermediates if run.collapsed]
    blocks: list[Block] = []
    if lost:
        names = ", ".join(run.name for run in lost)
        blocks.append(Text(f"Intermediate phases that ended at chance level: {names}."))
    if not bad:
        return [*blocks, Text("No target run ended at chance level.")]
    columns = [
        Column("Intermediate", numeric=False),
        Column("Target", numeric=False),
        Column("runs"),
        Column("at chance"),
        Column("mean with them"),
        Column("mean without"),
        Column("change"),
    ]
    rows = []
    for row, task, cell in bad:
        rest = cell.without_collapsed()
        whole = float(np.nanmean(cell.per_run(cell.languages)))
        without = float(np.nanmean(rest.per_run(cell.languages))) if rest else math.nan
        rows.append(
            [
                Cell(grid.row_title(row)),
                Cell(task_title(task)),
                Cell(str(len(cell.runs)), len(cell.runs)),
                Cell(str(len(cell.runs) - len(rest.runs)), len(cell.runs) - len(rest.runs)),
                Cell(fixed(whole), whole),
                Cell(fixed(without), without),
                Cell(signed(without - whole), without - whole),
            ]
        )
    return [*blocks, Table("collapsed", "Runs that ended at chance level", columns, rows)]
