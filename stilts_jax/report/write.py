"""``write_report``: from the ``result.json`` files of a work directory to a folder that can be passed on."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.progress import SILENT, Progress
from stilts_jax.report.benchmarks import BENCHMARKS, Benchmark
from stilts_jax.report.document import Section, walk_tables
from stilts_jax.report.grid import Grid
from stilts_jax.report.language_tables import language_section
from stilts_jax.report.main_tables import averages_table, best_section, main_section, main_table
from stilts_jax.report.page import write_html, write_markdown
from stilts_jax.report.results import Broken, Run, read_results
from stilts_jax.report.tables import to_csv, to_latex, to_markdown


@dataclass(frozen=True)
class ReportPaths:
    """Where a report lies."""

    html: Path
    markdown: Path
    tables: Path


def write_report(
    workdir: Path,
    out: Path | None = None,
    *,
    distances: Path | None = None,
    benchmark: str = "xtreme",
    progress: Progress = SILENT,
) -> ReportPaths:
    """Writes the report of a grid.

    Args:
        workdir: a grid's work directory; its ``phases/*/result.json`` are read.
        out: the folder to write; ``workdir/report`` if None.
        distances: a CSV of languages with distances of the reader's own; see ``stilts_jax.report.typology``.
        benchmark: ``xtreme`` or ``xtreme_r``: whose averages are formed.

    Returns:
        The page, its Markdown, and the folder with every table as CSV and LaTeX.
    """
    grid, broken = read_grid(workdir, benchmark)
    with progress.track("report", total=2, unit="parts") as bar:
        sections = _sections(grid, broken)
        bar.advance()
        paths = _write(sections, grid, out or workdir / "report")
        bar.advance()
    return paths


def summary_text(workdir: Path, benchmark: str = "xtreme") -> str:
    """Returns the main table and the averages as Markdown that reads well on a terminal."""
    grid, _ = read_grid(workdir, benchmark)
    tables = [main_table(grid)] + ([averages_table(grid)] if len(grid.tasks) > 1 else [])
    return "\n".join(to_markdown(table) for table in tables)


def read_grid(workdir: Path, benchmark: str) -> tuple[Grid, list[Broken]]:
    """Reads the results below ``workdir``; raises where there is nothing to report on."""
    runs, broken = read_results(workdir)
    grid = Grid(runs, find_benchmark(benchmark))
    if not grid.rows:
        raise DataError(
            "There is nothing to report on: no finished target phase.",
            where=str(workdir / "phases"),
            fix="run `stilts grid` first, or give the folder that it wrote to",
        )
    return grid, broken


def find_benchmark(name: str) -> Benchmark:
    """Returns a benchmark by name; ``xtreme-r`` will do for ``xtreme_r``."""
    found = BENCHMARKS.get(name.lower().replace("-", "_"))
    if found is None:
        raise ConfigError(f"{name!r} is no benchmark.", where="benchmark", fix=nearest(name, BENCHMARKS))
    return found


def _sections(grid: Grid, broken: Sequence[Broken]) -> list[Section]:
    sections = [main_section(grid), best_section(grid), language_section(grid, {})]
    return [section for section in sections if section]


def _title(runs: Sequence[Run]) -> str:
    titles = dict.fromkeys(str(run.config["title"]) for run in runs if run.config.get("title"))
    return " / ".join(titles) or "Intermediate-task training, zero-shot cross-lingual transfer"


def _subtitle(grid: Grid) -> str:
    finished = sum(not run.error for run in grid.runs)
    failed = len(grid.runs) - finished
    text = f"{len(grid.rows)} rows, {len(grid.tasks)} target tasks, {finished} finished phases"
    return text + (f", {failed} failed" if failed else "")


def _write(sections: Sequence[Section], grid: Grid, out: Path) -> ReportPaths:
    paths = ReportPaths(out / "report.html", out / "report.md", out / "tables")
    paths.tables.mkdir(parents=True, exist_ok=True)
    title, subtitle = _title(grid.runs), _subtitle(grid)
    for section in sections:
        for table in walk_tables(section.blocks):
            write_whole(paths.tables / f"{table.name}.csv", to_csv(table))
            write_whole(paths.tables / f"{table.name}.tex", to_latex(table))
    write_whole(paths.markdown, write_markdown(title, subtitle, sections))
    write_whole(paths.html, write_html(title, subtitle, sections))
    return paths


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
