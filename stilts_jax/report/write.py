"""``write_report``: from the results of a work directory to a folder that can be passed on."""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jinja2

from stilts_jax.errors import DataError
from stilts_jax.files import write_whole
from stilts_jax.progress import SILENT, Progress
from stilts_jax.report.details import (
    encoders,
    language_section,
    published_section,
    repeat_section,
    run_section,
    seed_section,
)
from stilts_jax.report.figures import Figures
from stilts_jax.report.findings import headline, in_a_terminal
from stilts_jax.report.grid import Grid
from stilts_jax.report.names import find_benchmark
from stilts_jax.report.overview import best_section, main_section, summary_tables
from stilts_jax.report.results import make_frame, read_results
from stilts_jax.report.significance import Comparisons, pictures_section, score_section
from stilts_jax.report.tables import Block, Section, sections_to_markdown, to_csv, to_latex
from stilts_jax.report.typology import find_typology, read_distances, typology_section

# What a report of other results may have, and this one lacks.
_OURS = re.compile(r"((languages|typology|published|curves)_.*|significance)\.(csv|tex|pdf|png|svg)")


class ReportPaths(NamedTuple):
    """Where a report lies; what was found and the main tables as text."""

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

    The results below ``workdir/phases`` are read, and ``out`` (``workdir/report``) is written. ``distances`` is a CSV
    of the reader's own (see ``stilts_jax.report.typology``), of which a copy in ``workdir/distances.csv`` serves later
    reports that name none; ``benchmark`` says whose averages are formed; ``published`` shows others' numbers beside
    these, None where the encoder is XLM-R Large.
    """
    distances, figures = _remembered(workdir, distances), Figures()
    progress.say("writing the report")
    own = read_distances(distances, "en") if distances else None
    grid, broken = _read_grid(workdir, benchmark, own.names if own else {})
    source = grid.source_languages[0]
    codes = [code for task in grid.tasks for code in grid.codes(task)]
    typology = read_distances(distances, source) if distances else find_typology(codes, source)
    comparisons = Comparisons(grid)
    tables = summary_tables(grid, comparisons)
    sections = [
        main_section(grid, comparisons, tables, figures) if tables else None,
        best_section(grid, comparisons),
        language_section(grid, comparisons, figures),
        score_section(grid, comparisons),
        pictures_section(grid, comparisons),
        seed_section(grid),
        typology_section(grid, typology, figures),
        published_section(grid, published),
        run_section(grid, broken, figures),
        repeat_section(grid),
    ]
    found = headline(grid, comparisons)
    lead, summary = [*found, _subtitle(grid)], in_a_terminal(found, tables)
    names = ("report.html", "report.md", "scores.csv", "tables", "figures")
    html, markdown, scores, folder, drawn = ((out or workdir / "report") / name for name in names)
    paths = ReportPaths(html, markdown, scores, folder, drawn, summary)
    _write([one for one in sections if one], grid, lead, figures, paths)
    return paths


def summary_text(workdir: Path, benchmark: str = "xtreme") -> str:
    """Returns what was found, the main table and the averages as Markdown that reads well on a terminal."""
    grid, _ = _read_grid(workdir, benchmark)
    comparisons = Comparisons(grid)
    return in_a_terminal(headline(grid, comparisons), summary_tables(grid, comparisons))


def _remembered(workdir: Path, distances: Path | None) -> Path | None:
    """Keeps a readable CSV of distances in the work directory; returns the one that is kept there."""
    kept = workdir / "distances.csv"
    if distances is not None:
        read_distances(distances, "en")
        try:
            if not kept.is_file() or kept.read_bytes() != distances.read_bytes():
                write_whole(kept, distances.read_bytes())
        except OSError:
            return distances  # a work directory that is only read remembers nothing
    return kept if kept.is_file() else None


def _read_grid(
    workdir: Path, benchmark: str, names: dict[str, str] | None = None
) -> tuple[Grid, dict[str, str]]:
    """Reads the results below ``workdir``; raises where there is nothing to report on."""
    find_benchmark(benchmark)  # an unknown one is refused before anything is read
    runs, broken = read_results(workdir)
    if not runs:
        what, where = "There is nothing to report on: no finished phase.", str(workdir / "phases")
        raise DataError(what, where=where, fix="run `stilts grid` first, or give the folder that it wrote to")
    return Grid(runs, benchmark, names), broken


def _subtitle(grid: Grid) -> str:
    failed = sum(bool(run.error) for run in grid.runs)
    counts = {
        "row": len(grid.rows),
        "target task": len(grid.tasks),
        "finished phase": len(grid.runs) - failed,
    }
    parts = [f"{count} {what}{'s' * (count != 1)}" for what, count in counts.items()]
    parts += [f"{failed} failed"] * bool(failed)
    named = ["/".join(Path(name).parts[-2:]) for name in encoders(grid)]  # of a folder, its end
    parts += [f"encoder {', '.join(named)}"] if named else []
    devices = dict.fromkeys(str(device) for run in grid.runs if (device := run.environment.get("device")))
    parts += [f"on {', '.join(devices)}"] if devices else []
    last = max((str(run.environment.get("finished") or "") for run in grid.runs), default="")
    return " · ".join([*parts, last[:10]] if last else parts)


def _write(
    sections: Sequence[Section], grid: Grid, lead: Sequence[str], figures: Figures, paths: ReportPaths
) -> None:
    titles = dict.fromkeys(str(run.config["title"]) for run in grid.runs if run.config.get("title"))
    few_shot = all(run.in_language for run in grid.evaluations) and grid.scored
    usual = "few-shot in each language" if few_shot else "zero-shot cross-lingual transfer"
    title = " / ".join(titles) or f"Intermediate-task training, {usual}"
    home = resources.files("stilts_jax.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(home.joinpath("page.html.jinja").read_text("utf-8"))
    style = home.joinpath("page.css").read_text("utf-8")
    files: dict[Path, str | bytes] = {
        paths.scores: make_frame(grid.runs).to_csv(index=False, lineterminator="\n"),
        paths.markdown: sections_to_markdown(title, lead, sections),
        paths.html: template.render(title=title, lead=lead, style=style, sections=sections),
    }
    for table in Block("", blocks=sections).tables:
        files[paths.tables / f"{table.name}.csv"] = to_csv(table)
        if table.latex:
            files[paths.tables / f"{table.name}.tex"] = to_latex(table)
    files |= {paths.figures / name: content for name, content in figures.files.items()}
    for path, content in files.items():
        write_whole(path, content)
    for folder in (paths.tables, paths.figures):
        for path in folder.iterdir() if folder.is_dir() else ():
            if _OURS.fullmatch(path.name) and path not in files:
                path.unlink(missing_ok=True)
