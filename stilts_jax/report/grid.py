"""The grid of scores: rows (intermediates) x tasks; cells, differences from the baseline, averages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pandas as pd

from stilts_jax.report.languages import language_name
from stilts_jax.report.names import (
    GROUP_TITLES,
    Benchmark,
    intermediate_order,
    intermediate_title,
    known_group,
    short_title,
    task_title,
)
from stilts_jax.report.results import BASELINE, Run, make_frame

Row = tuple[str, str]  # (intermediate, source language)
_NONE = -1  # in place of a seed that a phase has not


@dataclass(frozen=True, eq=False)
class Cell:
    """What is known of one intermediate on one task.

    Attributes:
        runs: those that have scores, by seeds.
        parts: percent by metric: a frame, a row a run (its seeds), a column a language.
        split: the split of the scores; several joined by ``/`` where runs differ.
        reason: why there is nothing, or what is incomplete; empty if all is well.
    """

    runs: tuple[Run, ...]
    parts: Mapping[str, pd.DataFrame]
    split: str
    reason: str

    def __bool__(self) -> bool:
        return bool(self.runs)

    @cached_property
    def values(self) -> pd.DataFrame:
        """The mean over the metrics."""
        return sum(self.parts.values()) / len(self.parts) if self.parts else pd.DataFrame()

    @cached_property
    def means(self) -> pd.Series:
        """The mean over runs of each language."""
        return self.values.mean()

    @property
    def languages(self) -> list[str]:
        """Those with a score, sorted."""
        return list(self.values.columns)


@dataclass(frozen=True)
class Number:
    """A number over seeds, and its difference from the baseline.

    Attributes:
        mean: of the row itself; ``sd`` is its standard deviation over seeds (NaN with fewer than two).
        difference: from the baseline over what both have (NaN without one), the mean of the differences of runs from
            the baseline's run of the same target seed; ``difference_sd`` is the standard deviation of these.
        runs: how many.
        missing: languages or tasks that the row lacks beside the baseline, or the baseline beside the row.
    """

    mean: float
    sd: float
    difference: float
    difference_sd: float
    runs: int
    missing: tuple[str, ...] = ()

    @property
    def is_difference(self) -> bool:
        """Whether there is a baseline to differ from."""
        return math.isfinite(self.difference)


class Grid:
    """All cells that a list of runs fills.

    Attributes:
        rows: baseline first within each source language, then in the paper's order.
        tasks: those of the benchmark that any phase was to score, in its order, then others; each group together.
        source_languages: what the targets were trained on.
        trained_languages: these, English, and what intermediates were trained on: what transfer leaves out.
        compared: every row that has a baseline.
    """

    def __init__(
        self, runs: Sequence[Run], benchmark: Benchmark, languages: Mapping[str, str] | None = None
    ) -> None:
        self.runs, self.benchmark = tuple(runs), benchmark
        self._languages = dict(languages or {})
        self._names = {task: names for run in runs for task, names in run.names.items()}
        self.evaluations = tuple(run for run in runs if run.stage != "intermediate")
        self.intermediates = tuple(run for run in runs if run.stage == "intermediate")
        trained = [run for run in self.evaluations if run.stage == "target"] or self.evaluations
        sources = {run.source_language for run in trained}
        self.source_languages = sorted(sources, key=lambda source: (source != "en", source))
        before = sorted({run.source_language for run in self.intermediates})
        self.trained_languages = list(dict.fromkeys(["en", *self.source_languages, *before]))
        failed = [run for run in self.intermediates if run.error]
        found = {(run.intermediate, source) for run in self.evaluations for source in self._sources(run)}
        found |= {(run.intermediate, source) for run in failed for source in self.source_languages or ["en"]}
        self.rows: list[Row] = sorted(
            found, key=lambda row: (row[1] != "en", row[1], row[0] != BASELINE, intermediate_order(row[0]))
        )
        self._trainings = self._find_trainings()
        names = {task for tasks in self._trainings.values() for task in tasks}
        order = list(benchmark.languages)
        names_in_order = sorted(
            names, key=lambda task: (order.index(task) if task in order else len(order), task)
        )
        groups = list(dict.fromkeys(map(self.group, names_in_order)))
        self.tasks = sorted(names_in_order, key=lambda task: groups.index(self.group(task)))
        self._wide = self._widen()
        self.cells = {(row, task): self._fill(row, task) for row in self.rows for task in self.tasks}
        self.compared = [row for row in self.rows if row[0] != BASELINE and (BASELINE, row[1]) in self.rows]

    def _sources(self, run: Run) -> list[str]:
        """The source languages that a run stands for: retrieval trains on none, and stands in every row."""
        return self.source_languages if run.stage == "retrieval" else [run.source_language]

    def _find_trainings(self) -> dict[str | None, list[str]]:
        """Which tasks a training serves; a failed run may name none, so others of its training tell."""
        found: dict[str | None, dict[str, None]] = {}
        for run in self.evaluations:
            found.setdefault(run.target, {}).update(dict.fromkeys(run.tasks()))
        for training, tasks in found.items():
            if (
                not tasks
                and training
                and all(run.error for run in self.evaluations if run.target == training)
            ):
                tasks[training] = None
        return {training: list(tasks) for training, tasks in found.items()}

    def _widen(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The scores by (task, split): a row a run, columns (metric, language)."""
        frame = make_frame(self.evaluations)
        frame = frame[frame.main & np.isfinite(frame.value)]
        wide = {}
        for names, part in frame.groupby(["task", "split"]):
            wide[names] = part.pivot_table(index="key", columns=["metric", "language"], values="value")
        return wide

    def cell(self, row: Row, task: str, split: str = "") -> Cell:
        """The cell of ``row`` and ``task`` (falsy where there is nothing); of another split than is shown, if named."""
        return self._gather(task, self.cells[row, task].runs, "", split) if split else self.cells[row, task]

    def _gather(self, task: str, runs: Sequence[Run], reason: str, split: str = "") -> Cell:
        """Runs without the main metrics of the first one that has scores are left out."""
        there: list[Run] = []
        for run in runs:
            wide = self._wide.get((task, split or run.split(task)))
            if (
                wide is not None
                and run.key in wide.index
                and run.metrics(task) == (there or [run])[0].metrics(task)
            ):
                there.append(run)
        if not there:
            return Cell((), {}, "", reason)
        seeds = pd.MultiIndex.from_tuples(
            [tuple(_NONE if one is None else one for one in run.seeds) for run in there]
        )
        metrics = there[0].metrics(task)
        keys: dict[str, list[str]] = {}
        for run in there:
            keys.setdefault(split or run.split(task), []).append(run.key)
        whole = pd.concat([self._wide[task, one].loc[found] for one, found in keys.items()])
        whole = whole.loc[[run.key for run in there]].set_axis(seeds)
        whole = whole.reindex(
            columns=pd.MultiIndex.from_product([metrics, sorted(set(whole.columns.levels[1]))])
        )
        parts = {metric: whole[metric].astype(float) for metric in metrics}
        holes = sum(part.isna() for part in parts.values()) > 0  # a language counts where it has all metrics
        parts = {name: part.mask(holes).dropna(axis=1, how="all") for name, part in parts.items()}
        if parts[metrics[0]].empty:
            return Cell((), {}, "", reason)
        splits = "/".join(dict.fromkeys(split or run.split(task) for run in there))
        return Cell(tuple(there), parts, splits, reason)

    def _fill(self, row: Row, task: str) -> Cell:
        candidates = [
            run
            for run in self.evaluations
            if run.intermediate == row[0]
            and row[1] in self._sources(run)
            and task in (run.tasks() or self._trainings[run.target])
        ]
        candidates.sort(key=lambda run: tuple(_NONE if seed is None else seed for seed in run.seeds))
        return self._gather(task, candidates, self._explain(row, task, candidates))

    def _explain(self, row: Row, task: str, candidates: Sequence[Run]) -> str:
        failed = [run for run in candidates if run.error]
        scored = [run for run in candidates if any(one == task for one, *_ in run.scores)]
        if failed and scored:
            return f"{len(failed)} of {len(candidates)} runs failed ({failed[0].error})"
        if failed:
            return f"failed: {failed[0].error}"
        if candidates and not scored:
            notes = next((run.notes for run in candidates if run.notes), ())
            why = f" ({'; '.join(notes)})" if notes else ""
            return f"no scores on the {candidates[0].split(task)} split: no data, or no gold labels{why}"
        if not candidates:
            lost = [run for run in self.runs if run.intermediate == row[0] and run.error]
            lost = [run for run in lost if run.stage == "intermediate" or not run.tasks()]
            return f"not run: {lost[0].name} failed ({lost[0].error})" if lost else "not run"
        without = len(candidates) - len(scored)
        return f"{without} of {len(candidates)} runs have no scores" if without else ""

    def baseline(self, row: Row) -> Row:
        """The row of no intermediate training with the same source language; it need not be there."""
        return BASELINE, row[1]

    def compared_with(self, row: Row, task: str) -> Cell | None:
        """The baseline's cell if ``row`` can be compared with it: same split, same metrics, some language."""
        if row not in self.compared:
            return None
        cell, base = self.cells[row, task], self.cells[self.baseline(row), task]
        same = cell.split == base.split and list(cell.parts) == list(base.parts)
        return base if cell and base and same and set(cell.languages) & set(base.languages) else None

    @cache  # noqa: B019 - a grid lives as long as its report
    def gains(self, row: Row, task: str) -> pd.DataFrame | None:
        """Differences from the baseline: a row a run that the baseline has the target seed of, a column a language.

        One row of differences of means where no target seed is the same; None where nothing compares.
        """
        base = self.compared_with(row, task)
        if base is None:
            return None
        cell = self.cells[row, task]
        shared = [code for code in cell.languages if code in base.languages]
        before = base.values[shared].groupby(level=1).mean()
        own = cell.values.loc[cell.values.index.get_level_values(1).isin(before.index), shared]
        gains = (own - before.reindex(own.index.get_level_values(1)).to_numpy()).dropna(how="all")
        if gains.empty:
            gains = (cell.means[shared] - base.means[shared]).to_frame().T
            gains.index = pd.MultiIndex.from_tuples([(_NONE, _NONE)])
        return gains

    @cache  # noqa: B019
    def _over_languages(self, row: Row, task: str, transfer: bool) -> tuple[pd.Series, pd.Series]:
        """The means over languages of the cell and of its differences, by the seeds of the run."""
        frames = self.cells[row, task].values, self.gains(row, task)
        kept = [frame if frame is not None else pd.DataFrame() for frame in frames]
        kept = [frame[self.transfer(frame.columns)] if transfer else frame for frame in kept]
        own, paired = (frame.mean(axis=1).dropna() for frame in kept)
        return own, paired

    @cache  # noqa: B019
    def number(self, row: Row, task: str, transfer: bool = False) -> Number | None:
        """One cell of the main table: the mean over languages, then over seeds."""
        own, paired = self._over_languages(row, task, transfer)
        if own.empty:
            return None
        missing: set[str] = set()
        if self.gains(row, task) is not None:
            missing = set(self.cells[row, task].languages) ^ set(
                self.cells[self.baseline(row), task].languages
            )
        kept = self.transfer(sorted(missing)) if transfer else sorted(missing)
        return Number(own.mean(), own.std(), paired.mean(), paired.std(), len(own), tuple(kept))

    def language_numbers(self, row: Row, task: str) -> dict[str, Number]:
        """The same for each language by itself."""
        own, gains = self.cells[row, task].values, self.gains(row, task)
        gains = own.iloc[:0] if gains is None else gains
        parts = [own.mean(), own.std(), gains.mean(), gains.std(), own.count()]
        table = pd.concat(parts, axis=1).reindex(own.columns)
        return {str(code): Number(*numbers) for code, *numbers in table.itertuples() if numbers[-1]}

    def average(self, row: Row, tasks: Sequence[str], *, transfer: bool = False) -> Number | None:
        """The mean over ``tasks``, each weighing the same; ``missing`` names those that the row lacks.

        Deviations are over the pairs of seeds that all trained tasks have; a task without a target seed (retrieval)
        takes part with its score for the same intermediate seed.
        """
        numbers = {task: self.number(row, task, transfer) for task in tasks}
        # What can't be compared does not count, or the average would mean nothing.
        kept = {
            task: number
            for task, number in numbers.items()
            if number and (row not in self.compared or number.is_difference)
        }
        if not kept:
            return None
        own, paired = (
            _over_tasks([self._over_languages(row, task, transfer)[side] for task in kept]) for side in (0, 1)
        )
        mean, difference = (
            float(np.mean([getattr(number, name) for number in kept.values()]))
            for name in ("mean", "difference")
        )
        missing = tuple(task for task in tasks if task not in kept)
        return Number(mean, own.std(), difference, paired.std(), len(own), missing)

    def title(self, task: str) -> str:
        """A task's name on the page."""
        return self._names.get(task, ("", ""))[0] or task_title(task)

    def group(self, task: str) -> str:
        """The group whose average ``task`` belongs to."""
        group = self._names.get(task, ("", ""))[1] or known_group(task)
        return group if group in GROUP_TITLES else "other"

    def languages(self, task: str) -> list[str]:
        """The languages that any row has scores in."""
        return sorted({code for row in self.rows for code in self.cells[row, task].languages})

    def transfer(self, languages: Sequence[str]) -> list[str]:
        """``languages`` without what was trained on."""
        return [code for code in languages if code not in self.trained_languages]

    def language_label(self, code: str) -> str:
        """``Swahili sw``: the reader's own name of the language if there is one, else the usual one."""
        return f"{self._languages.get(code) or language_name(code)} {code}".strip()

    def splits(self, task: str) -> str:
        """The split of the column; ``dev/test`` where cells differ."""
        return "/".join(dict.fromkeys(split for row in self.rows if (split := self.cells[row, task].split)))

    def metrics(self, task: str) -> list[str]:
        """The metrics of the column's cells."""
        return next((list(cell.parts) for row in self.rows if (cell := self.cells[row, task])), [])

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
    def scored(self) -> list[str]:
        """The tasks that some row has scores of: those that averages run over."""
        return [task for task in self.tasks if any(self.cells[row, task] for row in self.rows)]

    def tasks_in(self, group: str) -> list[str]:
        """The scored tasks of ``group``."""
        return [task for task in self.scored if self.group(task) == group]


def _over_tasks(parts: Sequence[pd.Series]) -> pd.Series:
    """The mean over tasks by the pairs of seeds that all trained ones have."""
    by_seeds = [dict(part.items()) for part in parts]
    trained = [part for part in by_seeds if any(target != _NONE for _, target in part)]
    pairs = sorted(set.intersection(*map(set, trained or by_seeds)))
    rows = [[part.get(pair, part.get((pair[0], _NONE))) for part in by_seeds] for pair in pairs]
    return pd.DataFrame(rows, dtype=float).mean(axis=1, skipna=False).dropna()
