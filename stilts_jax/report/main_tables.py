"""The paper's main table, the averages, and the best intermediate of each target."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stilts_jax.report.benchmarks import (
    GROUP_TITLES,
    group_of,
    intermediate_title,
    metric_title,
    task_title,
    training_title,
)
from stilts_jax.report.document import Block, Section, Text
from stilts_jax.report.grid import Grid, Row, Summary, average, summarize
from stilts_jax.report.languages import language_name
from stilts_jax.report.results import BASELINE
from stilts_jax.report.significance import SIGNIFICANT, Comparison, Mean
from stilts_jax.report.tables import Cell, Column, Table, change, fixed, score, signed, words

NO_VALUE = "–"


def main_section(grid: Grid, comparisons: Sequence[Comparison], means: Sequence[Mean]) -> Section:
    """Intermediates x targets, and the averages."""
    base = any(row[0] == BASELINE for row in grid.rows)
    reading = (
        "A row is what the encoder was trained on before the target task, a column is a target task; each "
        "number is a mean over the languages of the task, then over seeds (± is the standard deviation over "
        "seeds; beside a difference, that of the differences between runs of equal target seed)."
    )
    if base:
        reading += (
            " The row “none” is the baseline, in percent; all other rows are differences from it in points, "
            "blue where better and orange where worse."
        )
    blocks: list[Block] = [main_table(grid)]
    headline = _headline(grid, comparisons, means)
    if headline:
        blocks.insert(0, Text(headline))
    if len(grid.scored) > 1:
        blocks.append(averages_table(grid))
    return Section("main", "Main table", reading, blocks)


def main_table(grid: Grid) -> Table:
    """One column a task; splits and metrics are in the heads."""
    columns = words("Intermediate")
    for task in grid.tasks:
        metrics = "/".join(metric_title(metric) for metric in grid.metrics(task)) or "no scores"
        group = GROUP_TITLES[group_of(task)]
        splits = f", {grid.splits(task)}" if grid.splits(task) else ""
        what = "mean of " + metrics.replace("/", " and ") if "/" in metrics else metrics
        columns.append(Column(training_title(task), metrics + splits, group, meaning=what + splits))
    rows = [_main_row(grid, row) for row in grid.rows]
    notes = []
    fewer = [
        f"{task_title(task)} {coverage}"
        for task in grid.benchmark.tasks
        if task in grid.tasks
        and (here := grid.languages(task))
        and (coverage := grid.benchmark.coverage(task, here))
    ]
    if fewer:
        notes.append(f"Languages of {grid.benchmark.title} that are here: {', '.join(fewer)}.")
    if any(run.collapsed for cell in grid.cells.values() for run in cell.runs):
        notes.append(
            "† some runs ended at chance level; they count here. See “Seeds” for the means without them."
        )
    lost = [run.name for run in grid.intermediates if run.collapsed]
    if lost:
        notes.append(f"Intermediate trainings that ended at chance level: {', '.join(lost)}.")
    for row in grid.rows:
        if row[1] == grid.rows[0][1] and grid.intermediate_label(row[0]) != intermediate_title(row[0]):
            notes.append(f"{grid.intermediate_label(row[0])}: {intermediate_title(row[0])}.")
    seeds = sorted({len(cell.runs) for cell in grid.cells.values() if cell})
    if seeds:
        notes.append(
            f"Runs behind a number: {_span(seeds)}." + (" One run has no ±." if seeds[0] == 1 else "")
        )
    return Table("main", "Main table: intermediates by target tasks", columns, rows, notes, _ruled(grid))


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"


def _ruled(grid: Grid) -> list[int]:
    return [index for index, row in enumerate(grid.rows) if row[0] == BASELINE and len(grid.rows) > 1]


def _main_row(grid: Grid, row: Row) -> list[Cell]:
    cells = [Cell(grid.row_title(row), strong=row[0] == BASELINE)]
    for task in grid.tasks:
        cell, summary = grid.cell(row, task), summarize(grid, row, task)
        if summary is None:
            cells.append(Cell(NO_VALUE, note=cell.reason))
            continue
        notes = [cell.reason] if cell.reason else []
        if summary.missing:
            notes.append(
                f"compared without {', '.join(summary.missing)}, which this row or the baseline lacks"
            )
        if grid.baseline(row) not in (None, row) and grid.compared_with(row, task) is None:
            notes.append(f"percent on {cell.split}: the baseline has no such score to compare with")
        elif "/" in grid.splits(task):
            notes.append(f"on {cell.split}")
        cells.append(_score_cell(grid, row, task, summary, "; ".join(notes)))
    return cells


def _score_cell(grid: Grid, row: Row, task: str, summary: Summary, note: str) -> Cell:
    """Several metrics (F1 / EM) are shown beside each other, coloured by their mean."""
    dagger = "†" if any(run.collapsed for run in grid.cell(row, task).runs) else ""
    hint = f"{grid.row_title(row)}, {task_title(task)}: {fixed(summary.mean, 2)}, {summary.count} runs"
    is_difference = math.isfinite(summary.difference)
    parts = _metric_values(grid, row, task, is_difference)
    shown = " / ".join(signed(part) if is_difference else fixed(part) for part in parts)
    return replace(summary_cell(summary), text=shown + dagger, note=note, hint=hint)


def _metric_values(grid: Grid, row: Row, task: str, is_difference: bool) -> list[float]:
    cell, base = grid.cell(row, task), grid.compared_with(row, task)
    if not is_difference or base is None:
        return np.nanmean(cell.values, axis=(0, 1)).tolist()
    shared = [language for language in cell.languages if language in base.languages]
    return (
        np.nanmean(cell.select(shared), axis=(0, 1)) - np.nanmean(base.select(shared), axis=(0, 1))
    ).tolist()


def averages_table(grid: Grid) -> Table:
    """Group means and overall means, with and without retrieval, with and without the source language."""
    wanted = _average_columns(grid)
    left_out = _names(grid.trained_languages)
    columns = words("Intermediate")
    for head, tasks, _, group in wanted:
        columns.append(Column(head, f"{len(tasks)} task{'s' if len(tasks) > 1 else ''}", group))
    rows = []
    for row in grid.rows:
        cells = [Cell(grid.row_title(row), strong=row[0] == BASELINE)]
        for _, tasks, transfer, _ in wanted:
            summary = average(grid, row, tasks, transfer=transfer)
            cells.append(_average_cell(grid, row, summary, tasks))
        rows.append(cells)
    notes = ["Every task weighs the same; a question answering task is the mean of F1 and EM."]
    absent = [task_title(task) for task in grid.benchmark.tasks if task not in grid.scored]
    if wanted and wanted[-1][3].startswith("Average"):
        why = f"not in this grid are {', '.join(absent)}" if absent else "some languages are missing"
        notes.append(
            f"No overall average here is {grid.benchmark.title}'s: {why}. Averages run over what is here."
        )
    if any(transfer for _, _, transfer, _ in wanted):
        notes.append(f"“Without {left_out}” leaves out what was trained on: transfer only.")
    return Table("averages", "Averages over tasks", columns, rows, notes, _ruled(grid))


def _names(languages: Sequence[str]) -> str:
    return " and ".join(language_name(language) or language for language in languages)


def _average_columns(grid: Grid) -> list[tuple[str, list[str], bool, str]]:
    groups = [group for group in GROUP_TITLES if len(grid.tasks_in(group)) > 1]
    columns = [(GROUP_TITLES[group], grid.tasks_in(group), False, "Groups") for group in groups]
    everything = list(grid.scored)
    without = [task for task in everything if group_of(task) != "retrieval"]
    complete = all(
        task in grid.scored and not grid.benchmark.coverage(task, grid.languages(task))
        for task in grid.benchmark.tasks
    )
    name = f"{grid.benchmark.title} average" if complete else "Average of the tasks here"
    benchmark_tasks = list(grid.benchmark.tasks) if complete else everything
    columns.append(("All", benchmark_tasks, False, name))
    if without and without != everything:
        columns.append(("Without retrieval", without, False, name))
    if any(len(grid.transfer(grid.languages(task))) < len(grid.languages(task)) for task in everything):
        transferable = [task for task in benchmark_tasks if grid.transfer(grid.languages(task))]
        head = f"Without {_names(grid.trained_languages)}"
        if transferable:
            columns.append((head, transferable, True, name))
        both = [task for task in transferable if group_of(task) != "retrieval"]
        if both and both != transferable:
            columns.append(("Without either", both, True, name))
    return columns


def _average_cell(grid: Grid, row: Row, summary: Summary | None, tasks: Sequence[str]) -> Cell:
    if summary is None:
        return Cell(NO_VALUE, note="no task of it can be compared in this row")
    note = ""
    if summary.missing:
        missing = ", ".join(task_title(task) for task in summary.missing)
        why = "has no score" if grid.baseline(row) in (None, row) else "can't be compared"
        note = f"without {missing}, which {why} in this row"
    return replace(summary_cell(summary), note=note, hint=f"{grid.row_title(row)}: {fixed(summary.mean, 2)}")


def summary_cell(summary: Summary) -> Cell:
    """The difference from the baseline, or the score where there is none; its spread over seeds below."""
    deviation = f"± {summary.deviation:.1f}" if math.isfinite(summary.deviation) else ""
    is_difference = math.isfinite(summary.difference)
    cell = change(summary.difference, coloured=True) if is_difference else score(summary.mean)
    numbers = {
        "percent": summary.mean,
        "percent_sd": summary.own_deviation if is_difference else summary.deviation,
        "difference": summary.difference,
        "difference_sd": summary.deviation if is_difference else math.nan,
        "runs": summary.count,
    }
    return replace(cell, detail=deviation, numbers=numbers)


def _headline(grid: Grid, comparisons: Sequence[Comparison], means: Sequence[Mean]) -> str:
    """Means over all that was compared: the largest of many cells would owe part of its size to chance."""
    if not grid.compared:
        return ""
    sentences = []
    rest = [task for task in grid.scored if group_of(task) != "retrieval"]
    for name, tasks in (("", grid.scored), (" without retrieval", rest)):
        found = [average(grid, row, tasks) for row, _ in grid.compared]
        gains = [one.difference for one in found if one and math.isfinite(one.difference)]
        if gains and (not name or 0 < len(rest) < len(grid.scored)):
            many = f" and {len(gains)} intermediates" if len(gains) > 1 else ""
            sentences.append(
                f"Mean difference from the baseline{name}: {signed(float(np.mean(gains)))} points over "
                f"{len(tasks)} task{'s' * (len(tasks) > 1)}{many}"
            )
    if means:
        interval = means[-1].interval
        sentences[0] += f" (95 % interval over test items {signed(interval.low)} to {signed(interval.high)})"
    if comparisons:
        holds = [one for one in comparisons if one.holm < SIGNIFICANT]
        up = sum(one.difference > 0 for one in holds)
        sentences.append(
            f"Of {len(comparisons)} differences {up} are above zero and {len(holds) - up} below beyond the luck of "
            "test items (Holm)"
        )
    return ". ".join(sentences) + "."
