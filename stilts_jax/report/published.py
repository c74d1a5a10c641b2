"""Side by side with numbers that others published and that were read in the source named."""

import csv
import math
from collections.abc import Sequence
from importlib import resources

import pandas as pd

from stilts_jax.report.grid import Grid
from stilts_jax.report.names import GROUP_TITLES, metric_titles
from stilts_jax.report.results import BASELINE
from stilts_jax.report.tables import (
    Cell,
    Column,
    Section,
    Table,
    cells,
    change,
    fixed,
    numbers,
    score,
    stem,
    words,
)

_LARGE = ("xlm-roberta-large", "xlmr-large", "xlm-r-large", "xlmr.large")


def published_numbers() -> pd.DataFrame:
    """Numbers that others published and that were read in the source named; see the head of ``published.csv``."""
    with resources.files("stilts_jax.report").joinpath("published.csv").open(encoding="utf-8") as stream:
        lines = [line for line in stream if not line.startswith("#")]
    return pd.DataFrame(csv.DictReader(lines)).astype({"value": float})


def encoders(grid: Grid) -> list[str]:
    """What the grid starts from; rows of other people's models start from their own."""
    own = (run for run in grid.runs if not run.intermediate.startswith("hub:"))
    return sorted({str(run.config["encoder"]) for run in own if run.config.get("encoder")})


def published_section(grid: Grid, wanted: bool | None) -> Section | None:
    """Numbers of others beside; None for ``wanted`` shows them where the encoder is XLM-R Large by its name."""
    published = published_numbers()
    tasks = [task for task in grid.tasks if task in set(published.task)]
    if wanted is None:
        wanted = any(name in encoder.lower() for encoder in encoders(grid) for name in _LARGE)
    if not tasks or not wanted:
        return None
    reading = (
        f"Rows of others beside the rows of this grid (encoder: {', '.join(encoders(grid)) or 'not named'}). Only "
        "numbers that were read in the source named are here. Splits and model selection differ: X-STILTs is the best "
        "intermediate for each task, chosen on dev. A gap of a few points may be the split, the layer of retrieval, or "
        "the seed."
    )
    means = published[published.language == "mean"]
    by_language = [_published_by_language(grid, task, published) for task in tasks]
    tables = [_published_means(grid, tasks, means), *filter(None, by_language)]
    return Section("published", "Published numbers", reading, tables)


def _published_means(grid: Grid, tasks: Sequence[str], means: pd.DataFrame) -> Table:
    columns = words("Model", "from")
    for task in tasks:
        head = "/".join(metric_titles(grid.metrics(task)))
        columns.append(Column(grid.title(task), head, GROUP_TITLES[grid.group(task)]))
    own = list(grid.benchmark.languages) if grid.benchmark.title == "XTREME" else []
    wholes = {name: [task for task in own if grid.group(task) == name] for name in GROUP_TITLES} | {
        "average": own
    }
    wholes = {
        name: of
        for name, of in wholes.items()
        if name in set(means.task) and of and set(of) <= set(grid.scored)
    }
    columns += [
        Column(GROUP_TITLES.get(name, "All"), f"{len(of)} tasks", "Averages") for name, of in wholes.items()
    ]
    rows = []
    for (model, source, split), part in means.groupby(["model", "source", "split"], sort=False):
        here = {(one.task, one.metric): one.value for one in part.itertuples()}
        rows.append(cells(model, source if source.endswith(split) else f"{source}, {split}"))
        for task in tasks:
            values = [here.get((task, metric), math.nan) for metric in grid.metrics(task)]
            known = any(map(math.isfinite, values))
            rows[-1].append(Cell(" / ".join(map(fixed, values)) if known else "–"))
        rows[-1] += [score(here.get((name, "average"), math.nan)) for name in wholes]
    rule = len(rows) - 1
    for row in grid.rows:
        rows.append([Cell(grid.row_title(row), strong=True), Cell("this grid")])
        for task in tasks:
            cell = grid.cell(row, task)
            text = " / ".join(fixed(part.mean(axis=None)) for part in cell.parts.values())
            coverage = grid.benchmark.coverage(task, cell.languages) if cell else ""
            note = f"languages: {coverage}" if coverage else cell.reason * (not cell)
            rows[-1].append(Cell(text or "–", detail=cell.split, note=note))
        found = [grid.average(row, of) for of in wholes.values()]
        rows[-1] += [score(one.mean if one and not one.missing else math.nan) for one in found]
    notes = ["The average of XLM-R Large over the nine tasks of XTREME is given as 68.1 and as 68.2."]
    return Table("published", "Means over languages, percent", columns, rows, notes, [rule])


def _published_by_language(grid: Grid, task: str, published: pd.DataFrame) -> Table | None:
    others = published[(published.task == task) & (published.language != "mean")]
    base = next((row for row in grid.rows if row[0] == BASELINE and grid.cell(row, task)), None)
    if others.empty or base is None:
        return None
    own, theirs = grid.cell(base, task).means, others.groupby("language", sort=False).value.mean()
    first, shared = others.iloc[0], [code for code in theirs.index if code in own]
    head = [f"published: {first.model}, {first.split}", f"here: {grid.row_title(base)}, {grid.splits(task)}"]
    rows = [
        cells(
            grid.language_label(code), score(theirs[code]), score(own[code]), change(own[code] - theirs[code])
        )
        for code in shared
    ]
    title = f"{grid.title(task)} by language: baseline here and published"
    columns = [*words("Language"), *numbers(*head, "difference")]
    notes = [f"Published: {first.source}."]
    return Table(f"published_{stem(task)}", title, columns, rows, notes) if rows else None
