"""The grid of scores: rows (intermediates) x tasks, every cell a small array over runs and languages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stilts_jax.report.benchmarks import (
    Benchmark,
    group_of,
    intermediate_order,
    intermediate_title,
    short_title,
)
from stilts_jax.report.languages import language_name
from stilts_jax.report.results import BASELINE, Run
from stilts_jax.report.statistics import standard_deviation

Row = tuple[str, str]  # (intermediate, source language)
_EVALUATED = ("target", "retrieval")


@dataclass(frozen=True)
class CellScores:
    """What is known of one intermediate on one task.

    Attributes:
        runs: those that have scores, by seeds.
        values: [R, L, M] percent; NaN where a run lacks a language.
        split: the split of the scores; several joined by ``/`` where runs differ.
        reason: why there is nothing, or what is incomplete; empty if all is well.
    """

    task: str
    runs: tuple[Run, ...]
    languages: tuple[str, ...]
    metrics: tuple[str, ...]
    values: np.ndarray
    split: str
    reason: str

    def __bool__(self) -> bool:
        return bool(self.runs)

    def select(self, languages: Sequence[str]) -> np.ndarray:
        """Returns [R, len(languages), M]."""
        places = [self.languages.index(language) for language in languages]
        return self.values[:, places]

    def per_run(self, languages: Sequence[str]) -> np.ndarray:
        """Returns [R]: the mean over ``languages`` of the mean over the metrics."""
        if not languages:
            return np.full(len(self.runs), math.nan)
        return _mean(_mean(self.select(languages), 2), 1)

    def per_language(self) -> np.ndarray:
        """Returns [R, L]: the mean over the metrics."""
        return _mean(self.values, 2)

    @cached_property
    def language_means(self) -> dict[str, float]:
        """The mean over seeds of each language's main value, where there is one."""
        means = _mean(self.per_language(), 0)
        return {code: float(mean) for code, mean in zip(self.languages, means) if math.isfinite(mean)}

    def without_collapsed(self) -> "CellScores":
        """The same cell without runs that ended at chance."""
        keep = [index for index, run in enumerate(self.runs) if not run.collapsed]
        runs = tuple(self.runs[index] for index in keep)
        return CellScores(
            self.task, runs, self.languages, self.metrics, self.values[keep], self.split, self.reason
        )


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is there; NaN, without a warning, where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    return np.divide(total, count, out=np.full(total.shape, math.nan), where=count > 0)


def make_cell(task: str, runs: Sequence[Run], reason: str, split: str | None = None) -> CellScores:
    """Gathers the scores of ``runs`` on ``task``; runs without any score are left out."""
    scored = [(run, run.language_scores(task, split)) for run in runs]
    scored = [(run, scores) for run, scores in scored if scores]
    languages = tuple(sorted({language for _, scores in scored for language in scores}))
    metrics = scored[0][0].metrics(task) if scored else ()
    scored = [(run, scores) for run, scores in scored if run.metrics(task) == metrics]
    values = np.full((len(scored), len(languages), len(metrics)), math.nan)
    for index, (_, scores) in enumerate(scored):
        for place, language in enumerate(languages):
            if language in scores:
                values[index, place] = scores[language]
    kept = tuple(run for run, _ in scored)
    splits = "/".join(dict.fromkeys(split or run.split(task) for run in kept))
    return CellScores(task, kept, languages, metrics, values, splits, reason)


