"""Side by side with numbers that others published and that were read in the source named."""

import math
from importlib import resources

import pandas as pd

from stilts_jax.report.grid import Grid
from stilts_jax.report.names import GROUP_TITLES, metric_titles
from stilts_jax.report.results import BASELINE
from stilts_jax.report.tables import Cell, Column, Section, Table, change, fixed, plain_table, score, words

_LARGE = ("xlm-roberta-large", "xlmr-large", "xlm-r-large", "xlmr.large")


def published_numbers() -> pd.DataFrame:
    """Numbers that others published and that were read in the source named; see the head of ``published.csv``."""
    with resources.files("stilts_jax.report").joinpath("published.csv").open(encoding="utf-8") as stream:
        return pd.read_csv(stream, comment="#")


def encoders(grid: Grid) -> list[str]:
    """What the grid starts from; rows of other people's models start from their own."""
    own = (run for run in grid.runs if not run.intermediate.startswith("hub:"))
    return sorted({str(run.config["encoder"]) for run in own if run.config.get("encoder")})


def published_section(grid: Grid, wanted: bool | None) -> Section | None:
    """Numbers of others beside; None for ``wanted`` shows them where the encoder is XLM-R Large by its name."""
    published = published_numbers()
    published = published[published.task.isin([*grid.scored, *GROUP_TITLES, "average"])]
    if wanted is None:
        wanted = any(name in encoder.lower() for encoder in encoders(grid) for name in _LARGE)
    if not wanted or not set(published.task) & set(grid.scored):
        return None
    reading = (
        f"Rows of others beside the rows of this grid (encoder: {', '.join(encoders(grid)) or 'not named'}). Only "
        "numbers that were read in the source named are here. Splits and model selection differ: X-STILTs is the best "
        "intermediate for each task, chosen on dev. A gap of a few points may be the split, the layer of retrieval, or "
        "the seed."
    )
    is_mean = published.language == "mean"
    tables = [_means(grid, published[is_mean]), _by_language(grid, published[~is_mean])]
    return Section("published", "Published numbers", reading, [table for table in tables if table.rows])


def _means(grid: Grid, means: pd.DataFrame) -> Table:
    own = list(grid.benchmark.languages) if grid.benchmark.title == "XTREME" else []
    wholes = {name: [task for task in own if grid.group(task) == name] for name in GROUP_TITLES} | {
        "average": own
    }
    known = set(means.task)
    wholes = {name: of for name, of in wholes.items() if name in known and of and set(of) <= set(grid.scored)}
    tasks = [task for task in grid.scored if task in known]
    columns = words("Model", "from")
    for task in tasks:
        head, group = "/".join(metric_titles(grid.metrics(task))), GROUP_TITLES[grid.group(task)]
        columns.append(Column(grid.title(task), head, group))
    columns += [
        Column(GROUP_TITLES.get(name, "All"), f"{len(of)} tasks", "Averages") for name, of in wholes.items()
    ]
    rows = []
    for (model, source, split), part in means.groupby(["model", "source", "split"], sort=False):
        here = part.set_index(["task", "metric"]).value
        rows.append([Cell(model), Cell(source if source.endswith(split) else f"{source}, {split}")])
        for task in tasks:
            values = [here.get((task, metric), math.nan) for metric in grid.metrics(task)]
            rows[-1].append(Cell(" / ".join(map(fixed, values)) if any(map(math.isfinite, values)) else "–"))
        rows[-1] += [score(here.get((name, "average"), math.nan)) for name in wholes]
    rule = len(rows) - 1
    for row in grid.rows:
        rows.append([Cell(grid.row_title(row), strong=True), Cell("this grid")])
        for task in tasks:
            found = [grid.metric_means.get((*row, task, metric)) for metric in grid.metrics(task)]
            coverage = grid.benchmark.coverage(task, grid.codes(task, row)) if all(found) else ""
            note = f"languages: {coverage}" if coverage else grid.reasons[row, task] * (not all(found))
            text = " / ".join(fixed(one[0]) for one in found if one) or "–"
            rows[-1].append(Cell(text, grid.split(row, task), note))
        averages = [grid.average(row, of) for of in wholes.values()]
        rows[-1] += [score(one.percent if one and not one.missing else math.nan) for one in averages]
    notes = ["The average of XLM-R Large over the nine tasks of XTREME is given as 68.1 and as 68.2."]
    return Table("published", "Means over languages, percent", columns, rows, notes, [rule])


def _by_language(grid: Grid, others: pd.DataFrame) -> Table:
    base = next((row for row in grid.rows if row[0] == BASELINE), ("", ""))
    rows = []
    for one in others.itertuples():
        own = grid.language_numbers.get((*base, one.task, one.language))
        if own:
            source = f"{one.model}, {one.source}, {one.split}"
            names = grid.title(one.task), grid.language_label(one.language), source
            rows.append([*names, one.value, own.percent, change(own.percent - one.value)])
    heads = "Target|Language|published by|published|baseline here|difference"
    return plain_table("published_languages", "The baseline by language, here and published", heads, rows)
