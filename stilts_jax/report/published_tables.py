"""Side by side with numbers that others published and that were read in the source named."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from stilts_jax.report.benchmarks import GROUP_TITLES, group_of, metric_title, task_title
from stilts_jax.report.document import Block, Section
from stilts_jax.report.grid import Grid, Row, average
from stilts_jax.report.results import BASELINE
from stilts_jax.report.tables import Cell, Column, Table, cells, change, fixed, numbers, score, stem, words

_LARGE = ("xlm-roberta-large", "xlmr-large", "xlm-r-large", "xlmr.large")
_MEAN = "mean"


@dataclass(frozen=True)
class Published:
    """One number, percent."""

    model: str
    source: str
    split: str
    task: str
    language: str
    metric: str
    value: float


@cache
def published_numbers() -> tuple[Published, ...]:
    """Reads ``published.csv``."""
    text = resources.files("stilts_jax.report").joinpath("published.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(Published(value=float(row.pop("value")), **row) for row in csv.DictReader(lines))


def is_large(grid: Grid) -> bool:
    """Whether the baseline's encoder is XLM-R Large, by the name that the configuration gives it."""
    return any(name in encoder.lower() for encoder in _encoders(grid) for name in _LARGE)


def _encoders(grid: Grid) -> list[str]:
    """What the grid starts from; rows of other people's models start from their own."""
    own = (run for run in grid.runs if not run.intermediate.startswith("hub:"))
    return sorted({str(run.config["encoder"]) for run in own if run.config.get("encoder")})


def published_section(grid: Grid) -> Section | None:
    """Returns nothing where no task here has a published number."""
    tasks = [task for task in grid.tasks if any(one.task == task for one in published_numbers())]
    if not tasks:
        return None
    encoders = ", ".join(_encoders(grid)) or "not named"
    reading = (
        f"Rows of others beside the rows of this grid (encoder: {encoders}). Only numbers that were read in "
        "the source named are here. Splits and model selection differ: X-STILTs is the best intermediate "
        "for each task, chosen on dev. A gap of a few points may be the split, the layer of retrieval, or "
        "the seed."
    )
    blocks: list[Block] = [_means(grid, tasks)]
    blocks += [table for task in tasks if (table := _by_language(grid, task))]
    return Section("published", "Published numbers", reading, blocks)


def _means(grid: Grid, tasks: Sequence[str]) -> Table:
    columns = words("Model", "from")
    for task in tasks:
        metrics = "/".join(metric_title(metric) for metric in grid.metrics(task))
        columns.append(Column(task_title(task), metrics, GROUP_TITLES[group_of(task)]))
    wholes = _benchmark_averages(grid)
    columns += [
        Column(GROUP_TITLES.get(name, "All"), f"{len(of)} tasks", "Averages") for name, of in wholes.items()
    ]
    means = [one for one in published_numbers() if one.language == _MEAN]
    rows = []
    for model, source, split in dict.fromkeys((one.model, one.source, one.split) for one in means):
        here = {
            (one.task, one.metric): one.value for one in means if (one.model, one.source) == (model, source)
        }
        cells = []
        for task in tasks:
            values = [here.get((task, metric), math.nan) for metric in grid.metrics(task)]
            known = any(math.isfinite(value) for value in values)
            cells.append(Cell(" / ".join(fixed(value) for value in values) if known else "–"))
        cells += [score(here.get((name, "average"), math.nan)) for name in wholes]
        rows.append([Cell(model), Cell(source if source.endswith(split) else f"{source}, {split}"), *cells])
    rule = len(rows) - 1
    for row in grid.rows:
        found = [average(grid, row, of) for of in wholes.values()]
        averages = [score(one.mean if one and not one.missing else math.nan) for one in found]
        own = _own(grid, row, tasks)
        rows.append([Cell(grid.row_title(row), strong=True), Cell("this grid"), *own, *averages])
    notes = ["The average of XLM-R Large over the nine tasks of XTREME is given as 68.1 and as 68.2."]
    return Table("published", "Means over languages, percent", columns, rows, notes, [rule])


def _benchmark_averages(grid: Grid) -> dict[str, list[str]]:
    """The groups, and all tasks, that have a published average and are whole in this grid."""
    tasks = [task for task in grid.benchmark.tasks if grid.benchmark.title == "XTREME"]
    groups = {name: [task for task in tasks if group_of(task) == name] for name in GROUP_TITLES}
    published = {one.task for one in published_numbers()}
    return {
        name: of
        for name, of in (groups | {"average": tasks}).items()
        if name in published and of and set(of) <= set(grid.scored)
    }


def _own(grid: Grid, row: Row, tasks: Sequence[str]) -> list[Cell]:
    cells = []
    for task in tasks:
        cell = grid.cell(row, task)
        if not cell:
            cells.append(Cell("–", note=cell.reason))
            continue
        values = np.nanmean(cell.values, axis=(0, 1))
        coverage = grid.benchmark.coverage(task, cell.languages)
        note = f"languages: {coverage}" if coverage else ""
        cells.append(Cell(" / ".join(fixed(value) for value in values), detail=cell.split, note=note))
    return cells


def _by_language(grid: Grid, task: str) -> Table | None:
    others = [one for one in published_numbers() if one.task == task and one.language != _MEAN]
    base = next((row for row in grid.rows if row[0] == BASELINE and grid.cell(row, task)), None)
    if not others or base is None:
        return None
    own = grid.cell(base, task).language_means
    by_language: dict[str, list[float]] = {}
    for one in others:
        by_language.setdefault(one.language, []).append(one.value)
    shared = [code for code in by_language if code in own]
    if not shared:
        return None
    here = f"here: {grid.row_title(base)}, {grid.splits(task)}"
    columns = [
        *words("Language"),
        *numbers(f"published: {others[0].model}, {others[0].split}", here, "difference"),
    ]
    rows = []
    for code in shared:
        theirs = float(np.mean(by_language[code]))
        rows.append(
            cells(grid.language_label(code), score(theirs), score(own[code]), change(own[code] - theirs))
        )
    title = f"{task_title(task)} by language: baseline here and published"
    return Table(f"published_{stem(task)}", title, columns, rows, [f"Published: {others[0].source}."])
