"""Sections behind the main table: every language, the seeds, and numbers that others published."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from stilts_jax.report.figures import Figures, dots
from stilts_jax.report.grid import Grid
from stilts_jax.report.names import GROUP_TITLES, meaning, metric_titles, read_table
from stilts_jax.report.overview import number_cell
from stilts_jax.report.results import BASELINE
from stilts_jax.report.significance import Comparisons
from stilts_jax.report.statistics import crossed_components, full_table
from stilts_jax.report.tables import (
    Block,
    Cell,
    Column,
    Section,
    Table,
    columns,
    fixed,
    folded,
    plain_table,
    score,
    stem,
)

_LARGE = ("xlm-roberta-large", "xlmr-large", "xlm-r-large", "xlmr.large")


def language_section(grid: Grid, comparisons: Comparisons, figures: Figures) -> Section | None:
    """A chart for each task, and the numbers behind it; stars where a corrected test finds a difference."""
    charts, tables = [], []
    for task in grid.scored:
        base: dict[str, float] = {}
        for row in grid.rows:
            base = grid.percents(row, task) | base
        # What was trained on comes first, then from the baseline's best to its worst.
        codes = sorted(base, key=lambda code: (code not in grid.trained_languages, -base[code], code))
        charts.append(_chart(grid, task, codes, figures))
        table = _language_table(grid, task, codes, comparisons)
        tables.append(folded(f"{grid.title(task)}: numbers for every language", table))
    reading = (
        "One line a language, from the best to the worst baseline, whose percentage stands beside the name; marks "
        "are what each intermediate adds to it. Means over seeds. Tables below say the same in numbers."
    )
    blocks = [Block("row", blocks=charts), *tables]
    return Section("languages", "Languages", reading, blocks) if charts else None


def _chart(grid: Grid, task: str, codes: Sequence[str], figures: Figures) -> Block:
    """Gains over the baseline, whose own percentage stands beside the language; scores where there is none."""
    labels, what = [grid.language_label(code) for code in codes], meaning(grid.metrics(task))
    values = {row: gains for row in grid.compared if (gains := grid.gains(row, task))}
    is_gain, sources = bool(values), {row[1] for row in values}
    if len(sources) == 1:
        base = grid.percents((BASELINE, sources.pop()), task)
        labels = [f"{label} {fixed(base.get(code, math.nan))}" for label, code in zip(labels, codes)]
    values = values or {row: grid.percents(row, task) for row in grid.rows}
    series = {grid.row_title(row): [own.get(code, math.nan) for code in codes] for row, own in values.items()}
    axis = f"gain in {what}, points" if is_gain else f"{what}, percent"
    title = f"{grid.title(task)}, {grid.split(task)}"
    return figures.draw(f"languages_{stem(task)}", title, dots(labels, series, axis, zero=is_gain))


def _language_table(grid: Grid, task: str, codes: Sequence[str], comparisons: Comparisons) -> Table:
    """Languages as rows, intermediates as columns; the baseline in percent, the others as differences."""
    here = {row: number for row in grid.rows if (number := grid.number(row, task))}
    kinds = ("percent", "difference")
    heads = [Column(grid.row_title(row), kinds[one.is_difference]) for row, one in here.items()]
    tests = {
        (row, one.languages[0]): one for row in here for one in comparisons.languages.get((row, task), ())
    }
    rows = []
    for code in codes:
        rows.append([Cell(grid.language_label(code))])
        for row in here:
            number, test = grid.language_numbers.get((*row, task, code)), tests.get((row, code))
            if number is None:
                rows[-1].append(Cell("–", note="no score in this language"))
                continue
            shown = number_cell(number, sure=test.holds if test else not comparisons.tests)
            if test:
                found = {"low": test.interval.low, "high": test.interval.high, "p_holm": test.holm}
                shown = replace(shown, text=shown.text + "*" * test.holds, numbers={**shown.numbers, **found})
            rows[-1].append(shown)
    rows.append([Cell("mean", strong=True)])
    for row, number in here.items():
        interval = comparisons.interval(row, [task])
        rows[-1].append(number_cell(number, interval, sure=comparisons.holds(row, task)))
    notes = ["±: standard deviation over seeds, of a difference over its pairs of equal target seed."]
    notes *= any(len(grid.cells[row, task]) > 1 for row in here)
    if any(test.holds for test in tests.values()):
        notes.append("* differs from the baseline beyond noise, Holm-corrected over this table.")
    title = f"{grid.title(task)} by language, {meaning(grid.metrics(task))}, {grid.split(task)} split"
    name, ruled = f"languages_{stem(task)}", [len(rows) - 2]
    return Table(name, title, [*columns("Language"), *heads], rows, notes, ruled, latex=True)


def seed_section(grid: Grid) -> Section | None:
    """Variance components for each target, and which runs collapsed."""
    if not grid.scored:
        return None
    reading = (
        "How much of the spread over runs comes from the seed of the intermediate training, of the target training, "
        "or neither: standard deviations in points. From three seeds one can be off by a factor of two."
    )
    found: dict[tuple[str, str], list[Sequence[float]]] = {}
    order = sorted(grid.rows, key=lambda row: row[0] == BASELINE)
    for task, row in itertools.product(grid.scored, order):
        table = full_table(grid.by_seeds(row, [task], "value"))
        if table.size > 1:
            names = grid.title(task) + " (baseline)" * (row[0] == BASELINE), " x ".join(map(str, table.shape))
            found.setdefault(names, []).append(crossed_components(table))
    rows = []
    for names, parts in found.items():
        shown = (score(math.sqrt(max(one, 0.0)), 2) for one in np.mean(parts, axis=0))
        rows.append([*names, *shown, len(parts)])
    heads = "Target|seeds: intermediate x target|intermediate seed|target seed|rest|rows: pooled"
    note = (
        "Mean variances of rows of the same design (method of moments, two-way random effects; below zero: 0.0). "
        "Where only one kind of seed varies, its column includes the rest."
    )
    blocks: list[Block | Table] = []
    if rows:
        blocks.append(plain_table("seeds", "Standard deviation by source", heads, rows, [note]))
    else:
        reading = "Every number here is a single run: nothing is known about seeds. Run with seeds=3."
    lost = dict.fromkeys(run.name for runs in grid.cells.values() for run in runs if run.collapsed)
    chance = f"Runs that ended at chance level: {', '.join(lost) or 'none'}."
    return Section("seeds", "Seeds", reading, [*blocks, Block("text", text=chance)])


def published_numbers() -> pd.DataFrame:
    """Numbers that others published, a row a number; see the head of ``published.csv``."""
    table = read_table("published.csv")
    table = table.assign(values=table["values"].str.split()).explode("values")
    names = table["values"].str.partition(":")
    is_mean = table.task == "mean"
    language, task = names[0].mask(is_mean, "mean"), table.task.mask(is_mean, names[0])
    return table.assign(task=task, language=language, value=names[2].astype(float)).drop(columns="values")


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
        f"Rows of others beside the rows of this grid (encoder: {', '.join(encoders(grid)) or 'not named'}), as read "
        "in the source named. X-STILTs is the best intermediate for each task, chosen on dev. A gap of a few points "
        "may be the split, the layer of retrieval, or the seed."
    )
    is_mean = published.language == "mean"
    base, rows = next((row for row in grid.rows if row[0] == BASELINE), ("", "")), []
    names = ["model", "source", "split", "task", "language"]
    for (*named, task, code), part in published[~is_mean].groupby(names, sort=False):
        own = grid.language_numbers.get((*base, task, code))
        if own and set(part.metric) == set(grid.metrics(task)):
            value = float(part.value.mean())
            words = grid.title(task), grid.language_label(code), ", ".join(named)
            rows.append([*words, value, own.percent, own.percent - value])
    heads = "Target|Language|published by|published|baseline here|difference"
    title = "The baseline by language, here and published"
    tables = [_means(grid, published[is_mean]), plain_table("published_languages", title, heads, rows)]
    return Section("published", "Published numbers", reading, [table for table in tables if table.rows])


def _means(grid: Grid, means: pd.DataFrame) -> Table:
    own = list(grid.own) if grid.benchmark == "XTREME" else []
    wholes = {name: [task for task in own if grid.group(task) == name] for name in GROUP_TITLES}
    wholes |= {"average": own}
    known = set(means.task)
    wholes = {name: of for name, of in wholes.items() if name in known and of and set(of) <= set(grid.scored)}
    tasks = [task for task in grid.scored if task in known]
    heads = columns("Model|from")
    for task in tasks:
        heads.append(grid.column(task, "/".join(metric_titles(grid.metrics(task)))))
    for name, of in wholes.items():
        heads.append(Column(GROUP_TITLES.get(name, "All"), f"{len(of)} tasks", "Averages"))
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
            coverage = grid.coverage(task, grid.codes(task, row)) if all(found) else ""
            note = f"languages: {coverage}" if coverage else grid.reason(row, task) * (not all(found))
            text = " / ".join(fixed(one[0]) for one in found if one) or "–"
            rows[-1].append(Cell(text, grid.split(task, row), note))
        averages = [grid.average(row, of) for of in wholes.values()]
        rows[-1] += [score(one.percent if one and not one.missing else math.nan) for one in averages]
    notes = ["The average of XLM-R Large over the nine tasks of XTREME is given as 68.1 and as 68.2."]
    return Table("published", "Means over languages, percent", heads, rows, notes, [rule])
