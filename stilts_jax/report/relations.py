"""The section on typology: gain against distance, correlations with and without controls."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stilts_jax.report.figures import Figures, scatter
from stilts_jax.report.grid import Grid, Row
from stilts_jax.report.languages import language_name
from stilts_jax.report.names import GROUP_TITLES
from stilts_jax.report.statistics import Correlation, benjamini_hochberg, correlate
from stilts_jax.report.tables import (
    Block,
    Cell,
    Column,
    Section,
    Table,
    cells,
    change,
    fixed,
    folded,
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


def typology_section(grid: Grid, typology: Typology, figures: Figures) -> Section | None:
    """Returns nothing where there is no baseline to gain over."""
    if not grid.compared:
        return None
    source = grid.source_languages[0]
    reading = (
        f"Do languages far from {language_name(source) or source} gain more or less? Each point is a "
        "language, its gain the mean over intermediates and seeds; languages that were trained on are left "
        "out. ρ is Spearman's rank correlation with its 95 % interval; the partial ρ holds script and the logarithm "
        "of pretraining text size constant."
    )
    notes = [Block("text", text=note) for note in typology.notes]
    points = {
        (kind, task): _points(grid, typology.distances[kind], task)
        for kind in typology.distances
        for task in grid.tasks
    }
    points = {
        names: found
        for names, found in points.items()
        if len(found) >= _FEWEST and len({x for x, _ in found.values()}) > 1
    }
    kinds = list(dict.fromkeys(kind for kind, _ in points))
    if not kinds:
        text = f"No target has {_FEWEST} languages with a known distance beside those trained on."
        return Section("typology", "Typology", reading, [*notes, Block("text", text=text)])
    relations = relate(grid, typology, kinds)
    blocks: list[Block | Table] = [Block("text", text=CAUTION), *notes]
    for kind in kinds:
        charts = []
        for task in grid.tasks:
            if kind == kinds[0] and (kind, task) in points:
                drawing = figures.draw(
                    f"typology_{stem(task)}", *scatter(points[kind, task], kind, "gain, points"), files=False
                )
                charts.append(Block("chart", f"{grid.title(task)}: gain against {kind}", drawing))
        table = _table(grid, typology, relations, kind)
        blocks += (
            [Block("row", blocks=charts), table] if kind == kinds[0] else [folded(kind.capitalize(), table)]
        )
    blocks.append(folded("Every correlation", _details(grid, relations)))
    blocks.append(folded("Distances used", _distances(typology, grid)))
    return Section("typology", "Typology", reading, blocks)


def gains(grid: Grid, row: Row, task: str) -> dict[str, float]:
    """The gain in each language that was not trained on."""
    found = grid.gains(row, task)
    means = {} if found is None else found.mean().dropna().to_dict()
    return {code: means[code] for code in grid.transfer(list(means))}


def _points(grid: Grid, distance: Mapping[str, float], task: str) -> dict[str, tuple[float, float]]:
    """(distance, mean gain over intermediates) of every language whose distance is known."""
    collected: dict[str, list[float]] = {}
    for row in grid.compared:
        for code, gain in gains(grid, row, task).items():
            if code in distance:
                collected.setdefault(code, []).append(gain)
    return {code: (distance[code], float(np.mean(collected[code]))) for code in sorted(collected)}


def relate(grid: Grid, typology: Typology, kinds: Sequence[str]) -> list[Relation]:
    """Correlates every row's gain, and the baseline's score, with every distance."""
    relations = []
    bases = list(dict.fromkeys(map(grid.baseline, grid.compared)))
    for kind in kinds:
        for task in grid.tasks:
            for base in bases:
                means = grid.cell(base, task).means if grid.cell(base, task) else {}
                scores = {code: means[code] for code in grid.transfer(list(means.keys()))}
                relations += _relate(typology, base, task, kind, scores, is_gain=False)
            for row in grid.compared:
                relations += _relate(typology, row, task, kind, gains(grid, row, task), is_gain=True)
    p_values = [(one.correlation.p, one.correlation.partial_p) for one in relations]
    rates = benjamini_hochberg(np.ravel(p_values).tolist()).reshape(-1, 2).tolist()
    return [replace(one, q=q, partial_q=partial_q) for one, (q, partial_q) in zip(relations, rates)]


def _relate(
    typology: Typology, row: Row, task: str, kind: str, values: Mapping[str, float], *, is_gain: bool
) -> list[Relation]:
    distance, nothing = typology.distances[kind], math.nan
    codes = sorted(code for code in values if code in distance)
    if len(codes) < _FEWEST:
        return []
    controls = [
        [typology.same_script.get(code, nothing), typology.log_size.get(code, nothing)] for code in codes
    ]
    # Rounded, so that what is equal but for the order of sums stays a tie.
    x, y = (np.array([side[code] for code in codes]).round(9) for side in (distance, values))
    return [Relation(row, task, kind, is_gain, correlate(x, y, np.array(controls)))]


def _table(grid: Grid, typology: Typology, relations: Sequence[Relation], kind: str) -> Table:
    here = [one for one in relations if one.kind == kind]
    counts: dict[str, int] = {}
    for one in here:
        counts[one.task] = max(one.correlation.count, counts.get(one.task, 0))
    found = {(one.row, one.task): one for one in here}
    columns = words("Intermediate")
    columns += [
        Column(grid.title(task), f"{n} languages", GROUP_TITLES[grid.group(task)])
        for task, n in counts.items()
    ]
    bases = list(dict.fromkeys(map(grid.baseline, grid.compared)))
    rows = [
        [
            Cell(grid.row_title(row) + " (its score)" * (row in bases)),
            *(_cell(found.get((row, task))) for task in counts),
        ]
        for row in [*bases, *grid.compared]
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
    hint = f"p {fixed(found.p, 3)}; partial p {fixed(found.partial_p, 3)}; {found.count} languages"
    text = signed(found.rho, 2) + "*" * (one.q < _SIGNIFICANT)
    return Cell(text, found.rho, detail, hint=hint, tone=found.rho if one.is_gain else None)


def _details(grid: Grid, relations: Sequence[Relation]) -> Table:
    columns = [*words("Row", "Target", "distance", "of")]
    columns += numbers("languages", "ρ", "low", "high", "p", "q", "partial ρ", "partial p", "partial q")
    rows = [
        cells(
            grid.row_title(one.row),
            grid.title(one.task),
            one.kind,
            "gain" if one.is_gain else "score",
            one.correlation.count,
            *(
                change(number, 2)
                for number in (one.correlation.rho, one.correlation.low, one.correlation.high)
            ),
            *(probability(number) for number in (one.correlation.p, one.q)),
            change(one.correlation.partial, 2),
            *(probability(number) for number in (one.correlation.partial_p, one.partial_q)),
        )
        for one in relations
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
