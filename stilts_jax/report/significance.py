"""Which differences are more than the luck of the test items and of the seeds: from the baseline, and of controls."""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stilts_jax.report import statistics
from stilts_jax.report.grid import Grid, Row, Seeds
from stilts_jax.report.names import task_title
from stilts_jax.report.results import BASELINE, Run
from stilts_jax.report.statistics import Interval, Shares, find_interval
from stilts_jax.report.tables import Block, Cell, Column, Table, columns, signed
from stilts_jax.tasks import CONTROLS

Cells = Mapping[Row, Sequence[Run]]  # of one task
SIGNIFICANT = 0.05
_ROUNDING = 0.05  # points by which what items add up to may differ from what is shown


class Comparison(NamedTuple):
    """A row (or kind of training) against another on one task (or a group of them), in one language or more.

    ``interval`` is in points, of the mean over ``languages``; ``moved`` how much each item moves it; ``holm`` is p
    after Holm's correction over all that was asked.
    """

    row: Any
    task: str
    languages: tuple[str, ...]
    interval: Interval
    moved: Shares
    holm: float = np.nan

    @property
    def items(self) -> int:
        """How many test items it rests on."""
        return sum(len(one) for name, one in self.moved.items() if name[0] == "items")

    @property
    def holds(self) -> bool:
        """Whether it differs from zero after Holm's correction."""
        return self.holm < SIGNIFICANT


class Comparisons:
    """All comparisons with baselines, by (row, task); none where no items were kept.

    ``tests`` are over the languages of a task, corrected over all rows and tasks, ``languages`` in single languages,
    corrected over the rows and languages of the task; ``scores`` are intervals of the scores themselves, where the
    items are those that the scores are made of.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.languages: dict[tuple[Row, str], dict[str, Comparison]] = {}
        self.scores: dict[tuple[Row, str], Interval] = {}
        self._joined: dict[tuple[Row, str, bool], tuple[float, Shares]] = {}
        together = []
        for task in grid.tasks:
            cells = {row: grid.cells[row, task] for row in grid.rows}
            sides, found = _sides(grid, task, cells), list[Comparison]()
            for row, own in sides.items():
                scores, moved, _ = zip(*own.values())
                seeds = statistics.seed_error(grid.by_seeds(row, [task], "value"))
                of_score = find_interval(float(np.mean(scores)), _mean_shares(moved), seeds)
                number = grid.number(row, task)
                if number and abs(number.percent - of_score.difference) < _ROUNDING:
                    self.scores[row, task] = of_score._replace(p=math.nan)  # that it is zero is no question
            for row in grid.compared:
                # In each language in which the baseline has the same items, over runs of the same target seeds.
                paired = _pair(cells, row)
                there = _sides(grid, task, paired) if paired else sides
                for code, (score, shares, which) in there.get(row, {}).items():
                    base, less, theirs = there.get((BASELINE, row[1]), {}).get(code, (math.nan, {}, None))
                    of_pairs = grid.paired_gains.get((*row, task, code), {})
                    off = abs(score - base - grid.language_numbers[*row, task, code].difference)
                    if which == theirs and shares.keys() & less.keys() and of_pairs and off < _ROUNDING:
                        differences = _subtract(shares, less)
                        interval = find_interval(score - base, differences, statistics.seed_error(of_pairs))
                        found.append(Comparison(row, task, (code,), interval, differences))
            for row, of_row in itertools.groupby(correct(found), lambda one: one.row):
                self.languages[row, task] = {one.languages[0]: one for one in of_row}
                tests = self.languages[row, task].values()
                for transfer in (False, True):
                    parts = [one for one in tests if not transfer or grid.transfer(one.languages)]
                    difference = sum(one.interval.difference for one in parts) / max(len(parts), 1)
                    self._joined[row, task, transfer] = difference, _mean_shares([one.moved for one in parts])
                if whole := self.interval(row, [task]):
                    joined = self._joined[row, task, False][1]
                    codes = tuple(self.languages[row, task])
                    together.append(Comparison(row, task, codes, whole, joined))
        self.tests = {(one.row, one.task): one for one in correct(together)}

    def holds(self, row: Row, task: str) -> bool:
        """Whether a row differs from the baseline after correction; not where that could not be tested."""
        return (row, task) in self.tests and self.tests[row, task].holds

    def interval(self, row: Row, tasks: list[str], *, transfer: bool = False) -> Interval | None:
        """Of a row's average as tables show it; None where items are missing, or are of other scores."""
        average = self.grid.average(row, tasks, transfer=transfer)
        if average is None or not tasks or any((row, task) not in self.languages for task in tasks):
            return None
        found = self.mean([row], tasks, transfer=transfer)
        return found if abs(found.difference - average.difference) < _ROUNDING else None

    def mean(self, rows: Sequence[Row], tasks: list[str], *, transfer: bool = False) -> Interval:
        """Of the mean difference over ``rows`` and ``tasks``, all of which have items."""
        parts = [self._joined[row, task, transfer] for row in rows for task in tasks]
        difference, moved = float(np.mean([one for one, _ in parts])), _mean_shares([one for _, one in parts])
        return find_interval(difference, moved, self._seed_error(rows, tasks, transfer))

    def _seed_error(self, rows: Sequence[Row], tasks: list[str], transfer: bool) -> tuple[float, float]:
        """Of a mean over rows and tasks, as ``statistics.seed_error``; tasks that share one run only count apart."""

        def by_seeds(tasks: list[str]) -> Seeds:
            by_row = [self.grid.by_seeds(row, tasks, transfer=transfer) for row in rows]
            pairs = set.intersection(*map(set, by_row))
            return {pair: sum(one[pair] for one in by_row) / len(rows) for pair in pairs}

        designs = defaultdict(list)  # tasks by the seeds that they were run with
        for task in tasks:
            designs[frozenset(by_seeds([task]))].append(task)
        joint = by_seeds(tasks)
        if len(joint) > 1 or len(designs) == len(rows) == 1:
            return statistics.seed_error(joint)
        if len(designs) > 1:
            shares = [(len(of) / len(tasks), self._seed_error(rows, of, transfer)) for of in designs.values()]
            apart = [(one**2 * error, degrees) for one, (error, degrees) in shares if degrees]
        else:  # the rows have too few seeds in common to be one
            each = [self._seed_error([row], tasks, transfer) for row in rows]
            apart = [(error / len(rows) ** 2, degrees) for error, degrees in each if degrees]
        # Independent squared errors add up, and degrees of freedom as Welch and Satterthwaite say.
        variance, spread = sum(one for one, _ in apart), sum(one**2 / degrees for one, degrees in apart)
        return variance, variance**2 / spread if spread else float(len(apart) > 0)


