"""The best intermediate of each target: what dev scores choose, beside what test scores would have chosen."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from stilts_jax.report.benchmarks import task_title
from stilts_jax.report.document import Section
from stilts_jax.report.grid import Grid, Row, summarize
from stilts_jax.report.tables import Cell, Column, Table, fixed, gain_tone, signed

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
    columns = [
        Column("Target", numeric=False),
        Column("row", group="Chosen on dev", numeric=False),
        Column("dev score", group="Chosen on dev"),
        Column("score", "main table", "Chosen on dev"),
        Column("gain", "over none", "Chosen on dev"),
        Column("row", group="Oracle", numeric=False),
        Column("score", "main table", "Oracle"),
        Column("gain", "over none", "Oracle"),
    ]
    rows, gains = [], []
    # Dev scores in different languages can't be compared: each source language has its own choice.
    for source, task in itertools.product(grid.source_languages, grid.tasks):
        candidates = [row for row in grid.rows if row[1] == source]
        shown = {row: summary.mean for row in candidates if (summary := summarize(grid, row, task))}
        if not shown:
            continue
        dev, note = _dev_scores(grid, candidates, task)
        chosen = _best(dev)
        lacking = [grid.row_title(row) for row in shown if row not in dev]
        if dev and lacking:
            note = "; ".join(filter(None, [note, f"no dev score of {', '.join(lacking)}"]))
        name = task_title(task) + (f" (from {source})" if len(grid.source_languages) > 1 else "")
        cells = [Cell(name), Cell(grid.row_title(chosen) if chosen else "–", note=note)]
        cells.append(Cell(fixed(dev[chosen]), dev[chosen]) if chosen else Cell("–"))
        oracle = _best(shown)
        here = [_gain(grid, row, task) for row in (chosen, oracle)]
        cells += [*_outcome(shown, chosen, here[0]), Cell(grid.row_title(oracle) if oracle else "–")]
        rows.append([*cells, *_outcome(shown, oracle, here[1])])
        if all(map(math.isfinite, here)):
            gains.append(here)
    ruled = []
    if len(gains) > 1:
        ruled = [len(rows) - 1]
        means = [float(mean) for mean in np.mean(gains, axis=0)]
        count = f"mean of {len(gains)} targets"
        empty = Cell()
        cells = [Cell(count, strong=True), empty, empty, empty, _gain_cell(means[0]), empty, empty]
        rows.append([*cells, _gain_cell(means[1])])
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


def _best(scores: Mapping[Row, float]) -> Row | None:
    return max(scores, key=lambda row: scores[row], default=None)


def _gain(grid: Grid, row: Row | None, task: str) -> float:
    """The gain over the baseline; the baseline's own is zero."""
    summary = summarize(grid, row, task) if row else None
    if row is None or summary is None:
        return math.nan
    return 0.0 if grid.baseline(row) == row else summary.difference


def _outcome(shown: Mapping[Row, float], row: Row | None, gain: float) -> list[Cell]:
    score = shown.get(row, math.nan) if row else math.nan
    return [Cell(fixed(score), score if math.isfinite(score) else None), _gain_cell(gain)]


def _gain_cell(gain: float) -> Cell:
    return Cell(signed(gain), gain, tone=gain_tone(gain)) if math.isfinite(gain) else Cell("–")
