"""Which differences are more than the luck of the test items and of the seeds: from the baseline, and of controls."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stilts_jax.report import statistics
from stilts_jax.report.grid import Grid, Row
from stilts_jax.report.names import CONTROLS, GROUP_TITLES, task_title
from stilts_jax.report.results import BASELINE
from stilts_jax.report.statistics import Interval
from stilts_jax.report.tables import Block, Cell, Column, Section, Table, columns, folded, gain_tone, signed

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
        return item_variance(self.moved)[1]

    @property
    def holds(self) -> bool:
        """Whether it differs from zero after Holm's correction."""
        return self.holm < SIGNIFICANT


def item_variance(moved: _Shares) -> tuple[float, int]:
    """Returns the squared standard error of a difference, and how many items it rests on."""
    counts = {name: len(one) for name, one in moved.items() if name[0] == "items"}
    scale = {name: count / max(count - 1, 1) for name, count in counts.items()}
    total = sum(float(one @ one) * scale.get(name, 1.0) for name, one in moved.items())
    return total, sum(counts.values())


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
        for task in grid.tasks:
            sides = {row: _sides(grid, row, task) for row in grid.rows}
            self.scores |= {(row, task): _score(grid, row, task, own) for row, own in sides.items() if own}
            for one in _correct([test for row in grid.compared for test in _compare(grid, row, task, sides)]):
                self.languages.setdefault((one.row, task), []).append(one)
        self._joined: dict[tuple[Row, str, bool], tuple[float, _Shares]] = {}
        for names, found in self.languages.items():
            for transfer in (False, True):
                parts = [one for one in found if not transfer or grid.transfer(one.languages)]
                difference = sum(one.interval.difference for one in parts) / max(len(parts), 1)
                self._joined[*names, transfer] = difference, _mean_shares([one.moved for one in parts])
        together = []
        for (row, task), found in self.languages.items():
            codes = tuple(code for one in found for code in one.languages)
            interval, moved = self.mean([row], [task]), self._joined[row, task, False][1]
            together.append(Comparison(row, task, codes, interval, moved))
        self.tests = {(one.row, one.task): one for one in _correct(together)}

    def between(self, wanted: Sequence[tuple[Row, Row, str]]) -> dict[tuple[Row, Row, str], Comparison]:
        """Compares two rows on a task, corrected over all that is wanted: (row, other row, task).

        What cannot be compared, because the two were scored on other languages or items, is left out.
        """
        found = {}
        for row, other, task in wanted:
            sides = [self.languages.get((side, task), []) for side in (row, other)]
            codes, others = (tuple(code for part in side for code in part.languages) for side in sides)
            if not codes or codes != others:
                continue
            (first, moved), (second, less) = (self._joined[side, task, False] for side in (row, other))
            # The baseline is in both, and so drops out.
            names = dict.fromkeys((*moved, *less))
            joined = {name: np.asarray(moved.get(name, 0.0) - less.get(name, 0.0)) for name in names}
            one, two = (self.grid.by_seeds(side, [task]) for side in (row, other))
            seeds = {pair: one[pair] - two[pair] for pair in sorted(one.keys() & two.keys())}
            interval = statistics.join_errors(
                first - second, *item_variance(joined), statistics.seed_error(seeds)
            )
            found[row, other, task] = Comparison(row, task, codes, interval, joined)
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
        return statistics.join_errors(difference, *item_variance(moved), statistics.seed_error(by_seeds))


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
    seeds = statistics.seed_error(grid.by_seeds(row, [task], "value"))
    return statistics.join_errors(
        float(np.mean([one.score for one in sides.values()])), *item_variance(moved), seeds
    )


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
        seeds = statistics.seed_error(grid.paired_gains.get((*row, task, code), {}))
        interval = statistics.join_errors(own.score - before.score, *item_variance(moved), seeds)
        yield Comparison(row, task, (code,), interval, moved)


def _cell(one: Comparison, note: str = "") -> Cell:
    """A difference with its interval; what holds is bold, coloured and has a star."""
    found = one.interval
    return Cell(
        signed(found.difference) + "*" * one.holds,
        f"{signed(found.low)} to {signed(found.high)}",
        note,
        gain_tone(found.difference) if one.holds else None,
        one.holds,
        found._asdict() | {"holm": one.holm, "items": one.items},
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


def _score_table(grid: Grid, comparisons: Comparisons) -> Table | None:
    """The main table's scores with their intervals; None where no items were kept."""
    tasks = [task for task in grid.scored if any(task == name for _, name in comparisons.scores)]
    heads = columns("Intermediate") + [
        Column(grid.title(task), "", GROUP_TITLES[grid.group(task)]) for task in tasks
    ]
    rows = []
    for row in grid.rows:
        rows.append([Cell(grid.row_title(row))])
        for task in tasks:
            one, shown = comparisons.scores.get((row, task)), grid.number(row, task)
            # Items may cover other languages or metrics than the number.
            if one is None or shown is None or abs(shown.percent - one.difference) > _ROUNDING:
                rows[-1].append(Cell("–", note="no items that the score is made of"))
                continue
            detail = f"{one.low:.1f} to {one.high:.1f}"
            numbers = {"low": one.low, "high": one.high, "error_items": one.error_items}
            rows[-1].append(
                Cell(f"{one.difference:.1f}", detail, numbers=numbers | {"score": one.difference})
            )
    return Table("scores_intervals", "Scores, with 95 % intervals", heads, rows) if tasks else None


def score_section(grid: Grid, comparisons: Comparisons) -> Section | None:
    """The scores themselves with intervals; nothing where no items were kept."""
    reading = (
        "How far would scores move with other test items and, where there are several, seeds? Where the languages "
        "have the same items, translated, they vary together."
    )
    table = _score_table(grid, comparisons)
    blocks = [folded("The scores themselves", table) if grid.compared else table] if table else []
    return Section("significance", "Intervals of scores", reading, blocks) if blocks else None


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
    rows = []
    for seeing, other in pairs:
        tests = [found.get((seeing, other, task)) for task in tasks]
        missing = Cell("–", note="the two have no items, or no languages, in common")
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
