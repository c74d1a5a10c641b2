"""Gain against distance: how far languages are from the one that was trained on, and whether that matters.

Distances come from a CSV of the reader's own, ``code,name,DISTANCE,...,script,log_size`` (only ``code`` and one
distance must be there; any column of numbers is a distance, only ``log_...`` is the size of the pretraining text), or
from public facts that come with the package: genealogy and great-circle distance.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from stilts_jax.errors import DataError
from stilts_jax.report.figures import Figures, scatter
from stilts_jax.report.grid import Grid, Row
from stilts_jax.report.names import language_name, read_table
from stilts_jax.report.significance import SIGNIFICANT
from stilts_jax.report.statistics import FEWEST_DEGREES, correlate
from stilts_jax.report.tables import Block, Cell, Table, columns, signed, stem
from stilts_jax.tasks.languages import our_code

_FEWEST = 5  # languages below which a rank correlation says nothing
_Found = dict[tuple[str, Row, str], dict[str, float]]
CAUTION = (
    "Caution: near languages start high and can't gain much (a ceiling); far ones start low, and noise in a low "
    "baseline comes back as a gain (regression to the mean). A correlation of gain with distance alone is no "
    "evidence; compare it with the first row, which correlates the baseline itself."
)


class Typology(NamedTuple):
    """Distances from one language (a row a language, a column a kind) with their sources in words.

    ``controls`` are ``script`` (empty where not known) and ``log_size`` of the pretraining text, by language;
    ``names`` the reader's own names of languages; ``note`` says which languages nothing is known of.
    """

    distances: pd.DataFrame
    sources: dict[str, str]
    controls: pd.DataFrame
    names: Mapping[str, str] = {}
    note: str = ""


def find_typology(languages: Sequence[str], source: str) -> Typology:
    """Gathers what the package knows of ``languages``: distances from ``source``."""
    known = read_table("languages.csv")
    absent = ", ".join(sorted(code for code in {*languages, source} if code not in known.index))
    note = f"Nothing is known of {absent}: give distances in a CSV (--distances)." if absent else ""
    here, origin = known.loc[known.index.intersection(languages)], known.reindex([source]).iloc[0]
    if source not in known.index:
        here = here.iloc[:0]
    families = np.array([path.split("/") for path in here.family], object).reshape(-1, 3)
    shared = (families == np.array(str(origin.family).split("/"), object)).cumprod(axis=1).sum(axis=1)
    north, east = np.radians(here.latitude), np.radians(here.longitude)
    north0, east0 = np.radians(origin.latitude), np.radians(origin.longitude)
    across = np.sin((east - east0) / 2) ** 2
    haversine = np.sin((north - north0) / 2) ** 2 + np.cos(north) * np.cos(north0) * across
    distances = {
        "geographic distance": 2 * np.arcsin(np.sqrt(np.clip(haversine, 0, 1))) / np.pi,
        "genealogical distance": np.where(here.index == source, 0.0, 1.0 - shared / 4),
    }
    sources = {
        "geographic distance": "great circle between central cities, share of the longest possible",
        "genealogical distance": "share of family, branch, sub-branch, language that is not common",
    }
    sizes = np.log(here.corpus_megabytes.where(here.corpus_megabytes > 0))
    controls = pd.DataFrame({"script": here.script, "log_size": sizes})
    return Typology(pd.DataFrame(distances, here.index), sources, controls, note=note)


def read_distances(path: Path) -> Typology:
    """Reads the reader's own CSV; raises DataError where it is not of the form that the module names."""
    # The head is a row as others: as a head pandas renames what is there twice.
    options: dict = {"encoding": "utf-8-sig", "skip_blank_lines": False, "header": None}
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, **options)
    except (OSError, ValueError) as error:
        what = "The CSV of distances can't be read."
        fix = "give --distances a text file in UTF-8, with a head `code,DISTANCE,...`"
        raise DataError(what, where=f"{path}: {error}", fix=fix) from error
    frame = frame.loc[:, (frame != "").any()]  # spreadsheets leave empty columns behind
    head, frame = frame.iloc[0].tolist(), frame.iloc[1:].set_axis(frame.iloc[0], axis=1)
    logs = [name for name in head if name.startswith("log_")]
    kinds, sizes = [name for name in head if name not in ("code", "name", "script", *logs)], logs[:1]
    names = [kind.replace("_", " ") for kind in kinds]
    if "code" not in head or not kinds or len({*names}) < len(names) or len({*head}) < len(head):
        what = "The CSV of distances lacks columns, or has one twice."
        fix = "write a head `code,syntactic,...,script,log_size` with at least one distance column, each name once"
        raise DataError(what, where=f"{path}:1: {', '.join(head)}", fix=fix)
    frame = frame.apply(lambda column: column.str.strip())
    frame = frame.assign(code=frame.code.map(our_code)).drop_duplicates("code", keep="last")
    numbers = frame[[*kinds, *sizes]].apply(pd.to_numeric, errors="coerce")
    wrong = (frame[numbers.columns] != "") & ~np.isfinite(numbers.astype(float))
    for line, name in zip(*np.nonzero(wrong.to_numpy())):
        where = f"{path}:{frame.index[line] + 1}, column {numbers.columns[name]}"
        fix = "leave the field empty where it is not known"
        raise DataError(f"{frame[numbers.columns[name]].iloc[line]!r} is no number.", where=where, fix=fix)
    numbers, frame = numbers.set_index(frame.code), frame.set_index("code")
    known = {"script": frame.get("script", ""), "log_size": numbers[sizes[0]] if sizes else math.nan}
    distances = numbers[kinds].set_axis(names, axis=1)
    sources = {name: f"column {kind} of {path.name}" for name, kind in zip(names, kinds)}
    return Typology(distances, sources, pd.DataFrame(known, frame.index), dict(frame.get("name", {})))


