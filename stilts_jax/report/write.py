"""``write_report``: from the ``result.json`` files of a work directory to a folder that can be passed on."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stilts_jax.errors import DataError
from stilts_jax.files import write_whole
from stilts_jax.progress import SILENT, Progress
from stilts_jax.report.benchmarks import find_benchmark
from stilts_jax.report.best_tables import best_section
from stilts_jax.report.document import Section, walk_tables
from stilts_jax.report.grid import Grid
from stilts_jax.report.language_tables import language_section
from stilts_jax.report.main_tables import averages_table, main_section, main_table
from stilts_jax.report.page import write_html, write_markdown
from stilts_jax.report.published_tables import is_large, published_section
from stilts_jax.report.repeat_tables import repeat_section
from stilts_jax.report.results import Broken, Run, read_results
from stilts_jax.report.run_tables import run_section
from stilts_jax.report.seed_tables import seed_section
from stilts_jax.report.significance import SIGNIFICANT, compare_all, compare_means
from stilts_jax.report.significance_tables import significance_section
from stilts_jax.report.tables import to_csv, to_latex, to_markdown
from stilts_jax.report.typology import Typology, find_typology, read_distances
from stilts_jax.report.typology_tables import typology_section


@dataclass(frozen=True)
class ReportPaths:
    """Where a report lies, and its main tables as text."""

    html: Path
    markdown: Path
    tables: Path
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
        workdir: a grid's work directory; its ``phases/*/result.json`` are read.
        out: the folder to write; ``workdir/report`` if None.
        distances: a CSV of languages with distances of the reader's own; see ``stilts_jax.report.typology``. A copy
            in ``workdir/distances.csv`` serves later reports that name none.
        benchmark: ``xtreme`` or ``xtreme-r``: whose averages are formed.
        published: show others' numbers beside; None shows them where the encoder is XLM-R Large.

    Returns:
        The page, its Markdown, and the folder with every table as CSV and LaTeX.
    """
    distances = _remembered(workdir, distances)
    with progress.track("report", unit="parts") as bar:
        grid, broken = read_grid(workdir, benchmark, distances)
        bar.advance()
        comparisons, tests = compare_all(grid, bar.advance)
        means = compare_means(comparisons, grid.scored)
        stars = {(test.row, test.task, test.language): test.holm < SIGNIFICANT for test in tests}
        typology = _typology(grid, distances)
        sections = [
            main_section(grid, comparisons, means),
            best_section(grid),
            language_section(grid, stars),
            significance_section(grid, comparisons, tests, means),
            seed_section(grid),
            typology_section(grid, typology),
            published_section(grid) if (is_large(grid) if published is None else published) else None,
            run_section(grid, broken),
            repeat_section(grid),
        ]
        bar.advance()
        paths = _write([section for section in sections if section], grid, out or workdir / "report")
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
    return _summary(read_grid(workdir, benchmark)[0])


def _summary(grid: Grid) -> str:
    tables = [main_table(grid)] + ([averages_table(grid)] if len(grid.scored) > 1 else [])
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


def _typology(grid: Grid, distances: Path | None) -> Typology:
    languages = sorted({code for task in grid.tasks for code in grid.languages(task)})
    return find_typology(languages, grid.source_languages[0], distances)


def _title(runs: Sequence[Run]) -> str:
    titles = dict.fromkeys(str(run.config["title"]) for run in runs if run.config.get("title"))
    return " / ".join(titles) or "Intermediate-task training, zero-shot cross-lingual transfer"


def _subtitle(grid: Grid) -> str:
    finished = sum(not run.error for run in grid.runs)
    failed = len(grid.runs) - finished
    parts = [f"{len(grid.rows)} rows", f"{len(grid.tasks)} target tasks", f"{finished} finished phases"]
    parts += [f"{failed} failed"] if failed else []
    encoders = dict.fromkeys(str(run.config["encoder"]) for run in grid.runs if run.config.get("encoder"))
    devices = dict.fromkeys(
        str(run.environment["device"]) for run in grid.runs if run.environment.get("device")
    )
    last = max((str(run.environment.get("finished") or "") for run in grid.runs), default="")
    parts += [f"encoder {', '.join(encoders)}"] if encoders else []
    parts += [f"on {', '.join(devices)}"] if devices else []
    parts += [last[:10]] if last else []
    return " · ".join(parts)


def _write(sections: Sequence[Section], grid: Grid, out: Path) -> ReportPaths:
    paths = ReportPaths(out / "report.html", out / "report.md", out / "tables", _summary(grid))
    paths.tables.mkdir(parents=True, exist_ok=True)
    title, subtitle = _title(grid.runs), _subtitle(grid)
    files = {paths.tables / "scores.csv": _every_score(grid.runs)}
    for section in sections:
        for table in walk_tables(section.blocks):
            files[paths.tables / f"{table.name}.csv"] = to_csv(table)
            files[paths.tables / f"{table.name}.tex"] = to_latex(table)
    files[paths.markdown] = write_markdown(title, subtitle, sections)
    files[paths.html] = write_html(title, subtitle, sections)
    for path, text in files.items():
        write_whole(path, text)
    _sweep(paths.tables, {path.name for path in files})
    return paths


def _sweep(folder: Path, written: set[str]) -> None:
    """Removes tables of an earlier report that this one has no more."""
    for path in folder.iterdir():
        ours = re.fullmatch(r"(languages|typology|published)_.*\.(csv|tex)", path.name)
        if ours and path.name not in written:
            path.unlink(missing_ok=True)


def _every_score(runs: Sequence[Run]) -> str:
    """One line a number, for tables and plots of the reader's own."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ("phase", "stage", "intermediate", "source_language", "intermediate_seed", "target_seed")
    writer.writerow([*head, "task", "split", "metric", "language", "score"])
    for run in runs:
        seeds = ["" if seed is None else seed for seed in run.seeds]
        for task, by_split in run.scores.items():
            for split, by_metric in by_split.items():
                for metric, by_language in by_metric.items():
                    for language, score in by_language.items():
                        who = (run.name, run.stage, run.intermediate, run.source_language, *seeds)
                        writer.writerow([*who, task, split, metric, language, score])
    return stream.getvalue()
