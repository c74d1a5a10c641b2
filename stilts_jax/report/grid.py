"""The grid of scores: rows (intermediates) x tasks; cells, differences from the baseline, averages."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stilts_jax.evaluation.benchmarks import BENCHMARKS
from stilts_jax.report.names import GROUP_TITLES, intermediate_order, language_name, short_title, task_title
from stilts_jax.report.results import BASELINE, Run, make_frame
from stilts_jax.report.tables import Column
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.spec import Task

Row = tuple[str, str]  # (intermediate, source language)
Seeds = dict[tuple[int, int], float]  # a value a run, by (intermediate seed, target seed)
CELL, SEEDS = ["intermediate", "source", "task"], ["first", "second"]
NO_SEED = -1  # in place of a seed that a phase has not


class Number(NamedTuple):
    """A mean over seeds and its difference from the baseline (NaN without one), with standard deviations over seeds.

    The difference is the mean over pairs of runs of equal target seed, or of means where no target seed is the same,
    in the languages that both have. ``missing`` are the languages or tasks that one of the two lacks.
    """

    percent: float
    percent_sd: float
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

    ``rows`` are in the paper's order, the baseline first within each source language; ``compared`` those that have one
    of ``baselines``; ``tasks`` all that any phase was to score, ``scored`` those with scores, each group together;
    ``trained_languages`` are what transfer leaves out; ``frame`` has all scores of targets, ``shown`` those in tables,
    ``cells`` the runs behind a cell; ``encoders`` are what runs start from, but for other people's models. In words, by
    task, ``beside`` are the languages that the benchmark lacks, ``elsewhere`` those that it was trained in and no row
    is named after, ``limits`` how many rows of a language were scored, where not all were.
    """

    def __init__(self, runs: list[Run], benchmark: str | None = None, names: Mapping[str, str] = {}) -> None:
        if benchmark is None:  # the one whose tasks these are
            here = {task for run in runs if run.stage != "intermediate" for task in run.tasks}
            whole = (name for name, own in BENCHMARKS.items() if here == {task.name for task in own.values()})
            benchmark = next(whole, "xtreme")
        self.runs, self._languages = runs, names
        self.benchmark = benchmark.upper() + " NER" * (benchmark == "xtreme-up")  # a part of it
        self.own = {task.name: task for task in BENCHMARKS[benchmark].values()}
        self._names = {task: names for run in runs for task, names in run.names.items()}
        self.evaluations = [run for run in runs if run.stage != "intermediate"]
        self.intermediates = [run for run in runs if run.stage == "intermediate"]
        trained = [run for run in self.evaluations if run.stage == "target"] or self.evaluations
        by_task: dict[str, set[str]] = {}
        for run in trained:
            for task in run.tasks * (not run.in_language):
                by_task.setdefault(task, set()).add(run.source_language)
        sources = set[str]().union(*by_task.values())
        # Rows of their own have only the languages in which one task was trained: MasakhaNER trains in Swahili alone.
        several = set[str]().union(*(one for one in by_task.values() if len(one) > 1))
        chosen = several | (sources & {"en"}) or sources or {"en"}
        self.source_languages = sorted(chosen, key=lambda source: (source != "en", source))
        elsewhere = ((task, codes) for task, codes in by_task.items() if not codes & chosen)
        self.elsewhere = {task: " ".join(sorted(codes)) for task, codes in elsewhere}
        # Where nothing was trained, English stands apart all the same, as in the benchmarks' own averages.
        seen = set[str]().union(*(run.trained_in for run in runs)) or {"en"}
        order = dict.fromkeys(["en", *self.source_languages, *sorted(sources), *sorted(seen)])
        self.trained_languages = [code for code in order if code in seen]
        own = (run for run in runs if not run.intermediate.startswith("hub:"))
        self.encoders = sorted({str(run.config["encoder"]) for run in own if run.config.get("encoder")})
        self._finished = [run for run in self.evaluations if not run.error]
        self._order_rows_and_tasks()
        self.limits = {}
        for task in self.tasks:
            limits = {run.scored_rows for run in self._finished if task in run.tasks}
            if any(limits) and self.group(task) != "retrieval":  # whose pools are whole
                self.limits[task] = " or ".join(str(limit or "all") for limit in sorted(limits))
        self.all_scores = make_frame(runs)
        frame = self.all_scores.assign(run=[run for run in runs for _ in run.scores])
        self.frame = frame[frame.stage != "intermediate"]
        self.shown = self._shown()
        self._summarise()
        self._scores = dict(list(self.shown.groupby(CELL)))
        self.cells: dict[tuple[Row, str], list[Run]] = {}
        for row, task in itertools.product(self.rows, self.tasks):
            found = {run.key: run for part in self._found(task, row) for run in part.run.unique()}
            self.cells[row, task] = list(found.values())
        self.scored = [task for task in self.tasks if self._found(task)]

    def _order_rows_and_tasks(self) -> None:
        self._runs: dict[Row, list[Run]] = {}
        for run in self.evaluations:
            for source in self._sources(run):
                self._runs.setdefault((run.intermediate, source), []).append(run)
        failed = [run.intermediate for run in self.intermediates if run.error]
        found = {*self._runs, *itertools.product(failed, self.source_languages)}
        self.rows = sorted(found, key=lambda row: (row[1] != "en", row[1], intermediate_order(row[0])))
        self.baselines = [row for row in self.rows if row[0] == BASELINE]
        self.compared = [row for row in self.rows if row[0] != BASELINE and (BASELINE, row[1]) in self.rows]
        names = sorted({task for run in self.evaluations for task in run.tasks})
        groups, order = [*GROUP_TITLES], [*self.own, *names]
        self.tasks = sorted(names, key=lambda task: (groups.index(self.group(task)), order.index(task)))

    def _summarise(self) -> None:
        """Means over the languages of a run, then over runs: of all languages, and of those not trained on."""
        languages = self.shown.groupby([*CELL, *SEEDS, "language"])[["value", "gain", "paired"]].mean()
        unseen = ~languages.index.get_level_values("language").isin(self.trained_languages)
        self._numbers, self._by_seeds = [], {}
        for transfer, part in enumerate((languages, languages[unseen])):
            by_run = part.groupby([*CELL, *SEEDS])[["value", "gain", "paired"]].mean()
            self._numbers.append(_numbers(by_run, CELL))
            self._by_seeds[transfer, "value"] = _nest(by_run.value)
            self._by_seeds[transfer, "gain"] = _nest(by_run.gain[by_run.paired > 0].dropna())
        self.language_numbers = _numbers(languages, [*CELL, "language"])
        gains = languages.gain[languages.paired > 0].dropna()
        self.paired_gains = _nest(gains.reorder_levels([*CELL, "language", *SEEDS]))
        by_run = self.shown.groupby([*CELL, "metric", *SEEDS])[["value", "gain"]].mean()
        means = by_run.groupby([*CELL, "metric"]).mean()
        self.metric_means = {names: tuple(pair) for names, *pair in means.itertuples(name=None)}

    def _sources(self, run: Run) -> list[str]:
        """The rows' languages that a run stands for: all, where it trains in none of them or its task names it."""
        elsewhere = run.source_language not in self.source_languages
        anywhere = run.stage == "retrieval" or run.in_language or elsewhere
        return self.source_languages if anywhere else [run.source_language]

    def _shown(self) -> pd.DataFrame:
        """The scores that tables show, of languages that have all main metrics of the run, and their gains."""
        frame = self.frame[self.frame.reported & self.frame.main & np.isfinite(self.frame.value)]
        # A benchmark may want only some of a task's languages: SIB-200 in those of Africa.
        lacks = {name: {*get_task(name).languages} - {*own.languages} for name, own in self.own.items()}
        wanted = np.array([c not in lacks.get(task, ()) for task, c in zip(frame.task, frame.language)], bool)
        wanted |= ~frame.task.isin(frame.task[wanted])  # a task that was scored in no other keeps them
        without = frame[~wanted].groupby("task").language
        self.beside = {task: " ".join(sorted({*part})) for task, part in without}
        frame = frame[wanted]
        # What runs that are compared must have alike; of retrieval, how it was scored.
        own, setups = ("start", "seed", "seeds", "title", "encoder"), {}
        ends = sorted({Path(name).name for name in self.encoders})  # a folder may have been moved
        for run in self._finished:
            kept = {name: value for name, value in run.config.items() if name not in own}
            pools = {self.group(task) for task in run.tasks} == {"retrieval"}  # whole, whatever the limit
            kept["scored_rows"] = 0 if pools else run.scored_rows
            if run.stage == "retrieval":
                kept = {"precision": kept.get("precision"), **run.retrieval, "sweep": 0}
            # Rows of other people's models are compared where all others start from one encoder.
            encoder = Path(str(run.config.get("encoder") or "")).name
            kept["encoder"] = ends if run.intermediate.startswith("hub:") else [encoder] * bool(encoder)
            setups[run] = json.dumps(kept, sort_keys=True, default=str)
        frame = frame.assign(
            source=list(map(self._sources, frame.run)),
            setup=list(map(setups.get, frame.run)),
            finished=[str(run.environment.get("finished") or "") for run in frame.run],
            first=frame.intermediate_seed.fillna(NO_SEED).astype(int),
            second=frame.target_seed.fillna(NO_SEED).astype(int),
            measure=["/".join(run.metrics(task)) for run, task in zip(frame.run, frame.task)],
        )
        frame = frame.explode("source", ignore_index=True).sort_values(
            [*SEEDS, "finished", "key"], kind="stable"
        )
        # Of two trainings for one place (with another ``train_on``, say) the one that finished last counts.
        frame = frame[frame.key == frame.groupby([*CELL, *SEEDS]).key.transform("last")]
        # One training may lie in two folders, each scored in languages of its own.
        frame = frame.drop_duplicates([*CELL, *SEEDS, "language", "metric"], keep="last")
        # Of other settings than those of the cell's last run there are no seeds of it.
        last = frame.sort_values(["finished", "key"], kind="stable").groupby(CELL).setup.transform("last")
        frame = frame[frame.setup.eq(last.reindex(frame.index))]
        # Runs with other main metrics than the first of a cell are left out.
        frame = frame[frame.measure == frame.groupby(CELL).measure.transform("first")]
        count = frame.groupby([*CELL, "key", "language"]).metric.transform("size")
        scores = frame[count == frame.measure.map(lambda metrics: metrics.count("/") + 1)]
        # Nor of other languages: those that were not scored in all that most of their cell have wait until they are.
        by_run = scores.groupby([*CELL, "key"]).language
        spoken = by_run.transform(lambda codes: f"{codes.nunique():4} {' '.join(sorted({*codes}))}")
        scores = scores[spoken == spoken.groupby([scores[name] for name in CELL]).transform("max")]
        # ``gain`` is over the baseline's score of the same target seed, or its mean where none is the same.
        same = ["source", "task", "split", "measure", "metric", "language", "setup"]
        base = scores[scores.intermediate == BASELINE].groupby([*same, "second"]).value.mean().rename("base")
        scores = scores.join(base, on=[*same, "second"])
        scores = scores.join(base.groupby(same).mean().rename("mean_base"), on=same)
        paired = scores.groupby(CELL).base.transform("count") > 0
        gain = scores.value - scores.base.where(paired, scores.mean_base)
        return scores.assign(gain=gain.where(scores.intermediate != BASELINE), paired=paired.astype(float))

    def reason(self, row: Row, task: str) -> str:
        """Why a cell is empty or incomplete; nothing where it is neither."""
        candidates = [run for run in self._runs.get(row, ()) if task in run.tasks]
        scored = self.cells[row, task]
        if failed := [run.error for run in candidates if run.error]:
            some = f"{len(failed)} of {len(candidates)} runs failed ({failed[0]})"
            return some if scored else f"failed: {failed[0]}"
        if not candidates:
            # An intermediate training, or the first of two steps to a target, which scores nothing.
            lost = [run for run in self.runs if run.intermediate == row[0] and run.error]
            lost = [run for run in lost if run.stage == "intermediate" or not run.tasks]
            return f"not run: {lost[0].name} failed ({lost[0].error})" if lost else "not run"
        if not scored:
            why = next((f" ({'; '.join(run.notes)})" for run in candidates if run.notes), "")
            return f"no scores on the {candidates[0].split(task)} split: no data, or no gold labels{why}"
        candidates = list({run.key: run for run in candidates}.values())
        without = len(candidates) - len(scored)
        why = "have no scores, are older, or have other settings or other languages"
        return f"{without} of {len(candidates)} runs {why}" if without else ""

    def _found(self, task: str, row: Row | None = None) -> list[pd.DataFrame]:
        """The scores of a cell, or of each cell of a column that has some."""
        rows = [row] if row else self.rows
        return [self._scores[*one, task] for one in rows if (*one, task) in self._scores]

    def number(self, row: Row, task: str, *, transfer: bool = False) -> Number | None:
        """The mean over languages (of ``transfer``, those that nothing was trained on), then over seeds."""
        number = self._numbers[transfer].get((*row, task))
        if number is None or not number.is_difference:
            return number
        missing = sorted({*self.codes(task, row)} ^ {*self.codes(task, (BASELINE, row[1]))})
        return number._replace(missing=tuple(self.transfer(missing) if transfer else missing))

    def average(self, row: Row, tasks: Sequence[str], *, transfer: bool = False) -> Number | None:
        """The mean over ``tasks``, each weighing the same; ``missing`` names those that the row lacks.

        What can't be compared with the baseline does not count, or the average would mean nothing.
        """
        found = {task: self.number(row, task, transfer=transfer) for task in tasks}
        compared = row in self.compared
        kept = {task: one for task, one in found.items() if one and (one.is_difference or not compared)}
        if not kept:
            return None
        percent, difference = (float(np.mean([one[place] for one in kept.values()])) for place in (0, 2))
        sides = [self.by_seeds(row, list(kept), side, transfer=transfer) for side in ("value", "gain")]
        sds = [float(np.std(list(one.values()), ddof=1)) if len(one) > 1 else math.nan for one in sides]
        missing = tuple(task for task in tasks if task not in kept)
        return Number(percent, sds[0], difference, sds[1], len(sides[0]), missing)

    def by_seeds(self, row: Row, tasks: list[str], side: str = "gain", *, transfer: bool = False) -> Seeds:
        """The mean over ``tasks`` by the pairs of seeds that all have; of a ``gain``, of pairs of equal target seed.

        A task without a target seed (retrieval) takes part with its score for the same intermediate seed.
        """
        parts = [self._by_seeds[transfer, side].get((*row, task), {}) for task in tasks]
        trained = [part for part in parts if any(second != NO_SEED for _, second in part)] or parts
        pairs = sorted(set.intersection(*map(set, trained)))
        found = {pair: [part.get(pair, part.get((pair[0], NO_SEED))) for part in parts] for pair in pairs}
        return {pair: sum(filter(None, of)) / len(parts) for pair, of in found.items() if None not in of}

    def title(self, task: str) -> str:
        """A task's name on the page."""
        known, code = self._names.get(task, ("", ""))[0], task.partition("@")[2]
        return known + f" ({code})" * bool(code) if known else task_title(task)

    def group(self, task: str) -> str:
        """The group whose average ``task`` belongs to."""
        known = self._names.get(task, ("", ""))[1] or (get_task(task).group if task in list_tasks() else "")
        return known if known in GROUP_TITLES else "other"

    def column(self, task: str, detail: str = "", meaning: str = "") -> Column:
        """The head of a task's column, below that of its group."""
        return Column(self.title(task), detail, GROUP_TITLES[self.group(task)], meaning=meaning)

    def codes(self, task: str, row: Row | None = None) -> list[str]:
        """The languages that ``row`` has scores in; that any row has."""
        return sorted({code for part in self._found(task, row) for code in part.language.unique()})

    def coverage(self, task: str, row: Row | None = None, benchmark: Mapping[str, Task] | None = None) -> str:
        """``2 of 4 (and sw)``: how many of the benchmark's languages are there, and which others; empty if just all."""
        tasks = benchmark or self.own
        own, here = set(tasks[task].languages if task in tasks else ()), {*self.codes(task, row)}
        others = f" (and {', '.join(sorted(here - own))})" if here - own else ""
        return f"{len(here & own)} of {len(own)}{others}" if own and own != here else ""

    def by_language(self, row: Row, task: str, side: str = "percent") -> dict[str, float]:
        """The score in each language; the ``difference`` from the baseline in those that it has too."""
        found = {code: self.language_numbers[*row, task, code] for code in self.codes(task, row)}
        return {code: getattr(one, side) for code, one in found.items() if math.isfinite(getattr(one, side))}

    def transfer(self, languages: Sequence[str]) -> list[str]:
        """``languages`` without what was trained on."""
        return [code for code in languages if code not in self.trained_languages]

    def language_label(self, code: str) -> str:
        """``Swahili sw``: the reader's own name of the language if there is one, else the usual one."""
        name = self._languages.get(code) or language_name(code)
        return code if name == code else f"{name} {code}"

    def split(self, task: str, row: Row | None = None) -> str:
        """The split of a cell's scores, or of a column's; ``dev/test`` where they differ."""
        return "/".join(dict.fromkeys("/".join(part.split.unique()) for part in self._found(task, row)))

    def metrics(self, task: str, row: Row | None = None) -> list[str]:
        """The metrics of a cell, or those that head a column."""
        return next((part.measure.iloc[0].split("/") for part in self._found(task, row)), [])

    def intermediate_label(self, name: str) -> str:
        """A short name of an intermediate; the long one where the short one could be another's."""
        names = dict.fromkeys((name, *(other for other, _ in self.rows)))
        label, *others = (self.title(one) if one in self._names else short_title(one) for one in names)
        return label if label not in others else task_title(name)

    def row_title(self, row: Row) -> str:
        """The name of a row; says the source language where it is not the same everywhere."""
        title = self.intermediate_label(row[0])
        return title if len(self.source_languages) < 2 else f"{title} (from {row[1]})"


def _numbers(scores: pd.DataFrame, keys: list[str]) -> dict[tuple, Number]:
    """The mean and deviation over seeds of ``value`` and ``gain`` for each of ``keys``."""
    groups = scores.groupby(keys)
    spread = groups.gain.std().where(groups.paired.min() > 0)
    parts = [groups.value.mean(), groups.value.std(), groups.gain.mean(), spread, groups.value.count()]
    return {names: Number(*numbers) for names, *numbers in pd.concat(parts, axis=1).itertuples(name=None)}


def _nest(values: pd.Series) -> dict[tuple, Seeds]:
    """By all but the last two levels, then by these: the seeds."""
    found: dict[tuple, Seeds] = {}
    for (*names, first, second), value in values.items():
        found.setdefault(tuple(names), {})[first, second] = value
    return found
