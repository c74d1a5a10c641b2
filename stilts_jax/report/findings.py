"""What was found, in the words of the field: the sentences that open the page and what a terminal shows."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from stilts_jax.report.grid import NO_SEED, Grid
from stilts_jax.report.names import GROUP_TITLES, trained_on
from stilts_jax.report.results import BASELINE
from stilts_jax.report.significance import Comparison, Comparisons, correct
from stilts_jax.report.tables import Table, signed, to_markdown

_LISTED = 4  # findings in one direction; more are counted by group of targets
_LITTLE = 0.1  # of the largest training set of a group: below it a target has little data of its own


def headline(grid: Grid, comparisons: Comparisons) -> list[str]:
    """Gains and losses that survive correction for having looked at many; and what one seed cannot show."""
    if not grid.scored:
        there = ", ".join(run.name for run in grid.intermediates if not run.error) or "none"
        return [
            "There are no scores of target tasks yet: `stilts grid` with the same work directory runs them. "
            f"Finished intermediate trainings: {there}."
        ]
    if not grid.compared:
        lacks = "intermediate task" if grid.rows[0][0] == BASELINE else "baseline (intermediate task “none”)"
        return [f"Every row stands by itself: there is no {lacks} to compare with."]
    found = find(grid, comparisons)
    nothing = "No per-item scores of the same items and seeds were kept: nothing can be told from noise."
    sentences = [say(found) if found else nothing]
    single = {task: _single_seeds(grid, task) for task in grid.scored}
    for kind in dict.fromkeys(filter(None, single.values())):
        tasks = [task for task in grid.scored if single[task] == kind]
        whose = f" of {', '.join(map(grid.title, tasks))}" if len(tasks) < len(grid.scored) else ""
        one_run = (
            f"Each number{whose} is of one training run: intervals are over test items only, and another seed could "
            "move any of these differences, or turn it. Only more seeds (seeds=3) can show how much."
        )
        one_seed = f"The numbers{whose} have one seed of the {kind} training, whose luck is in no interval."
        sentences.append(one_run if kind == "any" else one_seed)
    return sentences


def _single_seeds(grid: Grid, task: str) -> str:
    """Of which training no row has several seeds; ``any`` where each number is of one run."""
    varied = [False, False]
    pairs = [pair for row in grid.rows for pair in grid.by_seeds(row, [task], "value")]
    for row in grid.compared:
        for side, seeds in enumerate(zip(*grid.by_seeds(row, [task], "value"))):
            varied[side] |= len({*seeds}) > 1
    there = [any(pair[side] != NO_SEED for pair in pairs) for side in (0, 1)]
    lacks = [kind for kind, has, more in zip(("intermediate", "target"), there, varied) if has and not more]
    return "" if not lacks else lacks[0] if any(varied) else "any"


def find(grid: Grid, comparisons: Comparisons) -> list[Comparison]:
    """Every kind of intermediate training by every group of targets, corrected over all of them."""
    kinds: dict[str, list] = {}
    for row in grid.compared:
        kinds.setdefault(trained_on(row[0]), []).append(row)
    little, groups = _little_data(grid), dict[str, list[str]]()
    for task in grid.scored:
        title = GROUP_TITLES[grid.group(task)].lower() + " with little training data" * (task in little)
        groups.setdefault(title, []).append(task)
    found, there = [], comparisons.tests
    for (kind, rows), (title, tasks) in itertools.product(kinds.items(), groups.items()):
        rows = [row for row in rows if any((row, task) in there for task in tasks)]
        tasks = [task for task in tasks if rows and all((row, task) in there for row in rows)]
        if tasks:
            codes = {code for pair in itertools.product(rows, tasks) for code in there[pair].languages}
            found.append(Comparison(kind, title, tuple(codes), comparisons.mean(rows, tasks), {}))
    return correct(found)


def _little_data(grid: Grid) -> set[str]:
    """Targets whose training set is less than a tenth of the largest that the grid has for their group."""
    sizes: dict[str, int] = {}
    largest: dict[str, int] = {}
    for run in (run for run in grid.runs if not run.error):  # what failed keeps no count of its data
        size = sum(splits["train"].get("examples", 0) for splits in run.data.values() if "train" in splits)
        targets = run.tasks * (run.stage == "target")
        sizes |= dict.fromkeys(targets, size)
        skill = trained_on(run.intermediate).removeprefix("English ").capitalize()
        for group in [GROUP_TITLES[grid.group(task)] for task in targets] or [skill]:
            largest[group] = max(largest.get(group, 0), size)
    little = {task: _LITTLE * largest[GROUP_TITLES[grid.group(task)]] for task in sizes}
    return {task for task, size in sizes.items() if 0 < size < little[task]}


def say(found: Sequence[Comparison]) -> str:
    """What holds of ``found``, gains and losses alike; that nothing does, where nothing does."""
    holds, correction = [one for one in found if one.holds], "beyond noise (Holm's correction, 5 %)."
    compared = f"{len(found)} comparison{'s' * (len(found) != 1)} with the baseline"
    if not holds:
        return f"None of {compared} shows a difference {correction}"
    sentences = []
    for word, sign in (("Gains", 1), ("Losses", -1)):
        if side := [one for one in holds if one.interval.difference * sign > 0]:
            parts = _list(side) if len(side) <= _LISTED else _count(side, found)
            sentences.append(f"{word}: {'; '.join(parts)}.")
    rest = "Nothing else of" if len(found) > len(holds) else "Each of"
    text, unit = " ".join([*sentences, f"{rest} {compared} is {correction}"]), " points (95 % "
    first, _, more = text.partition(unit)
    return first + (unit + more.replace(unit, " (")) * bool(more)  # said once


def _list(side: Sequence[Comparison]) -> Iterator[str]:
    for kind, same in itertools.groupby(side, lambda one: one.row):
        targets = []
        for one in same:
            difference, low, high = map(signed, one.interval[:3])
            over = f"{len(one.languages)} language{'s' * (len(one.languages) != 1)}"
            targets.append(f"before {one.task}: {difference} points (95 % {low} to {high}, {over})")
        yield f"{kind} {', '.join(targets)}"


def _count(side: Sequence[Comparison], found: Sequence[Comparison]) -> Iterator[str]:
    for target in dict.fromkeys(one.task for one in side):
        ends = sorted(one.interval.difference for one in side if one.task == target)
        of = sum(one.task == target for one in found)
        span = " to ".join(dict.fromkeys(map(signed, (ends[0], ends[-1]))))
        yield f"{target} after {len(ends)} of {of} kinds of training ({span} points)"


def in_a_terminal(found: Sequence[str], tables: Sequence[Table]) -> str:
    """The headline and tables as text; the main table has many columns, and there no room for intervals."""
    shown = [textwrap.fill(text.replace(" %", "\xa0%"), 100).replace("\xa0", " ") + "\n" for text in found]
    for table in tables:
        many = table.name == "main"
        rows = [[one._replace(detail="" if many else one.detail) for one in row] for row in table.rows]
        shown.append(to_markdown(table._replace(rows=rows), str))
    return "\n".join(shown)