def typology_section(grid: Grid, typology: Typology, figures: Figures) -> Block | None:
    """Gains, or scores where nothing is compared; nothing where there is no baseline."""
    if not grid.baselines or not grid.scored:
        return None
    value, over = ("gain", "intermediates and ") if grid.compared else ("score", "")
    held = " and ".join(_held(typology))
    partial = f"; the partial ρ holds {held} constant, as far as the languages differ in it" if held else ""
    reading = (
        f"Do languages far from {language_name(grid.source_languages[0])} "
        f"{'gain more or less' if grid.compared else 'score lower'}? Each point is a "
        f"language, its {value} the mean over {over}seeds; languages that were trained on are left out. "
        f"ρ is Spearman's rank correlation with its 95 % interval{partial}."
    )
    notes = [Block("text", text=typology.note)] * bool(typology.note)
    found, rows, charts = _correlations(grid, typology), _rows(grid), []
    kinds = list(dict.fromkeys(kind for kind, _, _ in found))
    if not found:
        text = f"No target has {_FEWEST} languages with a known distance beside those trained on."
        return Block("typology", "Typology", reading, [*notes, Block("text", text=text)])
    for task in grid.scored:
        # Of the languages that all rows have: a mean over more rows here and fewer there would compare rows.
        found_in = [values for row in rows[1:] or rows if (values := _values(grid, row, task))]
        means = pd.DataFrame(found_in, dtype=float).mean(skipna=False)
        places = pd.DataFrame({"x": typology.distances[kinds[0]], "y": means}).dropna()
        points = {str(code): (x, y) for code, x, y in places.itertuples()}
        if len(points) >= _FEWEST:
            drawing = scatter(points, kinds[0], "gain, points" if grid.compared else "score, percent")
            heading = f"{grid.title(task)}: {value} against {kinds[0]}"
            charts.append(figures.draw(f"typology_{stem(task)}", heading, drawing, paper=not grid.compared))
    first, *others = (_table(grid, typology, kind, value, found) for kind in kinds)
    caution = [Block("text", text=CAUTION)] * bool(grid.compared)
    more = [Block("folded", kind.capitalize(), blocks=[table]) for kind, table in zip(kinds[1:], others)]
    blocks: list[Block | Table] = [*caution, *notes, Block("row", blocks=charts), first, *more]
    return Block("typology", "Typology", reading, blocks)


def _rows(grid: Grid) -> list[Row]:
    """The baseline of the language that distances are from, and what is compared with it."""
    return [row for row in (*grid.baselines, *grid.compared) if row[1] == grid.source_languages[0]]


