"""Sections on seeds, on the runs themselves, and on how to repeat them."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stilts_jax.progress import format_seconds
from stilts_jax.report.figures import Figures, curves
from stilts_jax.report.grid import Cell as Scores
from stilts_jax.report.grid import Grid, Row
from stilts_jax.report.names import meaning
from stilts_jax.report.results import BASELINE, Broken, Run, split_configs
from stilts_jax.report.statistics import Components, crossed_components
from stilts_jax.report.tables import (
    Block,
    Cell,
    Section,
    Table,
    cells,
    change,
    fixed,
    folded,
    numbers,
    score,
    stem,
    words,
)

_OPEN_CHARTS = 6  # more would bury the tables below them


def seed_section(grid: Grid) -> Section:
    """Variance components for each target, and what collapsed runs change."""
    reading = (
        "How much of the spread over runs comes from the intermediate training's seed, how much from the "
        "target training's, how much from neither (their interaction). Standard deviations in points. With "
        "few seeds these are rough: a standard deviation from three seeds can be off by a factor of two."
    )
    tables = {names: seed_table(cell) for names, cell in grid.cells.items()}
    known = {names: crossed_components(table) for names, table in tables.items() if table.size > 1}
    blocks: list[Block | Table] = []
    if known:
        blocks = [_pooled(grid, known), folded("Every row and target", _every(grid, known))]
    else:
        reading = "Every number here is a single run: nothing is known about seeds. Run with seeds=3."
    return Section("seeds", "Seeds", reading, blocks + _collapsed(grid))


def seed_table(cell: Scores) -> np.ndarray:
    """Returns [intermediate seeds, target seeds]: the largest full table that the runs fill.

    Scores are means over languages. Of equally large tables the one nearer to a square is taken.
    """
    if not cell:
        return np.empty((0, 0))
    table = cell.values.mean(axis=1).unstack()
    # The columns of a full table are those that some rows share: each row's, cut with others', are tried.
    shared = {frozenset(row.dropna().index) for _, row in table.iterrows()}
    while more := {one & other for one in shared for other in shared} - shared:
        shared |= more
    found = [table[sorted(seconds)].dropna().to_numpy() for seconds in sorted(shared, key=sorted)]
    return max(found, key=lambda one: (one.size, min(one.shape)))


def _pooled(grid: Grid, known: Mapping[tuple[Row, str], Components]) -> Table:
    designs: dict[tuple[int, bool, tuple[int, int]], list[Components]] = {}
    for (row, task), one in known.items():
        designs.setdefault((grid.tasks.index(task), row[0] == BASELINE, one.shape), []).append(one)
    rows = []
    for (number, is_base, shape), pooled in sorted(designs.items()):
        name = grid.title(grid.tasks[number]) + " (baseline)" * is_base
        rows.append(cells(name, " x ".join(map(str, shape)), *_deviations(pooled), len(pooled)))
    columns = [*words("Target"), *numbers("seeds: intermediate x target")]
    columns += numbers("intermediate seed", "target seed", "rest", "rows: pooled")
    notes = [
        "Variances are pooled over rows of the same design by their mean (method of moments, two-way random "
        "effects); an estimate below zero is shown as 0.0. Where only one kind of seed varies, its column includes "
        "the rest."
    ]
    return Table("seeds", "Standard deviation by source, pooled over intermediates", columns, rows, notes)


def _deviations(found: Sequence[Components]) -> list[Cell]:
    variances = np.array([(one.intermediate, one.target, one.rest) for one in found]).mean(axis=0)
    return [score(math.sqrt(max(one, 0.0)) if math.isfinite(one) else one, 2) for one in variances]


def _every(grid: Grid, known: Mapping[tuple[Row, str], Components]) -> Table:
    columns = [*words("Intermediate", "Target"), *numbers("seeds: intermediate x target")]
    columns += numbers("intermediate seed", "target seed", "rest")
    rows = [
        cells(grid.row_title(row), grid.title(task), " x ".join(map(str, one.shape)), *_deviations([one]))
        for (row, task), one in known.items()
    ]
    return Table("seeds_details", "Standard deviation by source, every row and target", columns, rows)


def _collapsed(grid: Grid) -> list[Block | Table]:
    names = ", ".join(run.name for run in grid.intermediates if run.collapsed)
    blocks: list[Block | Table] = []
    if names:
        blocks.append(Block("text", text=f"Intermediate phases that ended at chance level: {names}."))
    rows = []
    for (row, task), cell in grid.cells.items():
        good = [not run.collapsed for run in cell.runs]
        if all(good):
            continue
        per_run = cell.values.mean(axis=1)
        whole, rest = float(per_run.mean()), float(per_run[good].mean())
        who = grid.row_title(row), grid.title(task), len(good), good.count(False)
        rows.append(cells(*who, score(whole), score(rest), change(rest - whole)))
    if not rows:
        return [*blocks, Block("text", text="No target run ended at chance level.")]
    columns = [*words("Intermediate", "Target")]
    columns += numbers("runs", "at chance", "mean with them", "mean without", "change")
    return [*blocks, Table("collapsed", "Runs that ended at chance level", columns, rows)]


def run_section(grid: Grid, broken: Sequence[Broken], figures: Figures) -> Section:
    """Learning curves, throughput, hardware and versions, remarks, what failed."""
    reading = (
        "How training went and what it cost. A curve is one run, coloured by the intermediate; loss, and the score on "
        "the selection set by which the checkpoint was chosen."
    )
    charts = _curves(grid, figures)
    blocks: list[Block | Table] = [Block("row", blocks=charts[:_OPEN_CHARTS])]
    if len(charts) > _OPEN_CHARTS:
        blocks.append(folded("All learning curves", Block("row", blocks=charts[_OPEN_CHARTS:])))
    blocks += [table for table in (_own_scores(grid), _throughput(grid), _environments(grid)) if table.rows]
    if all(run.zero_shot for run in grid.evaluations):
        tuned = dict.fromkeys(
            grid.title(task) for run in grid.evaluations for task, codes in run.tuned.items() if codes
        )
        claim = "checkpoint was selected on data of a target language"
        but = f"No {claim}, but thresholds of {', '.join(tuned)} were tuned on it."
        blocks.append(Block("text", text=but if tuned else f"Zero-shot: no {claim}."))
    blocks += [table for table in [_notes(grid)] if table.rows]
    rows = [cells(run.name, "failed", run.error) for run in grid.runs if run.error]
    rows += [
        cells(run.name, "scored before, then failed", run.later_error) for run in grid.runs if run.later_error
    ]
    for one in broken:
        place = one.path.name if one.path.is_dir() else f"{one.path.parent.name}/{one.path.name}"
        rows.append(cells(place, "left out", one.reason))
    if rows:
        blocks.append(Table("problems", "Phases without a result", words("Phase", "What", "Why"), rows))
    else:
        blocks.append(Block("text", text="No phase failed, and every result file could be read."))
    return Section("runs", "Runs", reading, blocks)


def _training(grid: Grid, run: Run) -> str:
    """What a run trained, in words."""
    if run.stage == "intermediate":
        return f"{grid.intermediate_label(run.intermediate)} (intermediate)"
    return f"{grid.title(run.target)} (target)" if run.target else "retrieval"


def _curves(grid: Grid, figures: Figures) -> list[Block]:
    names = [BASELINE, *dict.fromkeys(row[0] for row in grid.rows if row[0] != BASELINE)]
    groups: dict[str, list[Run]] = {}
    for run in sorted(
        grid.runs, key=lambda run: names.index(run.intermediate) if run.intermediate in names else 99
    ):
        if run.curve and (run.target or run.stage == "intermediate"):
            title = f"{grid.title(run.target)}, target training" if run.target else "Intermediate trainings"
            groups.setdefault(title, []).append(run)
    charts = []
    for title in sorted(groups, key=lambda title: title != "Intermediate trainings"):
        runs = groups[title]
        styles = [names.index(run.intermediate) - 1 if run.intermediate in names else 99 for run in runs]
        for kind, axis in (("loss", "training loss"), ("selection score", "selection score")):
            points = [run.curve if kind == "loss" else run.history for run in runs]
            lines = [
                (grid.intermediate_label(run.intermediate), index, one)
                for run, index, one in zip(runs, styles, points)
                if len(one) > (kind != "loss")
            ]
            if lines:
                name = f"curves_{stem(title.lower().replace(',', ''))}_{stem(kind)}"
                charts.append(
                    Block("chart", f"{title}: {kind}", figures.draw(name, *curves(lines, axis), files=False))
                )
    return charts


def _own_scores(grid: Grid) -> Table:
    """What intermediate trainings reached on their own tasks: a failed one explains its row."""
    groups: dict[tuple[str, str, str, str], list[float]] = {}
    for run in grid.intermediates:
        for task in run.tasks():
            if found := list(run.language_scores(task).values()):
                what = grid.title(task), meaning(run.metrics(task)), run.split(task)
                groups.setdefault((grid.intermediate_label(run.intermediate), *what), []).append(
                    float(np.mean(found))
                )
    columns = [
        *words("Intermediate", "its task", "metric", "split"),
        *numbers("score", "sd: over seeds", "runs"),
    ]
    rows = []
    for names, values in groups.items():
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        rows.append(cells(*names, score(float(np.mean(values))), score(deviation), len(values)))
    return Table("intermediates", "Intermediate trainings on their own tasks", columns, rows)


def _throughput(grid: Grid) -> Table:
    fields = ["steps", "examples_per_second", "real_tokens_per_second", "padding_share", "seconds"]
    frame = pd.DataFrame(
        [run.throughput for run in grid.runs], index=[_training(grid, run) for run in grid.runs]
    )
    frame = frame.reindex(columns=fields).apply(pd.to_numeric, errors="coerce")
    total = frame.seconds.sum()
    rows = []
    for name, part in frame[frame.steps > 0].groupby(level=0, sort=False):  # retrieval takes no steps
        means = part.mean()
        row = cells(str(name), len(part))
        for value in means[fields[:3]]:
            row.append(Cell(f"{value:,.0f}" if value >= 100 else fixed(value, 2), float(value)))
        padding = f"{100 * means.padding_share:.0f} %" if math.isfinite(means.padding_share) else "–"
        row += [Cell(padding, float(means.padding_share)), _time(means.seconds), _time(part.seconds.sum())]
        rows.append(row)
    columns = [*words("Training"), *numbers("runs", "steps", "examples/s", "real tokens/s", "padding")]
    columns += numbers("time: a run", "time: all runs")
    return Table(
        "throughput", "Throughput", columns, rows, [f"Means over runs; {format_seconds(total)} in all."]
    )


def _time(seconds: float) -> Cell:
    return Cell(format_seconds(seconds) if math.isfinite(seconds) else "–", float(seconds))


def _environments(grid: Grid) -> Table:
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in grid.runs:
        versions = ", ".join(
            f"{name} {version}" for name, version in sorted(run.environment["versions"].items())
        )
        machine = [str(run.environment.get(name) or "?") for name in ("device", "device_count")]
        groups.setdefault((machine[0], machine[1], versions or "?"), []).append(run)
    rows = []
    for (device, count, versions), runs in groups.items():
        span = [
            pick([str(run.environment[name]) for run in runs if run.environment.get(name)] or ["–"])
            for name, pick in (("started", min), ("finished", max))
        ]
        rows.append(
            cells(device, count, versions, len(runs), *(moment[:16].replace("T", " ") for moment in span))
        )
    columns = [
        *words("Device"),
        *numbers("count"),
        *words("Versions"),
        *numbers("phases"),
        *words("From", "To"),
    ]
    return Table("environments", "Hardware and versions", columns, rows)


def _notes(grid: Grid) -> Table:
    """Remarks on selection, with how many phases carry each; what is not zero-shot comes first."""
    groups: dict[tuple[bool, str], list[Run]] = {}
    for run in grid.runs:
        for note in run.notes or ("selected on target-language data",) * (not run.zero_shot):
            groups.setdefault((run.zero_shot, note), []).append(run)
    rows = [
        cells(note, Cell("yes" if zero_shot else "NO", strong=not zero_shot), len(runs), runs[0].name)
        for (zero_shot, note), runs in sorted(groups.items(), key=lambda item: item[0])
    ]
    columns = [*words("Remark", "zero-shot"), *numbers("phases"), *words("for instance")]
    return Table("selection", "Remarks on model selection", columns, rows)


def repeat_section(grid: Grid) -> Section:
    """Commands, configurations, seeds, data."""
    reading = (
        "Everything to run a cell again. The same command finds finished phases and runs only what is missing, so a "
        "cell is repeated by removing the folders of its phases (below) and giving the command again, in the folder "
        "where it was given. A phase's key is a hash of what its training depends on."
    )
    commands = dict.fromkeys(str(run.environment.get("command") or "") for run in grid.runs)
    common, own = split_configs([run.config for run in grid.runs])
    alike: dict[str, list[str]] = {}
    for run, config in zip(grid.runs, own):
        alike.setdefault(_pretty(config), []).append(run.name)
    different = "\n\n".join(f"# {', '.join(runs)}\n{text}" for text, runs in alike.items() if text != "{}")
    blocks = [
        Block("code", text=redact("\n".join(filter(None, commands))) or "no command was recorded"),
        folded("Phases, seeds and keys", _phases(grid)),
        folded("Configuration that all phases share", Block("code", text=_pretty(common))),
    ]
    blocks += [folded("Configuration that differs", Block("code", text=different))] if different else []
    return Section("repeat", "Reproducibility", reading, [*blocks, folded("Data", _data(grid))])


def _pretty(record: Mapping[str, Any]) -> str:
    return redact(json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True, default=str))


def redact(text: str) -> str:
    """Takes out names and passwords in URLs, and the values of options for secrets."""
    text = re.sub(r"://[^/@\s\"']+@", "://", text)
    return re.sub(r"(?i)(--[\w.]*(?:token|secret|password|key|credentials)[= ])\S+", r"\1...", text)


def _phases(grid: Grid) -> Table:
    rows = []
    for run in grid.runs:
        seeds = ", ".join("–" if seed is None else str(seed) for seed in run.seeds)
        scored = ", ".join(map(grid.title, run.tasks())) or "–"
        best = "–" if run.best_step is None else str(run.best_step)
        state = "failed" if run.error else "at chance" if run.collapsed else "finished"
        rows.append(
            cells(run.name, run.path.parent.name, scored, seeds, run.key, run.parent or "–", best, state)
        )
    columns = [*words("Phase", "folder", "scores"), *numbers("seeds: intermediate, target")]
    columns += [*words("key", "parent"), *numbers("best step"), *words("state")]
    return Table("phases", "Phases", columns, rows)


def _data(grid: Grid) -> Table:
    seen: Counter[tuple[str, str, str, str]] = Counter()
    for run in grid.runs:
        for task, splits in run.data.items():
            for split, one in splits.items():
                count = str(one.get("examples") or f"{len(one.get('languages') or ())} languages")
                seen[task, split, count, str(one.get("fingerprint", "?"))] += 1
    columns = [*words("Task", "split"), *numbers("examples"), *words("fingerprint"), *numbers("phases")]
    rows = [cells(*names, count) for names, count in sorted(seen.items())]
    several = len({names[:2] for names in seen}) < len(seen)
    notes = ["A split with several fingerprints was not the same data in all phases."] * several
    return Table("data", "Data", columns, rows, notes)
