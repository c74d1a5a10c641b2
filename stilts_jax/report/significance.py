"""Which differences are more than the luck of the test items and of the seeds: from the baseline, and of controls."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stilts_jax.report import statistics
from stilts_jax.report.grid import Grid, Row, Seeds
from stilts_jax.report.names import CONTROLS, task_title
from stilts_jax.report.results import BASELINE
from stilts_jax.report.statistics import Interval
from stilts_jax.report.tables import Block, Cell, Column, Section, Table, change, columns, folded, signed

SIGNIFICANT = 0.05
_ROUNDING = 0.05  # points by which what items add up to may differ from what is shown
# By what was drawn together: how much each item moves a difference, in points.
_Shares = dict[tuple, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """One row against another (its baseline) on one task, or in one language of it.

    ``interval`` is of the items' statistic, mean over ``languages``, in points; ``moved`` how much each item moves it;
    ``holm`` is p after Holm's correction over all that was asked.
    """

    row: Row
    task: str
    languages: tuple[str, ...]
    interval: Interval
    moved: _Shares = field(repr=False)
    holm: float = np.nan

    @property
    def items(self) -> int:
        """How many test items it rests on."""
        return _count_items(self.moved)

    @property
    def holds(self) -> bool:
        """Whether it differs from zero after Holm's correction."""
        return self.holm < SIGNIFICANT


class Comparisons:
    """All comparisons with baselines; none where no items were kept.

    All are by (row, task): ``tests`` are over the languages of a task, corrected over all rows and tasks,
    ``languages`` are in single languages, corrected over the rows and languages of the task, ``scores`` are intervals
    of the scores themselves.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.languages: dict[tuple[Row, str], list[Comparison]] = {}
        self.scores: dict[tuple[Row, str], Interval] = {}
        self._joined: dict[tuple[Row, str, bool], tuple[float, _Shares]] = {}
        together = []
        for task in grid.tasks:
            sides = {row: _sides(grid, row, task) for row in grid.rows}
            self.scores |= {(row, task): _score(grid, row, task, own) for row, own in sides.items() if own}
            found = _correct([test for row in grid.compared for test in _compare(grid, row, task, sides)])
            for row, of_row in itertools.groupby(found, lambda one: one.row):
                own = self.languages[row, task] = list(of_row)
                for transfer in (False, True):
                    parts = [one for one in own if not transfer or grid.transfer(one.languages)]
                    difference = sum(one.interval.difference for one in parts) / max(len(parts), 1)
                    self._joined[row, task, transfer] = difference, _mean_shares([one.moved for one in parts])
                codes = tuple(code for one in own for code in one.languages)
                moved = self._joined[row, task, False][1]
                together.append(Comparison(row, task, codes, self.mean([row], [task]), moved))
        self.tests = {(one.row, one.task): one for one in _correct(together)}

    def between(self, wanted: Sequence[tuple[Row, Row, str]]) -> dict[tuple[Row, Row, str], Comparison]:
        """Compares two rows on a task, corrected over all that is wanted: (row, other row, task).

        What cannot be compared, because the two were scored on other languages or items, is left out.
        """
        found = {}
        for row, other, task in wanted:
            one, two = (self.tests.get((side, task)) for side in (row, other))
            if one is None or two is None or one.languages != two.languages:
                continue
            # The baseline is in both, and so drops out.
            names = dict.fromkeys((*one.moved, *two.moved))
            moved = {name: np.asarray(one.moved.get(name, 0) - two.moved.get(name, 0)) for name in names}
            own, less = (self.grid.by_seeds(side, [task]) for side in (row, other))
            seeds = {pair: own[pair] - less[pair] for pair in sorted(own.keys() & less.keys())}
            interval = _interval(one.interval.difference - two.interval.difference, moved, seeds)
            found[row, other, task] = Comparison(row, task, one.languages, interval, moved)
        return dict(zip(found, _correct(list(found.values()))))

    def holds(self, row: Row, task: str) -> bool:
        """Whether a row differs from the baseline after correction; true where nothing at all could be tested."""
        return self.tests[row, task].holds if (row, task) in self.tests else not self.tests

    def interval(self, row: Row, tasks: Sequence[str], *, transfer: bool = False) -> Interval | None:
        """Of a row's average as tables show it; None where items are missing, or are of other scores."""
        average = self.grid.average(row, tasks, transfer=transfer)
        if average is None or not tasks or any((row, task) not in self.languages for task in tasks):
            return None
        found = self.mean([row], tasks, transfer=transfer)
        return found if abs(found.difference - average.difference) < _ROUNDING else None

    def mean(self, rows: Sequence[Row], tasks: Sequence[str], *, transfer: bool = False) -> Interval:
        """Of the mean difference over ``rows`` and ``tasks``, all of which have items."""
        parts = [self._joined[row, task, transfer] for row in rows for task in tasks]
        by_row = [self.grid.by_seeds(row, tasks, transfer=transfer) for row in rows]
        pairs = set.intersection(*map(set, by_row))
        by_seeds = {pair: sum(one[pair] for one in by_row) / len(rows) for pair in pairs}
        difference, moved = float(np.mean([one for one, _ in parts])), _mean_shares([one for _, one in parts])
        return _interval(difference, moved, by_seeds)


