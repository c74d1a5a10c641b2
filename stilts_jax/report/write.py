"""``write_report``: from the results of a work directory to a folder that can be passed on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2

from stilts_jax.errors import DataError
from stilts_jax.files import write_whole
from stilts_jax.progress import SILENT, Progress
from stilts_jax.report.details import repeat_section, run_section, seed_section
from stilts_jax.report.figures import Figures
from stilts_jax.report.grid import Grid
from stilts_jax.report.main_tables import best_section, language_section, main_section, summary_tables
from stilts_jax.report.names import find_benchmark
from stilts_jax.report.published import encoders, published_section
from stilts_jax.report.relations import typology_section
from stilts_jax.report.results import Broken, make_frame, read_results
from stilts_jax.report.significance import compare_all, significance_section
from stilts_jax.report.tables import (
    Section,
    Table,
    sections_to_markdown,
    to_csv,
    to_latex,
    to_markdown,
    walk_tables,
)
from stilts_jax.report.typology import find_typology, read_distances


@dataclass(frozen=True)
class ReportPaths:
    """Where a report lies, and its main tables as text."""

    html: Path
    markdown: Path
    scores: Path
    tables: Path
    figures: Path
    summary: str


def write_report(
    workdir: Path,
    out: Path | None = None,
    *,
    distances: Path | None = None,
    benchmark: str = "xtreme",
    published: bool | None = None,
    progress: Progress = SILENT,
) -> ReportPaths:
    """Writes the report of a grid.

    Args:
        workdir: a grid's work directory; the results below ``phases`` are read.
        out: the folder to write; ``workdir/report`` if None.
        distances: a CSV of languages with distances of the reader's own; see ``stilts_jax.report.typology``. A copy
            in ``workdir/distances.csv`` serves later reports that name none.
        benchmark: ``xtreme`` or ``xtreme-r``: whose averages are formed.
        published: show others' numbers beside; None shows them where the encoder is XLM-R Large.
    """
    distances = _remembered(workdir, distances)
    figures = Figures()
    with progress.track("report", unit="parts") as bar:
        grid, broken = read_grid(workdir, benchmark, distances)
        comparisons, tests, means = compare_all(grid, bar.advance)
        codes = sorted({code for task in grid.tasks for code in grid.languages(task)})
        tables = summary_tables(grid)
        sections = [
            main_section(grid, tables, comparisons, means),
            best_section(grid),
            language_section(grid, tests, figures),
            significance_section(grid, comparisons, tests, means),
            seed_section(grid),
            typology_section(grid, find_typology(codes, grid.source_languages[0], distances), figures),
            published_section(grid, published),
            run_section(grid, broken, figures),
            repeat_section(grid),
        ]
        bar.advance()
        paths = _write(
            [one for one in sections if one], grid, figures, out or workdir / "report", _text(tables)
        )
        bar.advance()
    return paths


def _remembered(workdir: Path, distances: Path | None) -> Path | None:
    """Keeps a readable CSV of distances in the work directory; returns the one that is kept there."""
    kept = workdir / "distances.csv"
    if distances is not None:
        read_distances(distances, "en")
        text = distances.read_bytes()
        try:
            if not kept.is_file() or kept.read_bytes() != text:
                write_whole(kept, text)
        except OSError:
            return distances  # a work directory that is only read remembers nothing
    return kept if kept.is_file() else None


def summary_text(workdir: Path, benchmark: str = "xtreme") -> str:
    """Returns the main table and the averages as Markdown that reads well on a terminal."""
    return _text(summary_tables(read_grid(workdir, benchmark)[0]))


def _text(tables: Sequence[Table]) -> str:
    return "\n".join(to_markdown(table, str) for table in tables)


def read_grid(workdir: Path, benchmark: str, distances: Path | None = None) -> tuple[Grid, list[Broken]]:
    """Reads the results below ``workdir``; raises where there is nothing to report on."""
    runs, broken = read_results(workdir)
    names = read_distances(distances, "en").names if distances else None
    grid = Grid(runs, find_benchmark(benchmark), names)
    if not grid.rows:
        raise DataError(
            "There is nothing to report on: no finished target phase.",
            where=str(workdir / "phases"),
            fix="run `stilts grid` first, or give the folder that it wrote to",
        )
    return grid, broken


def _subtitle(grid: Grid) -> str:
    failed = sum(bool(run.error) for run in grid.runs)
    finished = f"{len(grid.runs) - failed} finished phases"
    parts = [f"{len(grid.rows)} rows", f"{len(grid.tasks)} target tasks", finished]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"encoder {', '.join(encoders(grid))}"] if encoders(grid) else []
    devices = dict.fromkeys(
        str(run.environment["device"]) for run in grid.runs if run.environment.get("device")
    )
    parts += [f"on {', '.join(devices)}"] if devices else []
    last = max((str(run.environment.get("finished") or "") for run in grid.runs), default="")
    return " · ".join([*parts, last[:10]] if last else parts)


def _write(sections: Sequence[Section], grid: Grid, figures: Figures, out: Path, summary: str) -> ReportPaths:
    names = ("report.html", "report.md", "scores.csv", "tables", "figures")
    html, markdown, scores, tables, drawn = (out / name for name in names)
    paths = ReportPaths(html, markdown, scores, tables, drawn, summary)
    titles = dict.fromkeys(str(run.config["title"]) for run in grid.runs if run.config.get("title"))
    title = " / ".join(titles) or "Intermediate-task training, zero-shot cross-lingual transfer"
    home = resources.files("stilts_jax.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(home.joinpath("page.html.jinja").read_text("utf-8"))
    style = home.joinpath("page.css").read_text("utf-8")
    texts = {"title": title, "subtitle": _subtitle(grid)}
    files: dict[Path, str | bytes] = {
        paths.scores: make_frame(grid.runs).to_csv(index=False, lineterminator="\n"),
        paths.markdown: sections_to_markdown(title, texts["subtitle"], sections),
        paths.html: template.render(**texts, style=style, sections=sections),
    }
    for section in sections:
        for table in walk_tables(section.blocks):
            files[paths.tables / f"{table.name}.csv"] = to_csv(table)
            if table.latex:
                files[paths.tables / f"{table.name}.tex"] = to_latex(table)
    files |= {paths.figures / name: content for name, content in figures.files.items()}
    for path, content in files.items():
        write_whole(path, content)
    for folder in (paths.tables, paths.figures):  # what an earlier report had and this one has no more
        for path in folder.iterdir() if folder.is_dir() else ():
            ours = re.fullmatch(r"(languages|typology|published)_.*\.(csv|tex|pdf|png)", path.name)
            if ours and path not in files:
                path.unlink(missing_ok=True)
    return paths