def _held(typology: Typology) -> list[str]:
    """What is known of the languages, and partial correlations hold constant."""
    script, size = (typology.controls.script != "").any(), typology.controls.log_size.notna().any()
    return ["script"] * bool(script) + ["the logarithm of pretraining text size"] * bool(size)


def _values(grid: Grid, row: Row, task: str) -> dict[str, float]:
    """The gain, or the baseline's score, in languages not trained on; nothing where a target has another source."""
    if any(run.stage == "target" and run.source_language != row[1] for run in grid.cells[row, task]):
        return {}
    values = grid.by_language(row, task, "percent" if row in grid.baselines else "difference")
    return {code: values[code] for code in grid.transfer(sorted(values))}


def _correlations(grid: Grid, typology: Typology) -> _Found:
    """By (distance, row, task), where there are languages enough: what ``correlate`` finds, ``q`` and ``partial_q``."""
    found: _Found = {}
    scripts, source = typology.controls.script, grid.source_languages[0]
    own = scripts.get(source) or read_table("languages.csv").script.get(source, "")
    same = (scripts == own).astype(float).where((scripts != "") & bool(own))
    controls = pd.DataFrame({"same_script": same, "log_size": typology.controls.log_size})
    for kind, task, row in itertools.product(typology.distances, grid.scored, _rows(grid)):
        # Rounded, so that what is equal but for the order of sums stays a tie.
        values = pd.Series(_values(grid, row, task), dtype=float).round(9)
        far = typology.distances[kind].reindex(values.index).dropna().round(9)
        if len(far) >= _FEWEST:
            sides = (side.reindex(far.index).to_numpy() for side in (far, values, controls))
            found[kind, row, task] = correlate(*sides)
    q = np.array([(one["p"], one["partial_p"]) for one in found.values()]).reshape(-1, 2)
    q[np.isfinite(q)] = stats.false_discovery_control(q[np.isfinite(q)])
    for one, (own_q, partial_q) in zip(found.values(), q.tolist()):
        one |= {"q": own_q, "partial_q": partial_q}
    return found


def _table(grid: Grid, typology: Typology, kind: str, value: str, found: _Found) -> Table:
    here = {(row, task): one for (other, row, task), one in found.items() if other == kind}
    counts: dict[str, set[int]] = {}
    for (_, task), one in here.items():
        counts.setdefault(task, set()).add(int(one["languages"]))

    def cell(row: Row, task: str) -> Cell:
        one = here.get((row, task))
        if one is None:
            return Cell("–", note=f"fewer than {_FEWEST} languages with a known distance")
        if not math.isfinite(one["rho"]):
            return Cell("–", note="all languages are equally far, or all values are equal")
        holds = one["q"] < SIGNIFICANT
        detail = f"{signed(one['low'], 2)} to {signed(one['high'], 2)}\npartial {signed(one['partial'], 2)}"
        detail += f" ({one['partial_languages']:.0f})" * (one["partial_languages"] < one["languages"])
        tone = one["rho"] if holds and row in grid.compared else None
        return Cell(signed(one["rho"], 2) + "*" * holds, detail, tone=tone, numbers=one)

    most = {task: "up to " * (len(of) > 1) + f"{max(of)} languages" for task, of in counts.items()}
    heads = [*columns("Intermediate"), *(grid.column(task, count) for task, count in most.items())]
    names = {row: grid.row_title(row) + " (its score)" * (row in grid.baselines) for row in _rows(grid)}
    rows = [[Cell(name), *(cell(row, task) for task in counts)] for row, name in names.items()]
    notes = [
        f"{kind.capitalize()}: {typology.sources[kind]}.",
        "Small: 95 % interval, and the partial ρ. * q < 0.05 (Benjamini-Hochberg over all correlations of this "
        "report: every distance, row and target, with and without controls).",
    ]
    if _held(typology) and not all(math.isfinite(one["partial"]) for one in here.values()):
        fewest = f"fewer than {FEWEST_DEGREES + 2 + len(_held(typology))} languages"
        notes.append(f"No partial ρ with {fewest} of which all that is held constant is known.")
    if any(one["partial_languages"] < one["languages"] for one in here.values()):
        notes.append("In brackets: the languages of which all that the partial ρ holds constant is known.")
    title = f"Spearman's ρ of {value} and {kind}"
    return Table(f"typology_{stem(kind)}", title, heads, rows, notes, ruled=[0])