def _count_items(moved: _Shares) -> int:
    return sum(len(one) for name, one in moved.items() if name[0] == "items")


def _interval(difference: float, moved: _Shares, by_seeds: Seeds) -> Interval:
    """Of a difference (or a score) that each item moves by ``moved``."""
    variance = 0.0
    for name, one in moved.items():
        scale = len(one) / max(len(one) - 1, 1) if name[0] == "items" else 1.0
        variance += float(one @ one) * scale
    seeds = statistics.seed_error(by_seeds)
    return statistics.join_errors(difference, variance, _count_items(moved), seeds)


def _mean_shares(found: Sequence[_Shares]) -> _Shares:
    """Translations of a hard sentence are all hard: items in common vary together."""
    joined: _Shares = {}
    for moved in found:
        for name, one in moved.items():
            joined[name] = joined[name] + one if name in joined else one
    return {name: one / len(found) for name, one in joined.items()}


def _correct(found: list[Comparison]) -> list[Comparison]:
    corrected = statistics.holm([one.interval.p for one in found])
    return [replace(one, holm=float(p)) for one, p in zip(found, corrected)]


@dataclass(frozen=True)
class _Side:
    """The runs of one row in one language: their mean score, their items, and how much each item moves it."""

    score: float
    aligned: bool
    size: int
    ids: str
    moved: np.ndarray
    beside: _Shares

    def drawn(self, task: str, code: str, ids: str = "") -> tuple:
        """What its items are drawn with: rows have the same items, and so have languages of aligned ones."""
        return "items", task, self.size, self.ids or ids, "" if self.aligned else code


def _sides(grid: Grid, row: Row, task: str) -> dict[str, _Side]:
    """By language; languages in which some run has no items, or others than the first, are left out."""
    runs = [run.items(task) for run in grid.cells[row, task]]
    sides = {}
    for code in grid.codes(task, row):
        items = [run[code][0] for run in runs if code in run]
        ids, sizes = {one.ids for one in items if one.ids}, set(map(statistics.count_items, items))
        if len(items) < len(runs) or len(sizes) != 1 or len(ids) > 1 or 0 in sizes:
            continue
        moved, own = statistics.shares(items)
        beside = {("beside", task, code, row, number): one for number, one in enumerate(own) if len(one)}
        mean = float(np.mean(list(map(statistics.score_items, items))))
        sides[code] = _Side(mean, runs[0][code][1], sizes.pop(), next(iter(ids), ""), moved, beside)
    return sides


def _score(grid: Grid, row: Row, task: str, sides: Mapping[str, _Side]) -> Interval:
    """Of the mean score over the languages that have items."""
    moved = _mean_shares([{one.drawn(task, code): one.moved} | one.beside for code, one in sides.items()])
    mean = float(np.mean([one.score for one in sides.values()]))
    return _interval(mean, moved, grid.by_seeds(row, [task], "value"))


def _compare(grid: Grid, row: Row, task: str, sides: Mapping[Row, dict[str, _Side]]) -> Iterator[Comparison]:
    """In each language in which the baseline has the same items: equally many, of equal ids where both have them."""
    for code, own in sides[row].items():
        before = sides[BASELINE, row[1]].get(code)
        if before is None or own.size != before.size or len({own.ids, before.ids} - {""}) > 1:
            continue
        if not grid.language_numbers[*row, task, code].is_difference:
            continue
        moved = {own.drawn(task, code, before.ids): own.moved - before.moved} | own.beside
        moved |= {name: -one for name, one in before.beside.items()}
        seeds = grid.paired_gains.get((*row, task, code), {})
        yield Comparison(row, task, (code,), _interval(own.score - before.score, moved, seeds), moved)