class Grid:
    """All cells that a list of runs fills.

    Attributes:
        rows: baseline first within each source language, then in the paper's order.
        tasks: those of the benchmark that any phase was to score, in its order, then others; each group together.
        source_languages: what the targets were trained on.
        trained_languages: these, English, and what intermediates were trained on: what transfer leaves out.
    """

    def __init__(
        self, runs: Sequence[Run], benchmark: Benchmark, language_names: Mapping[str, str] | None = None
    ) -> None:
        self.benchmark = benchmark
        self._language_names = dict(language_names or {})
        self.runs = tuple(runs)
        self.evaluations = tuple(run for run in runs if run.stage in _EVALUATED)
        self.intermediates = tuple(run for run in runs if run.stage == "intermediate")
        trained = [run for run in self.evaluations if run.stage == "target"] or self.evaluations
        sources = {run.source_language for run in trained}
        self.source_languages = tuple(sorted(sources, key=lambda source: (source != "en", source)))
        before = sorted({run.source_language for run in self.intermediates})
        self.trained_languages = tuple(dict.fromkeys(["en", *self.source_languages, *before]))
        self.rows: tuple[Row, ...] = tuple(
            sorted(
                {(run.intermediate, source) for run in self.evaluations for source in self._sources_of(run)}
                | self._failed_intermediate_rows(),
                key=lambda row: (row[1] != "en", row[1], row[0] != BASELINE, intermediate_order(row[0])),
            )
        )
        self._tasks_of_training = self._find_tasks_of_trainings()
        names = {task for tasks in self._tasks_of_training.values() for task in tasks}
        known = [task for task in benchmark.tasks if task in names]
        found = [*known, *sorted(names.difference(known))]
        groups = list(dict.fromkeys(map(group_of, found)))
        self.tasks: tuple[str, ...] = tuple(sorted(found, key=lambda task: groups.index(group_of(task))))
        self.cells: dict[tuple[Row, str], CellScores] = {
            (row, task): self._fill(row, task) for row in self.rows for task in self.tasks
        }
        self._dev: dict[tuple[Row, str], CellScores] = {}

    def _sources_of(self, run: Run) -> tuple[str, ...]:
        """The source languages that a run stands for: retrieval trains on none, and stands in every row."""
        return self.source_languages if run.stage == "retrieval" else (run.source_language,)

    def _failed_intermediate_rows(self) -> set[Row]:
        sources = self.source_languages or ("en",)
        return {(run.intermediate, source) for run in self.intermediates if run.error for source in sources}

    def _find_tasks_of_trainings(self) -> dict[str | None, tuple[str, ...]]:
        """Which tasks a training serves; a failed run may name none, so others of its training tell."""
        found: dict[str | None, dict[str, None]] = {}
        for run in self.evaluations:
            found.setdefault(run.target_training, {}).update(dict.fromkeys(run.tasks()))
        for training, tasks in found.items():
            runs = [run for run in self.evaluations if run.target_training == training]
            if not tasks and training and all(run.error for run in runs):
                tasks[training] = None
        return {training: tuple(tasks) for training, tasks in found.items()}

    def _fill(self, row: Row, task: str) -> CellScores:
        candidates = [
            run
            for run in self.evaluations
            if run.intermediate == row[0]
            and row[1] in self._sources_of(run)
            and task in (run.tasks() or self._tasks_of_training[run.target_training])
        ]
        candidates.sort(key=lambda run: tuple(-1 if seed is None else seed for seed in run.seeds))
        return make_cell(task, candidates, self._explain(row, task, candidates))

    def _explain(self, row: Row, task: str, candidates: Sequence[Run]) -> str:
        failed = [run for run in candidates if run.error]
        scored = [run for run in candidates if run.language_scores(task)]
        if failed and scored:
            return f"{len(failed)} of {len(candidates)} runs failed ({failed[0].error})"
        if failed:
            return f"failed: {failed[0].error}"
        if candidates and not scored:
            notes = next((run.notes for run in candidates if run.notes), ())
            why = f" ({'; '.join(notes)})" if notes else ""
            return f"no scores on the {candidates[0].split(task)} split: no data, or no gold labels{why}"
        if not candidates:
            before = [run for run in self.intermediates if run.intermediate == row[0] and run.error]
            rest = [run for run in self.evaluations if run.intermediate == row[0] and run.error]
            before += [run for run in rest if row[1] in self._sources_of(run) and not run.tasks()]
            return f"not run: {before[0].name} failed ({before[0].error})" if before else "not run"
        without = [run for run in candidates if run not in scored]
        return f"{len(without)} of {len(candidates)} runs have no scores" if without else ""

    def cell(self, row: Row, task: str) -> CellScores:
        """The cell of ``row`` and ``task`` (falsy where there is nothing)."""
        return self.cells[row, task]

    def dev_cell(self, row: Row, task: str) -> CellScores:
        """The same on the dev split, for choosing an intermediate; falsy where no dev scores were kept."""
        if (row, task) not in self._dev:
            self._dev[row, task] = make_cell(task, self.cells[row, task].runs, "", split="dev")
        return self._dev[row, task]

    def baseline(self, row: Row) -> Row | None:
        """The row of no intermediate training with the same source language."""
        base = (BASELINE, row[1])
        return base if base in self.rows else None

    def compared_with(self, row: Row, task: str) -> CellScores | None:
        """The baseline's cell if ``row`` can be compared with it: same split, same metrics, some language."""
        base_row = self.baseline(row)
        if base_row in (None, row) or base_row is None:
            return None
        cell, base = self.cell(row, task), self.cell(base_row, task)
        same = (cell.split, cell.metrics) == (base.split, base.metrics)
        return base if cell and base and same and set(cell.languages) & set(base.languages) else None

    def language_gains(self, row: Row, task: str) -> dict[str, float]:
        """The difference from the baseline in each language that both have; empty where nothing compares."""
        base = self.compared_with(row, task)
        if base is None:
            return {}
        own, before = self.cell(row, task).language_means, base.language_means
        return {code: own[code] - before[code] for code in own if code in before}

    @cached_property
    def compared(self) -> tuple[tuple[Row, Row], ...]:
        """(row, its baseline row) for every row that has one."""
        pairs = [(row, self.baseline(row)) for row in self.rows if row[0] != BASELINE]
        return tuple((row, base) for row, base in pairs if base is not None)

    def languages(self, task: str) -> tuple[str, ...]:
        """The languages that any row has scores in."""
        return tuple(sorted({code for row in self.rows for code in self.cell(row, task).languages}))

    def transfer(self, languages: Sequence[str]) -> list[str]:
        """``languages`` without English and whatever else was trained on."""
        return [language for language in languages if language not in self.trained_languages]

    def language_label(self, code: str) -> str:
        """``Swahili sw``: the reader's own name of the language if there is one, else the usual one."""
        name = self._language_names.get(code) or language_name(code)
        return f"{name} {code}" if name else code

    def splits(self, task: str) -> str:
        """The split of the column; ``dev/test`` where cells differ."""
        found = (self.cell(row, task).split for row in self.rows)
        return "/".join(dict.fromkeys(split for split in found if split))

    def metrics(self, task: str) -> tuple[str, ...]:
        """The metrics of the column's cells."""
        return next((cell.metrics for row in self.rows if (cell := self.cell(row, task))), ())

    def intermediate_label(self, name: str) -> str:
        """A short name of an intermediate; the long one where the short one could be another's."""
        label = short_title(name)
        alike = {other for other, _ in self.rows if short_title(other) == label}
        return label if alike <= {name} else intermediate_title(name)

    def row_title(self, row: Row) -> str:
        """The name of a row; says the source language where it is not the same everywhere."""
        title = self.intermediate_label(row[0])
        return title if len(self.source_languages) < 2 else f"{title} (from {row[1]})"

    @cached_property
    def scored(self) -> tuple[str, ...]:
        """The tasks that some row has scores of: those that averages run over."""
        return tuple(task for task in self.tasks if any(self.cell(row, task) for row in self.rows))

    def tasks_in(self, group: str) -> list[str]:
        """The scored tasks of ``group``."""
        return [task for task in self.scored if group_of(task) == group]


