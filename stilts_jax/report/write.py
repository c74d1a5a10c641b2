"""``write_report``: from the results of a work directory to a folder that can be passed on."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import jinja2

from stilts_jax.files import make_folder, write_whole
from stilts_jax.progress import SILENT, Progress, counted
from stilts_jax.report import details, overview, significance
from stilts_jax.report.figures import Figures
from stilts_jax.report.grid import Grid
from stilts_jax.report.results import read_results
from stilts_jax.report.significance import Comparisons
from stilts_jax.report.tables import Block, sections_to_markdown, to_csv, to_latex
from stilts_jax.report.typology import Typology, find_typology, read_distances, typology_section

# What a report of other results may have, and this one lacks.
_OURS = re.compile(
    r"((languages|layers|typology|published|curves)_.*|averages|best|intermediates|layers|main|pictures|problems|published|"
    r"scores_intervals|seeds|selection|throughput)\.(csv|tex|pdf|png|svg)"
)


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
    benchmark: str | None = None,
    published: bool | None = None,
    progress: Progress = SILENT,
) -> ReportPaths:
    """Writes the report of a grid.

    The results below ``workdir/phases`` are read, and ``out`` (``workdir/report``) is written. ``distances`` is a CSV
    of the reader's own (see ``stilts_jax.report.typology``), of which a copy in ``workdir/distances.csv`` serves later
    reports that name none; ``benchmark`` says whose averages are formed, None of the one whose tasks these are, else of
    XTREME; ``published`` shows others' numbers beside these, None where the encoder is XLM-R Large.
    """
    progress.say("writing the report")
    (runs, broken), out = read_results(workdir), out or workdir / "report"
    make_folder(out, "--out")
    own = _own_distances(workdir, distances)
    grid, figures = Grid(runs, benchmark, own.names if own else {}), Figures()
    codes = [code for task in grid.tasks for code in grid.codes(task)]
    typology, comparisons = own or find_typology(codes, grid.source_languages[0]), Comparisons(grid)
    found, tables, summary = overview.opening(grid, comparisons, broken)
    sections = [
        overview.main_section(grid, comparisons, tables, figures) if tables else None,
        details.best_section(grid, comparisons),
        details.language_section(grid, comparisons, figures),
        significance.pictures_section(grid, comparisons),
        details.layer_section(grid, figures),
        details.seed_section(grid),
        typology_section(grid, typology, figures),
        details.published_section(grid, published),
        details.run_section(grid, broken, figures),
        details.repeat_section(grid),
    ]
    shown, (title, subtitle) = [one for one in sections if one], _titles(grid)
    lead = [*found, subtitle]
    names = ("report.html", "report.md", "scores.csv", "tables", "figures")
    html, markdown, scores, folder, drawn = (out / name for name in names)
    paths = ReportPaths(html, markdown, scores, folder, drawn, summary)
    files: dict[Path, str | bytes] = {
        scores: grid.all_scores.to_csv(index=False, lineterminator="\n"),
        markdown: sections_to_markdown(title, lead, shown),
        html: _page(title, lead, shown),
    }
    for table in Block("", blocks=shown).tables:
        files[folder / f"{table.name}.csv"] = to_csv(table)
        if table.latex:
            files[folder / f"{table.name}.tex"] = to_latex(table)
    files |= {drawn / name: content for name, content in figures.items()}
    was_report = html.is_file()  # else what lies there is someone else's
    for path, content in files.items():
        write_whole(path, content)
    if was_report:
        _remove_stale((folder, drawn), files)
    return paths


def _remove_stale(folders: Iterable[Path], files: Collection[Path]) -> None:
    """Removes tables and figures of an earlier report that are not among ``files``."""
    for path in [path for folder in folders if folder.is_dir() for path in folder.iterdir()]:
        if _OURS.fullmatch(path.name) and path not in files:
            path.unlink(missing_ok=True)


def _page(title: str, lead: list[str], sections: list[Block]) -> str:
    loader = jinja2.PackageLoader("stilts_jax", "report")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    lead = [text.replace(" %", "\xa0%") for text in lead]  # no line begins with the sign
    return environment.get_template("page.html.jinja").render(title=title, lead=lead, sections=sections)


def summary_text(workdir: Path) -> str:
    """Returns what was found, the main table and the averages as Markdown that reads well on a terminal."""
    runs, broken = read_results(workdir)
    grid = Grid(runs)
    return overview.opening(grid, Comparisons(grid), broken)[2]


def _own_distances(workdir: Path, path: Path | None) -> Typology | None:
    """The reader's own distances, of which the work directory keeps a copy; without a ``path`` the kept ones."""
    kept = workdir / "distances.csv"
    if path is not None:
        own = read_distances(path)  # refused before it is kept
        try:
            write_whole(kept, path.read_bytes())
        except OSError:
            return own  # a work directory that is only read remembers nothing
    return read_distances(kept) if kept.is_file() else None


def _titles(grid: Grid) -> tuple[str, str]:
    """The page's title, and a line that says how much it is about."""
    titles = dict.fromkeys(str(run.config["title"]) for run in grid.runs if run.config.get("title"))
    few_shot = all(run.in_language for run in grid.evaluations) and grid.scored
    usual = "few-shot in each language" if few_shot else "zero-shot cross-lingual transfer"
    title = " / ".join(titles) or f"Intermediate-task training, {usual}"
    done = sum(not run.error for run in grid.runs)
    counts = {"row": len(grid.rows), "target task": len(grid.tasks), "finished phase": done}
    parts = [counted(count, what) for what, count in counts.items()]
    parts += [f"{len(grid.runs) - done} failed"] * (done < len(grid.runs))
    named = ["/".join(Path(name).parts[-2:]) for name in grid.encoders]  # of a folder, its end
    parts += [f"encoder {', '.join(named)}"] * bool(named)
    devices = dict.fromkeys(str(device) for run in grid.runs if (device := run.environment.get("device")))
    parts += [f"on {', '.join(devices)}"] * bool(devices)
    last = max(str(run.environment.get("finished") or "") for run in grid.runs)
    return title, " · ".join([*parts, last[:10]] if last else parts)
