"""The section on typology: gain against distance, correlations with and without controls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stilts_jax.report.benchmarks import GROUP_TITLES, group_of, task_title
from stilts_jax.report.charts import Point, scatter_chart
from stilts_jax.report.document import Block, Chart, Folded, Section, Text
from stilts_jax.report.document import Row as SideBySide
from stilts_jax.report.grid import Grid, Row
from stilts_jax.report.languages import language_name
from stilts_jax.report.statistics import Correlation, benjamini_hochberg, correlate
from stilts_jax.report.tables import (
    Cell,
    Column,
    Table,
    cells,
    change,
    numbers,
    probability,
    score,
    signed,
    stem,
    words,
)
from stilts_jax.report.typology import Typology

_FEWEST = 5  # languages below which a rank correlation says nothing
_SIGNIFICANT = 0.05
CAUTION = (
    "Caution: a gain is bounded by the room above the baseline, and the baseline falls with distance. Near "
    "languages start high and can't gain much (a ceiling); far ones start low, and noise in a low baseline "
    "comes back as a gain (regression to the mean). A correlation of gain with distance alone is no "
    "evidence that transfer works better or worse there; compare it with the first row, which correlates "
    "the baseline itself."
)


@dataclass(frozen=True)
class Relation:
    """One correlation: a row's gain (or the baseline's score) on a task against one distance.

    ``q`` and ``partial_q`` are Benjamini and Hochberg's, over all correlations of the report.
    """

    row: Row
    task: str
    kind: str
    is_gain: bool
    correlation: Correlation
    q: float = math.nan
    partial_q: float = math.nan


def typology_section(grid: Grid, typology: Typology) -> Section | None:
    """Returns nothing where there is no baseline to gain over."""
    if not grid.compared:
        return None
    source = grid.source_languages[0]
    reading = (
        f"Do languages far from {language_name(source) or source} gain more or less? Each point is a "
        "language, its gain the mean over intermediates and seeds; languages that were trained on are left "
        "out. ρ is Spearman's rank correlation with its 95 % interval; the partial ρ "
        "holds script and the logarithm of pretraining text size constant."
    )
    notes: list[Block] = [Text(note) for note in typology.notes]
    kinds = [kind for kind in typology.distances if _has_points(grid, typology, kind)]
    if not kinds:
        words = f"No target has {_FEWEST} languages with a known distance beside those trained on."
        return Section("typology", "Typology", reading, [*notes, Text(words)])
    relations = relate(grid, typology, kinds)
    blocks: list[Block] = [Text(CAUTION), *notes]
    for index, kind in enumerate(kinds):
        charts = SideBySide(
            [
                Chart(f"{task_title(task)}: gain against {kind}", _scatter(grid, typology, task, kind))
                for task in grid.tasks
                if _spread(grid, typology, task, kind)
            ]
        )
        table = _table(grid, typology, relations, kind)
        title = kind.capitalize()
        blocks += [charts, table] if index == 0 else [Folded(title, [charts, table])]
    blocks.append(Folded("Every correlation", [_details(grid, relations)]))
    blocks.append(Folded("Distances used", [_distances(typology, grid)]))
    return Section("typology", "Typology", reading, blocks)


def _has_points(grid: Grid, typology: Typology, kind: str) -> bool:
    return any(_spread(grid, typology, task, kind) for task in grid.tasks)


def _spread(grid: Grid, typology: Typology, task: str, kind: str) -> bool:
    """Whether there are enough languages, and not all of them equally far."""
    points = _points(grid, typology, task, kind)
    return len(points) >= _FEWEST and len({typology.distances[kind][code] for code in points}) > 1


def gains(grid: Grid, row: Row, task: str) -> dict[str, float]:
    """The gain in each language that was not trained on."""
    found = grid.language_gains(row, task)
    return {code: found[code] for code in grid.transfer(list(found))}


def _points(grid: Grid, typology: Typology, task: str, kind: str) -> dict[str, float]:
    """The mean gain over intermediates of every language whose distance is known."""
    collected: dict[str, list[float]] = {}
    for row, _ in grid.compared:
        for code, gain in gains(grid, row, task).items():
            if code in typology.distances[kind]:
                collected.setdefault(code, []).append(gain)
    return {code: float(np.mean(values)) for code, values in collected.items()}


def _scatter(grid: Grid, typology: Typology, task: str, kind: str) -> str:
    distance = typology.distances[kind]
    points = [
        Point(
            distance[code], gain, code, f"{grid.language_label(code)}: {signed(gain)} at {distance[code]:.2f}"
        )
        for code, gain in sorted(_points(grid, typology, task, kind).items())
    ]
    title = f"{task_title(task)}: gain against {kind}"
    return scatter_chart(title, points, kind, "gain, points")


def relate(grid: Grid, typology: Typology, kinds: Sequence[str]) -> list[Relation]:
    """Correlates every row's gain, and the baseline's score, with every distance."""
    relations = []
    bases = list(dict.fromkeys(base for _, base in grid.compared))
    for kind in kinds:
        for task in grid.tasks:
            for base in bases:
                scores = grid.cell(base, task).language_means
                scores = {code: scores[code] for code in grid.transfer(list(scores))}
                relations += _relate(typology, base, task, kind, scores, is_gain=False)
            for row, _ in grid.compared:
                relations += _relate(typology, row, task, kind, gains(grid, row, task), is_gain=True)
    p_values = [(one.correlation.p, one.correlation.partial_p) for one in relations]
    rates = benjamini_hochberg(np.ravel(p_values).tolist()).reshape(-1, 2).tolist()
    return [replace(one, q=q, partial_q=partial_q) for one, (q, partial_q) in zip(relations, rates)]


def _relate(
    typology: Typology, row: Row, task: str, kind: str, values: dict[str, float], *, is_gain: bool
) -> list[Relation]:
    distance = typology.distances[kind]
    codes = sorted(code for code in values if code in distance)
    if len(codes) < _FEWEST:
        return []
    nothing = math.nan
    controls = np.array(
        [[typology.same_script.get(code, nothing), typology.log_size.get(code, nothing)] for code in codes]
    )
    x = np.array([distance[code] for code in codes])
    y = np.array([values[code] for code in codes])
    return [Relation(row, task, kind, is_gain, correlate(x, y, controls))]


def _table(grid: Grid, typology: Typology, relations: Sequence[Relation], kind: str) -> Table:
    here = [one for one in relations if one.kind == kind]
    tasks = [task for task in grid.tasks if any(one.task == task for one in here)]
    found = {(one.row, one.task): one for one in here}
    columns = words("Intermediate")
    for task in tasks:
        count = max(one.correlation.count for one in here if one.task == task)
        columns.append(Column(task_title(task), f"{count} languages", GROUP_TITLES[group_of(task)]))
    bases = list(dict.fromkeys(base for _, base in grid.compared))
    rows = [
        [
            Cell(f"{grid.row_title(row)} (its score)" if row in bases else grid.row_title(row)),
            *(_cell(found.get((row, task))) for task in tasks),
        ]
        for row in [*bases, *(row for row, _ in grid.compared)]
    ]
    notes = [
        f"{kind.capitalize()}: {typology.sources[kind]}.",
        "Small: 95 % interval, and the partial ρ. * q < 0.05 (Benjamini-Hochberg over all correlations of this "
        "report: every distance, row and target, with and without controls).",
    ]
    if not all(math.isfinite(one.correlation.partial) for one in here):
        notes.append("No partial ρ with fewer than 7 languages whose script and text size are known.")
    title = f"Spearman's ρ of gain and {kind}"
    return Table(f"typology_{stem(kind)}", title, columns, rows, notes, [len(bases) - 1])


def _cell(one: Relation | None) -> Cell:
    if one is None:
        return Cell("–", note=f"fewer than {_FEWEST} languages with a known distance")
    found = one.correlation
    if not math.isfinite(found.rho):
        return Cell("–", note="all languages are equally far, or all values are equal")
    detail = f"{signed(found.low, 1)} to {signed(found.high, 1)}\npartial {signed(found.partial, 2)}"
    tone = found.rho if math.isfinite(found.rho) and one.is_gain else None
    hint = f"p {found.p:.3f}; partial p {found.partial_p:.3f}; {found.count} languages"
    return Cell(
        signed(found.rho, 2) + ("*" if one.q < _SIGNIFICANT else ""), found.rho, detail, hint=hint, tone=tone
    )


def _details(grid: Grid, relations: Sequence[Relation]) -> Table:
    columns = [*words("Row", "Target", "distance", "of")]
    columns += numbers("languages", "ρ", "low", "high", "p", "q", "partial ρ", "partial p", "partial q")
    rows = [
        cells(
            grid.row_title(one.row),
            task_title(one.task),
            one.kind,
            "gain" if one.is_gain else "score",
            found.count,
            *(change(number, 2) for number in (found.rho, found.low, found.high)),
            probability(found.p),
            probability(one.q),
            change(found.partial, 2),
            probability(found.partial_p),
            probability(one.partial_q),
        )
        for one in relations
        for found in [one.correlation]
    ]
    return Table("typology_details", "Every correlation with a distance", columns, rows)


def _distances(typology: Typology, grid: Grid) -> Table:
    kinds = list(typology.distances)
    codes = sorted({code for task in grid.tasks for code in grid.languages(task)})
    columns = [*words("Language"), *map(Column, kinds), *numbers("script", "log size")]
    rows = [
        cells(
            grid.language_label(code),
            *(score(typology.distances[kind].get(code, math.nan), 3) for kind in kinds),
            {1.0: "same", 0.0: "other"}.get(typology.same_script.get(code, math.nan), "–"),
            score(typology.log_size.get(code, math.nan)),
        )
        for code in codes
    ]
    notes = [f"{kind}: {source}." for kind, source in typology.sources.items()]
    return Table("distances", "Distances from the language that was trained on", columns, rows, notes)