@dataclass(frozen=True)
class Summary:
    """A number over seeds, and its difference from the baseline.

    Attributes:
        mean: of the row itself.
        deviation: sd over the seeds (NaN with fewer than two): of ``difference`` where there is one, each run
            minus the baseline's run of the same target seed; else of ``mean``.
        difference: minus the baseline, over what both have (NaN for the baseline or without one).
        count: runs.
        missing: languages or tasks that the row lacks beside the baseline, or the baseline beside the row.
        own_deviation: of ``mean``, where ``deviation`` is of the difference.
    """

    mean: float
    deviation: float
    difference: float
    count: int
    missing: tuple[str, ...] = ()
    own_deviation: float = math.nan


def summarize(grid: Grid, row: Row, task: str, *, transfer: bool = False) -> Summary | None:
    """One cell of the main table: the mean over languages, then over seeds.

    Args:
        transfer: leave out the languages that were trained on.
    """
    cell = grid.cell(row, task)
    if not cell:
        return None
    languages = grid.transfer(cell.languages) if transfer else list(cell.languages)
    values = cell.per_run(languages)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    base = grid.compared_with(row, task)
    difference, missing, spread = math.nan, tuple[str, ...](), values
    if base is not None:
        shared = [language for language in languages if language in base.languages]
        union = set(languages) | set(grid.transfer(base.languages) if transfer else base.languages)
        missing = tuple(sorted(union.difference(shared)))
        if shared:
            spread = np.array(list(paired_differences(cell, base, shared).values()))
            difference = (
                float(np.mean(spread))
                if len(spread)
                else float(np.nanmean(cell.per_run(shared)) - np.nanmean(base.per_run(shared)))
            )
    own = standard_deviation(values)
    return Summary(float(np.mean(values)), standard_deviation(spread), difference, len(values), missing, own)


