"""The best intermediate of each target: what dev scores choose, beside what test scores would have chosen."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stilts_jax.report.benchmarks import task_title
from stilts_jax.report.document import Section
from stilts_jax.report.grid import Grid, Row, summarize
from stilts_jax.report.tables import Cell, Table, change, numbers, score, words

_NO_DEV = "no dev set in the source language: choosing would need target-language data"
_TARGET_DEV = "dev-selected on target languages: not zero-shot"


def best_section(grid: Grid) -> Section | None:
    """Which row a dev set picks for each target, and how far that is from the best row."""
    if len(grid.rows) < 2:
        return None
    language = " or ".join("English" if code == "en" else code for code in grid.source_languages)
    reading = (
        f"Which intermediate to take for each target. “Chosen” is dev-selected: the row with the best score on "
        f"the {language} dev set of what the target was trained on, which is all that zero-shot transfer may look "
        "at. “Oracle” is the row with the best of the scores in the main table: nobody could have chosen it, it "
        "is what perfect choice would give, and it flatters more the more rows there are. The paper's “best” row "
        "lies between: it was chosen on dev sets of all languages."
    )
    outcome = numbers("score: main table", "gain: over none")
    chosen_columns = [*words("row"), *numbers("dev score"), *outcome]
    columns = words("Target") + [replace(column, group="Chosen on dev") for column in chosen_columns]
    columns += [replace(column, group="Oracle") for column in [*words("row"), *outcome]]
    rows, gains = [], []
    # Dev scores in different languages can't be compared: each source language has its own choice.
    for source, task in itertools.product(grid.source_languages, grid.tasks):
        candidates = [row for row in grid.rows if row[1] == source]
        shown = {row: summary.mean for row in candidates if (summary := summarize(grid, row, task))}
        if not shown:
            continue
        dev, note = _dev_scores(grid, candidates, task)
        chosen = max(dev, key=lambda row: dev[row], default=None)
        lacking = [grid.row_title(row) for row in shown if row not in dev]
        if dev and lacking:
            note = "; ".join(filter(None, [note, f"no dev score of {', '.join(lacking)}"]))
        name = task_title(task) + (f" (from {source})" if len(grid.source_languages) > 1 else "")
        cells = [Cell(name), Cell(grid.row_title(chosen) if chosen else "–", note=note)]
        cells.append(score(dev[chosen] if chosen else math.nan))
        oracle = max(shown, key=lambda row: shown[row])
        here = [_gain(grid, row, task) for row in (chosen, oracle)]
        cells += [score(shown[chosen] if chosen else math.nan), change(here[0], coloured=True)]
        cells += [Cell(grid.row_title(oracle)), score(shown[oracle]), change(here[1], coloured=True)]
        rows.append(cells)
        if all(map(math.isfinite, here)):
            gains.append(here)
    ruled = []
    if len(gains) > 1:
        ruled = [len(rows) - 1]
        means = [float(mean) for mean in np.mean(gains, axis=0)]
        count = f"mean of {len(gains)} targets"
        gain_cells = [change(mean, coloured=True) for mean in means]
        empty = Cell()
        rows.append([Cell(count, strong=True), *[empty] * 3, gain_cells[0], *[empty] * 2, gain_cells[1]])
    table = Table(
        "best", "Best intermediate for each target: dev-selected, and oracle", columns, rows, (), ruled
    )
    return Section("best", "Best intermediate for each target", reading, [table])


def _dev_scores(grid: Grid, rows: Sequence[Row], task: str) -> tuple[dict[Row, float], str]:
    """Returns what rows may be chosen by, mean over seeds, and what a reader must know about that."""
    scores: dict[Row, float] = {}
    for row in rows:
        kept = [one for run in grid.cell(row, task).runs if (one := run.source_dev_score) is not None]
        if kept:
            scores[row] = float(np.mean(kept))
    if scores:
        return scores, ""
    for row in rows:
        if cell := grid.dev_cell(row, task):
            scores[row] = float(np.nanmean(cell.per_language()))
    return scores, _TARGET_DEV if scores else _NO_DEV


def _gain(grid: Grid, row: Row | None, task: str) -> float:
    """The gain over the baseline; the baseline's own is zero."""
    summary = summarize(grid, row, task) if row else None
    if row is None or summary is None:
        return math.nan
    return 0.0 if grid.baseline(row) == row else summary.difference