def _mean_shares(found: Sequence[Shares]) -> Shares:
    """Translations of a hard sentence are all hard: items in common vary together."""
    joined: Shares = {}
    for moved in found:
        for name, one in moved.items():
            joined[name] = joined[name] + one if name in joined else one
    return {name: one / len(found) for name, one in joined.items()}


def _subtract(moved: Shares, less: Shares) -> Shares:
    names = dict.fromkeys((*moved, *less))
    return {name: np.asarray(moved.get(name, 0.0) - less.get(name, 0.0)) for name in names}


def correct(found: list[Comparison]) -> list[Comparison]:
    """Adds Holm's correction over all of ``found``."""
    corrected = statistics.holm([one.interval.p for one in found])
    return [one._replace(holm=float(p)) for one, p in zip(found, corrected)]


def _pair(cells: Cells, row: Row) -> Cells:
    """The runs of a row and, for each, that of the baseline of its target seed; nothing where means stay the same."""
    runs, base = cells.get(row, []), {run.seeds[1]: run for run in cells.get((BASELINE, row[1]), [])}
    paired = [run for run in runs if run.seeds[1] in base]
    counts = Counter(run.seeds[1] for run in paired)
    whole = len(paired) == len(runs) and counts.keys() == base.keys() and len({*counts.values()}) == 1
    if whole or not paired:
        return {}
    return {row: paired, (BASELINE, row[1]): [base[run.seeds[1]] for run in paired]}


