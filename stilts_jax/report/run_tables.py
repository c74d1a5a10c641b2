"""The section on the runs themselves: learning curves, speed, machines, what failed."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from stilts_jax.progress import format_seconds
from stilts_jax.report.benchmarks import metric_title, task_title, training_title
from stilts_jax.report.charts import Curve, line_chart
from stilts_jax.report.document import Block, Chart, Folded, Section, Text
from stilts_jax.report.document import Row as SideBySide
from stilts_jax.report.grid import Grid
from stilts_jax.report.results import BASELINE, Broken, Run
from stilts_jax.report.tables import Cell, Table, cells, numbers, score, words

_OPEN_CHARTS = 6  # more would bury the tables below them
_POINTS = 60  # of a drawn curve; more can't be told apart at this size


def run_section(grid: Grid, broken: Sequence[Broken]) -> Section:
    """Learning curves, throughput, hardware and versions, remarks, what failed."""
    reading = (
        "How training went and what it cost. A curve is one run, coloured by the intermediate; loss on the "
        "left, on the right the score on the selection set by which the checkpoint was chosen."
    )
    curves = _curves(grid)
    blocks: list[Block] = [SideBySide(curves[:_OPEN_CHARTS])]
    if len(curves) > _OPEN_CHARTS:
        blocks.append(Folded("All learning curves", [SideBySide(curves[_OPEN_CHARTS:])]))
    own_scores = _intermediate_scores(grid)
    blocks += [own_scores] if own_scores else []
    blocks += [_throughput(grid), _environments(grid)]
    notes = _notes(grid)
    zero_shot = all(run.selection.get("zero_shot", True) for run in grid.evaluations)
    if zero_shot:
        tuned = dict.fromkeys(task_title(task) for run in grid.evaluations for task in run.tuned)
        claim = "checkpoint was selected on data of a target language"
        but = f"No {claim}, but thresholds of {', '.join(tuned)} were tuned on it."
        blocks.append(Text(but if tuned else f"Zero-shot: no {claim}."))
    if notes:
        blocks.append(notes)
    blocks += _problems(grid, broken)
    return Section("runs", "Runs", reading, blocks)


def _training(grid: Grid, run: Run) -> str:
    """What a run trained, in words."""
    if run.stage == "intermediate":
        return f"{grid.intermediate_label(run.intermediate)} (intermediate)"
    return f"{training_title(run.target_training)} (target)" if run.target_training else "retrieval"


def _curves(grid: Grid) -> list[Block]:
    names = dict.fromkeys([row[0] for row in grid.rows if row[0] != BASELINE])
    styles = {BASELINE: -1} | {name: index for index, name in enumerate(names)}
    charts: list[Block] = []
    intermediates = [run for run in grid.intermediates if run.curve]
    groups = {"Intermediate trainings": intermediates} if intermediates else {}
    for run in grid.evaluations:
        if run.curve and run.target_training:
            groups.setdefault(f"{training_title(run.target_training)}, target training", []).append(run)
    for title, runs in groups.items():
        runs.sort(key=lambda run: styles.get(run.intermediate, len(styles)))
        losses = [_curve(grid, run, run.curve, styles) for run in runs]
        charts.append(Chart(f"{title}: loss", line_chart(title, losses, "step", "training loss")))
        scores = [_curve(grid, run, run.history, styles) for run in runs if len(run.history) > 1]
        if scores:
            chart = line_chart(title, scores, "step", "selection score")
            charts.append(Chart(f"{title}: selection score", chart))
    return charts


def _curve(grid: Grid, run: Run, points: Sequence[tuple[float, float]], styles: Mapping[str, int]) -> Curve:
    return Curve(
        grid.intermediate_label(run.intermediate), thin(points), styles.get(run.intermediate, len(styles))
    )


def thin(points: Sequence[tuple[float, float]], most: int = _POINTS) -> list[tuple[float, float]]:
    """Averages neighbours until at most ``most`` points are left; the last one is kept."""
    there = [(float(x), float(y)) for x, y in points if math.isfinite(y)]
    if len(there) <= most:
        return there
    parts = np.array_split(np.array(there), most)
    return [(float(part[-1, 0]), float(part[:, 1].mean())) for part in parts]


def _intermediate_scores(grid: Grid) -> Table | None:
    """What intermediate trainings reached on their own tasks: a failed one explains its row."""
    groups: dict[tuple[str, str, str, str], list[float]] = {}
    for run in grid.intermediates:
        for task in run.tasks():
            values = [np.mean(scores) for scores in run.language_scores(task).values()]
            if values:
                metrics = "/".join(metric_title(metric) for metric in run.metrics(task))
                who = grid.intermediate_label(run.intermediate), training_title(task)
                groups.setdefault((*who, metrics, run.split(task)), []).append(float(np.mean(values)))
    if not groups:
        return None
    columns = [*words("Intermediate", "its task", "metric", "split")]
    columns += numbers("score", "sd: over seeds", "runs")
    rows = []
    for names, scores in groups.items():
        deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan
        rows.append(cells(*names, score(float(np.mean(scores))), score(deviation), len(scores)))
    return Table("intermediates", "Intermediate trainings on their own tasks", columns, rows)


def _throughput(grid: Grid) -> Table:
    columns = [*words("Training"), *numbers("runs", "steps", "examples/s", "real tokens/s", "padding")]
    columns += numbers("time: a run", "time: all runs")
    groups: dict[str, list[Run]] = {}
    for run in grid.runs:
        if run.throughput.get("steps"):  # retrieval takes none
            groups.setdefault(_training(grid, run), []).append(run)
    rows = []
    for name, runs in groups.items():
        seconds = _numbers(runs, "seconds")
        padding = _average(runs, "padding_share")
        row = cells(name, len(runs))
        for field in ("steps", "examples_per_second", "real_tokens_per_second"):
            value = _average(runs, field)
            text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            row.append(Cell(text if math.isfinite(value) else "–", value))
        row.append(Cell(f"{100 * padding:.0f} %" if math.isfinite(padding) else "–", padding))
        mean, total = (float(np.mean(seconds)), sum(seconds)) if seconds else (math.nan, math.nan)
        rows.append([*row, _time(mean), _time(total)])
    whole = format_seconds(sum(_numbers(grid.runs, "seconds")))
    notes = [f"Means over runs; {whole} in all."]
    return Table("throughput", "Throughput", columns, rows, notes)


def _time(seconds: float) -> Cell:
    return Cell(format_seconds(seconds) if math.isfinite(seconds) else "–", seconds)


def _numbers(runs: Sequence[Run], field: str) -> list[float]:
    values = [run.throughput.get(field) for run in runs]
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def _average(runs: Sequence[Run], field: str) -> float:
    values = _numbers(runs, field)
    return float(np.mean(values)) if values else math.nan


def _environments(grid: Grid) -> Table:
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in grid.runs:
        versions = run.environment["versions"]
        text = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        key = (
            str(run.environment.get("device") or "?"),
            str(run.environment.get("device_count") or "?"),
            text or "?",
        )
        groups.setdefault(key, []).append(run)
    columns = [
        *words("Device"),
        *numbers("count"),
        *words("Versions"),
        *numbers("phases"),
        *words("From", "To"),
    ]
    rows = []
    for (device, count, versions), runs in groups.items():
        started = sorted(str(run.environment["started"]) for run in runs if run.environment.get("started"))
        finished = sorted(str(run.environment["finished"]) for run in runs if run.environment.get("finished"))
        span = [_moment(times) for times in (started[:1], finished[-1:])]
        rows.append(cells(device, count, versions, len(runs), *span))
    return Table("environments", "Hardware and versions", columns, rows)


def _moment(times: Sequence[str]) -> str:
    return times[0][:16].replace("T", " ") if times else "–"


def _notes(grid: Grid) -> Table | None:
    """Remarks on selection, with how many phases carry each; what is not zero-shot comes first."""
    groups: dict[tuple[bool, str], list[Run]] = {}
    for run in grid.runs:
        zero_shot = run.selection.get("zero_shot", True) is not False
        notes = run.notes or (() if zero_shot else ("selected on target-language data",))
        for note in notes:
            groups.setdefault((zero_shot, note), []).append(run)
    if not groups:
        return None
    columns = [*words("Remark", "zero-shot"), *numbers("phases"), *words("for instance")]
    rows = [
        cells(note, Cell("yes" if zero_shot else "NO", strong=not zero_shot), len(runs), runs[0].name)
        for (zero_shot, note), runs in sorted(groups.items(), key=lambda item: item[0])
    ]
    return Table("selection", "Remarks on model selection", columns, rows)


def _problems(grid: Grid, broken: Sequence[Broken]) -> list[Block]:
    rows = [cells(run.name, "failed", run.error) for run in grid.runs if run.error]
    rows += [
        cells(run.name, "a later attempt failed", run.later_error) for run in grid.runs if run.later_error
    ]
    rows += [cells(_place(one), "left out", one.reason) for one in broken]
    if not rows:
        return [Text("No phase failed, and every result file could be read.")]
    return [
        Table(
            "problems",
            "Phases that failed, and files that can't be read",
            words("Phase", "What", "Why"),
            rows,
        )
    ]


def _place(one: Broken) -> str:
    return one.path.name if one.path.is_dir() else f"{one.path.parent.name}/{one.path.name}"