def paired_differences(
    cell: CellScores, base: CellScores, languages: Sequence[str]
) -> dict[tuple[int | None, int | None], float]:
    """Each run minus the baseline's of the same target seed, by the seeds of the run."""
    before: dict[int | None, np.ndarray] = {}
    for seed in {run.target_seed for run in base.runs}:
        same = [run.target_seed == seed for run in base.runs]
        before[seed] = _mean(base.select(languages)[same], 0)
    found = {
        run.seeds: float(_mean(_mean(values - before[run.target_seed], 1), 0))
        for run, values in zip(cell.runs, cell.select(languages))
        if run.target_seed in before
    }
    return {seeds: value for seeds, value in found.items() if math.isfinite(value)}


def average(grid: Grid, row: Row, tasks: Sequence[str], *, transfer: bool = False) -> Summary | None:
    """The mean over ``tasks``, each weighing the same; ``missing`` names those that the row lacks.

    The deviation is over the pairs of seeds that all trained tasks have, of the differences where there are any;
    a task without a target seed (retrieval)
    takes part with its score for the same intermediate seed.
    """
    base_row = grid.baseline(row)
    own = {task: summary for task in tasks if (summary := summarize(grid, row, task, transfer=transfer))}
    if not own:
        return None
    if base_row not in (
        None,
        row,
    ):  # what can't be compared does not count, or the average would mean nothing
        own = {task: summary for task, summary in own.items() if math.isfinite(summary.difference)}
        if not own:
            return None
    differences = [summary.difference for summary in own.values()]
    difference = float(np.mean(differences)) if base_row not in (None, row) else math.nan
    per_seed = [_by_seeds(grid, row, task, transfer) for task in own]
    pairs = (
        set.intersection(*(set(seeds) for seeds in per_seed if not _untrained(seeds)))
        if any(not _untrained(seeds) for seeds in per_seed)
        else set.intersection(*(set(seeds) for seeds in per_seed))
    )
    totals = [
        float(np.mean([seeds.get(pair, seeds.get((pair[0], None), math.nan)) for seeds in per_seed]))
        for pair in pairs
    ]
    totals = [total for total in totals if math.isfinite(total)]
    return Summary(
        float(np.mean([summary.mean for summary in own.values()])),
        standard_deviation(np.array(totals)),
        difference,
        len(totals),
        tuple(task for task in tasks if task not in own),
    )


Seeds = tuple[int | None, int | None]


def _by_seeds(grid: Grid, row: Row, task: str, transfer: bool) -> dict[Seeds, float]:
    cell, base = grid.cell(row, task), grid.compared_with(row, task)
    languages = grid.transfer(cell.languages) if transfer else list(cell.languages)
    if base is not None:
        return paired_differences(cell, base, [code for code in languages if code in base.languages])
    return {run.seeds: float(value) for run, value in zip(cell.runs, cell.per_run(languages))}


def _untrained(seeds: dict[Seeds, float]) -> bool:
    return all(target_seed is None for _, target_seed in seeds)