def _sides(grid: Grid, task: str, cells: Cells) -> dict[Row, dict[str, tuple[float, Shares, tuple]]]:
    """By row and language the mean score of its runs, how much each item moves it, and which items they are.

    Items of the same ids are joined, in rows and in languages (where they are row numbers of unrelated items, that does
    not change what is expected); of sets that are equal in part, those of the same name. Languages in which some run
    has no items, or others than the first, are left out.
    """
    runs = {row: [run.items(task) for run in own] for row, own in cells.items()}
    by_language = [one for of_row in runs.values() for run in of_row for one in run.values()]
    # One of two runs may lack names, as in the languages that it was scored in all sets were equal.
    known = {one.ids: one.names for one in by_language if one.names is not None}
    union = np.unique(np.concatenate(list(known.values()))) if known else np.empty(0)
    sides: dict[Row, dict[str, tuple[float, Shares, tuple]]] = {}
    for row, of_row in runs.items():
        for code in grid.codes(task, row):
            items = [run[code] for run in of_row if code in run]
            # Items without ids are those of their language alone.
            drawn = {("items", task, statistics.count_items(one), one.ids or code) for one in items}
            if len(items) < len(of_row) or len(drawn) > 1 or not statistics.count_items(items[0]):
                continue
            which: tuple = drawn.pop()
            name, (moved, own) = which, statistics.shares(items)
            if (named := known.get(items[0].ids)) is not None:
                if items[0].statistic == "binary_f1":  # only what is in gold is the same in every run
                    named = named[items[0].values[:, 2] > 0]
                name, moved = ("items", task), np.bincount(np.searchsorted(union, named), moved, len(union))
            beside = {("beside", task, code, row, number): one for number, one in enumerate(own) if len(one)}
            mean = float(np.mean(list(map(statistics.score_items, items))))
            sides.setdefault(row, {})[code] = mean, {name: moved} | beside, which
    return sides


def pictures_section(grid: Grid, comparisons: Comparisons) -> Block | None:
    """What pictures add to an intermediate task; nothing where none stands beside a control of its own."""
    # ``easy_vqa`` is what ``easy_vqa.blind`` is a control of.
    control = re.compile(rf"\.({'|'.join(CONTROLS)})(?=[@+]|$)")
    pairs = [((control.sub("", row[0]), row[1]), row) for row in grid.compared]
    pairs = [pair for pair in pairs if pair[0] != pair[1] and pair[0] in grid.compared]
    tasks = [task for task in grid.scored if any((row, task) in comparisons.languages for row, _ in pairs)]
    if not tasks:
        return None
    found = {}
    for pair, task in itertools.product(pairs, tasks):
        one, two = (comparisons.tests.get((row, task)) for row in pair)
        own, less = (grid.by_seeds(row, [task]) for row in pair)
        if one and two and one.languages == two.languages and own.keys() == less.keys():
            moved = _subtract(one.moved, two.moved)  # the baseline is in both, and so drops out
            seeds = {both: own[both] - less[both] for both in own}
            difference = one.interval.difference - two.interval.difference
            interval = find_interval(difference, moved, statistics.seed_error(seeds))
            found[pair, task] = Comparison(pair, task, one.languages, interval, moved)
    corrected = dict(zip(found, correct(list(found.values()))))

    def cell(pair: tuple[Row, Row], task: str) -> Cell:
        if (one := corrected.get((pair, task))) is None:
            return Cell("–", note="the two have not the same items, languages and seeds")
        shown = Cell.change(one.interval.difference, sure=one.holds)
        detail = f"{signed(one.interval.low)} to {signed(one.interval.high)}"
        numbers = one.interval._asdict() | {"holm": one.holm, "items": one.items}
        return Cell(shown.text + "*" * one.holds, detail, "", shown.tone, one.holds, numbers)

    titles = {pair: f"{grid.row_title(pair[0])} − {task_title(pair[1][0])}" for pair in pairs}
    rows = [[Cell(title), *(cell(pair, task) for task in tasks)] for pair, title in titles.items()]
    reading = (
        "Is it the pictures that help, or the text that comes with them? The score after the task less that after a "
        "control on the same text: with blank pictures (blind), those of other rows (shuffled), or none (text). "
        "Intervals as in the main table; * differs from zero after Holm's correction over this table."
    )
    heads = columns("Intermediate") + [Column(grid.title(task)) for task in tasks]
    table = Table("pictures", "With pictures less without", heads, rows)
    return Block("pictures", "With pictures / without", reading, [table])