def _cell(one: Comparison) -> Cell:
    """A difference with its interval; what holds is bold, coloured and has a star."""
    found = one.interval
    shown = change(found.difference, sure=one.holds)
    return replace(
        shown,
        text=shown.text + "*" * one.holds,
        detail=f"{signed(found.low)} to {signed(found.high)}",
        strong=one.holds,
        numbers=found._asdict() | {"holm": one.holm, "items": one.items},
    )


def method(comparisons: Comparisons) -> Block:
    """How intervals of the main table came about, and how many differences luck would make."""
    tests = comparisons.tests.values()
    if not tests:
        return Block("text", text="No items of both a row and the baseline were kept: nothing can be tested.")
    raw, by_luck = sum(one.interval.p < SIGNIFICANT for one in tests), f"{SIGNIFICANT * len(tests):.1f}"
    text = (
        "Intervals (95 %, Student's t) are over test items, paired with the baseline's, and over seeds where there are "
        "several. Where languages have the same items, translated, these vary together. "
        f"p < {SIGNIFICANT} uncorrected in {raw} of {len(tests)} differences (by luck alone it would be about "
        f"{by_luck.removesuffix('.0')}), in {sum(one.holds for one in tests)} after Holm's correction."
    )
    return Block("text", text=text)


def score_section(grid: Grid, comparisons: Comparisons) -> Section | None:
    """The scores themselves with intervals; nothing where no items were kept."""
    reading = (
        "How far would scores move with other test items and, where there are several, seeds? Where the languages "
        "have the same items, translated, they vary together."
    )
    tasks = [task for task in grid.scored if any(task == name for _, name in comparisons.scores)]

    def cell(row: Row, task: str) -> Cell:
        one, shown = comparisons.scores.get((row, task)), grid.number(row, task)
        # Items may cover other languages or metrics than the number.
        if one is None or shown is None or abs(shown.percent - one.difference) > _ROUNDING:
            return Cell("–", note="no items that the score is made of")
        numbers = {"low": one.low, "high": one.high, "error_items": one.error_items, "score": one.difference}
        return Cell(f"{one.difference:.1f}", f"{one.low:.1f} to {one.high:.1f}", numbers=numbers)

    heads = [*columns("Intermediate"), *map(grid.column, tasks)]
    rows = [[Cell(grid.row_title(row)), *(cell(row, task) for task in tasks)] for row in grid.rows]
    table = Table("scores_intervals", "Scores, with 95 % intervals", heads, rows)
    block = folded("The scores themselves", table) if grid.compared else table
    return Section("significance", "Intervals of scores", reading, [block]) if tasks else None


def pictures_section(grid: Grid, comparisons: Comparisons) -> Section | None:
    """What pictures add to an intermediate task; nothing where none stands beside a control of its own."""
    # ``easy_vqa`` is what ``easy_vqa.blind`` is a control of.
    control = re.compile(rf"\.({'|'.join(CONTROLS)})(?=\+|$)")
    pairs = [((control.sub("", row[0]), row[1]), row) for row in grid.compared]
    pairs = [pair for pair in pairs if pair[0] != pair[1] and pair[0] in grid.compared]
    tasks = [task for task in grid.scored if any((row, task) in comparisons.languages for row, _ in pairs)]
    if not tasks:
        return None
    found = comparisons.between([(*pair, task) for pair in pairs for task in tasks])
    missing = Cell("–", note="the two have no items, or no languages, in common")
    rows = []
    for seeing, other in pairs:
        tests = [found.get((seeing, other, task)) for task in tasks]
        name = Cell(f"{grid.row_title(seeing)} − {task_title(other[0])}")
        rows.append([name, *(_cell(one) if one else missing for one in tests)])
    reading = (
        "Is it the pictures that help, or the text that comes with them? The score after the task less that after a "
        "control on the same text: with blank pictures (blind), those of other rows (shuffled), or none (text). "
        "Intervals as in the main table; * differs from zero after Holm's correction over this table."
    )
    heads = columns("Intermediate") + [Column(grid.title(task), numeric=False) for task in tasks]
    table = Table("pictures", "With pictures less without", heads, rows)
    return Section("pictures", "With pictures / without", reading, [table])
