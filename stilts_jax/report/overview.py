"""What opens a page and what a terminal shows: sentences, the main table, averages."""

import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from stilts_jax.progress import counted
from stilts_jax.report.figures import Figures, dots
from stilts_jax.report.grid import CELL, NO_SEED, SEEDS, Grid, Number, Row
from stilts_jax.report.names import (
    GROUP_TITLES,
    language_name,
    meaning,
    metric_title,
    task_title,
    trained_on,
)
from stilts_jax.report.results import BASELINE
from stilts_jax.report.significance import SIGNIFICANT, Comparison, Comparisons, correct
from stilts_jax.report.statistics import Interval
from stilts_jax.report.tables import Block, Cell, Column, Table, columns, fixed, signed, to_markdown

_LISTED = 4  # findings in one direction; more are counted by group of targets
_LITTLE = 0.1  # of the largest training set for a group of targets: below it a target has little data


def opening(
    grid: Grid, comparisons: Comparisons, broken: Mapping[str, str]
) -> tuple[list[str], list[Table], str]:
    """The headline with what is ``broken``, the tables below it, and both as text for a terminal."""
    found, makers = _headline(grid, comparisons), [_main_table] * bool(grid.tasks)
    if broken:  # a cell that lost its file says no more than "not run"
        path, reason = next(iter(broken.items()))
        others = f" and {len(broken) - 1} more (the page's “Phases without a result”)" * (len(broken) > 1)
        again = "The same `stilts grid`, typed again, runs what is damaged or unfinished."
        found.append(f"In no number here: {path} ({reason.rstrip('.')}){others}. {again}")
    makers += [_averages] * (len(grid.scored) > 1)
    tables = [make(grid, comparisons) for make in makers]
    shown = [textwrap.fill(text.replace(" %", "\xa0%"), 100).replace("\xa0", " ") + "\n" for text in found]
    for table in tables:
        many = table.name == "main"  # columns: there is no room for intervals
        rows = [[one._replace(detail="" if many else one.detail) for one in row] for row in table.rows]
        shown.append(to_markdown(table._replace(rows=rows), str))
    return found, tables, "\n".join(shown)


def _headline(grid: Grid, comparisons: Comparisons) -> list[str]:
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
    found, behind = _find(grid, comparisons)
    nothing = "No per-item scores of the same items and seeds were kept: nothing can be told from noise."
    sentences = [f"{say(found)}{_say_apart(grid, comparisons, found, behind)}" if found else nothing]
    single: dict[str, list[str]] = {}  # tasks by the training of which no row has several seeds
    compared = {*grid.compared}
    own = grid.shown[[row in compared for row in zip(grid.shown.intermediate, grid.shown.source)]]
    seeds = own[SEEDS].mask(own[SEEDS] == NO_SEED).groupby([own[name] for name in CELL]).nunique()
    for task, most in seeds.groupby("task").max().reindex(grid.scored).dropna().iterrows():
        if one := [kind for kind, count in zip(("intermediate", "target"), most) if count == 1]:
            single.setdefault(one[0] if max(most) > 1 else "any", []).append(str(task))
    for kind, tasks in single.items():
        whose = f" of {', '.join(map(grid.title, tasks))}" if len(tasks) < len(grid.scored) else ""
        one_run = (
            f"Each number{whose} is of one training run: intervals are over test items only, and another seed could "
            "move any of these differences, or turn it. Only more seeds (seeds=3) can show how much."
        )
        one_seed = f"The numbers{whose} have one seed of the {kind} training, whose luck is in no interval."
        sentences.append(one_run if kind == "any" else one_seed)
    most = seeds.groupby("task").transform("max")
    for side, kind in zip(SEEDS, ("intermediate", "target")):
        few = seeds.index[(seeds[side] == 1) & (most[side] > 1)]
        if rows := ", ".join(dict.fromkeys(grid.row_title((row, source)) for row, source, _ in few)):
            sentences.append(
                f"Of {rows} there is one seed of the {kind} training, whose luck is in no interval."
            )
    return sentences


def _find(grid: Grid, comparisons: Comparisons) -> tuple[list[Comparison], list[list[tuple[Row, str]]]]:
    """Every kind of intermediate training by every group of targets, corrected; and the cells behind each."""
    kinds: dict[str, list] = {}
    for row in grid.compared:
        kinds.setdefault(trained_on(row[0]), []).append(row)
    sizes, largest = dict[str, int](), dict[str, int]()
    for run in (run for run in grid.runs if not run.error):  # what failed keeps no count of its data
        size = sum(splits["train"].get("examples", 0) for splits in run.data.values() if "train" in splits)
        targets = run.tasks * (run.stage == "target")
        sizes |= dict.fromkeys(targets, size)
        skill = trained_on(run.intermediate).removeprefix("English ").capitalize()
        for group in [GROUP_TITLES[grid.group(task)] for task in targets] or [skill]:
            largest[group] = max(largest.get(group, 0), size)
    groups: dict[str, list[str]] = {}
    for task in grid.scored:
        group, size = GROUP_TITLES[grid.group(task)], sizes.get(task, 0)
        little = 0 < size < _LITTLE * largest.get(group, 0)
        groups.setdefault(group.lower() + " with little training data" * little, []).append(task)
    found, behind, there = [], [], comparisons.tests
    for (kind, rows), (title, tasks) in itertools.product(kinds.items(), groups.items()):
        rows = [row for row in rows if any((row, task) in there for task in tasks)]
        tasks = [task for task in tasks if rows and all((row, task) in there for row in rows)]
        if tasks:
            behind.append([*itertools.product(rows, tasks)])
            codes = {code for cell in behind[-1] for code in there[cell].languages}
            found.append(Comparison(kind, title, tuple(codes), comparisons.mean(rows, tasks), {}))
    return correct(found), behind


def _say_apart(grid: Grid, comparisons: Comparisons, found: list[Comparison], behind: list[list]) -> str:
    """Names the cells with a star, the largest first, whose gain or loss is no part of what ``found`` says."""
    told = {(cell, one.interval.difference > 0) for one, of in zip(found, behind) if one.holds for cell in of}
    cells = [(cell, one.interval.difference) for cell, one in comparisons.tests.items() if one.holds]
    apart = [(cell, moved) for cell, moved in cells if (cell, moved > 0) not in told]
    apart.sort(key=lambda one: -abs(one[1]))
    names = [
        f"{grid.title(task)} {signed(moved)} after {grid.row_title(row)}" for (row, task), moved in apart
    ]
    more = f" and {len(names) - _LISTED} more" * (len(names) > _LISTED)
    shown = f"{', '.join(names[:_LISTED])}{more}"
    return f" Beyond noise in single tasks only (the table's stars): {shown}." * bool(names)


def say(found: Sequence[Comparison]) -> str:
    """What holds of ``found``, gains and losses alike; that nothing does, where nothing does."""
    holds, correction = [one for one in found if one.holds], "beyond noise (Holm's correction, 5 %)."
    compared = f"{counted(len(found), 'comparison')} with the baseline"
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
            over = counted(len(one.languages), "language")
            targets.append(f"before {one.task}: {difference} points (95 % {low} to {high}, {over})")
        yield f"{kind} {', '.join(targets)}"


def _count(side: Sequence[Comparison], found: Sequence[Comparison]) -> Iterator[str]:
    for target in dict.fromkeys(one.task for one in side):
        ends = sorted(one.interval.difference for one in side if one.task == target)
        of = sum(one.task == target for one in found)
        span = " to ".join(dict.fromkeys(map(signed, (ends[0], ends[-1]))))
        yield f"{target} after {len(ends)} of {of} kinds of training ({span} points)"


def main_section(grid: Grid, comparisons: Comparisons, tables: Sequence[Table], figures: Figures) -> Block:
    """Intermediates x targets as table and picture, and the averages."""
    reading = (
        "A row is what the encoder was trained on before the target task, a column a target task; numbers are means "
        "over languages, then over seeds (±: their standard deviation, of differences between equal target seeds)."
    )
    if grid.baselines:
        reading += (
            " The row “none” is the baseline, in percent; the others are differences from it in points, blue where "
            "better and orange where worse; what may be noise has no colour."
        )
    series: dict[str, list[tuple]] = {}
    for row in grid.compared * bool(grid.scored):
        points = series[grid.row_title(row)] = []
        for task in grid.scored:
            number, interval = grid.number(row, task), comparisons.interval(row, [task])
            ends = interval[1:3] if interval else (math.nan, math.nan)
            points.append((number.difference if number else math.nan, *ends))
    axis = "gain over the baseline, points" + "; lines are 95 % intervals" * bool(comparisons.tests)
    drawing = dots(list(map(grid.title, grid.scored)), series, axis, zero=True)
    charts = [figures.draw("main", "Gain by target task", drawing, paper=True)] if series else []
    how = []
    if comparisons.scores:
        paired = "; those of differences are paired with the baseline's" * bool(comparisons.tests)
        how.append(
            f"Intervals (95 %, Student's t) are over test items and, where there are several, seeds{paired}. Where "
            "languages have the same items, translated, these vary together."
        )
    if tests := comparisons.tests.values():
        raw = sum(one.interval.p < SIGNIFICANT for one in tests)
        how.append(
            f"p < {SIGNIFICANT} uncorrected in {raw} of {len(tests)} differences (by luck alone it would be about "
            f"{f'{SIGNIFICANT * len(tests):.1f}'.removesuffix('.0')}), in "
            f"{sum(one.holds for one in tests)} after Holm's correction."
        )
    elif grid.compared:
        how.append(
            "No row has items of the same languages, metrics and seeds as the baseline: nothing can be tested."
        )
    method = [Block("text", text=" ".join(how))] * bool(how)
    return Block("main", "Main table", reading, [*tables[:1], *method, *charts, *tables[1:]])


def _main_table(grid: Grid, comparisons: Comparisons) -> Table:
    heads = []
    for task in grid.tasks:
        metrics, split = grid.metrics(task), grid.split(task)
        details = f"{'/'.join(map(metric_title, metrics))}, {split}", f"{meaning(metrics)}, {split}"
        heads.append(grid.column(task, *(details if metrics else ["no scores"])))
    fewer = {task: coverage for task in grid.scored if (coverage := grid.coverage(task))}
    cells = [[_main_cell(grid, comparisons, row, task) for task in grid.tasks] for row in grid.rows]
    lost = ", ".join(run.name for run in grid.intermediates if run.collapsed)
    seeds = sorted({len(runs) for runs in grid.cells.values() if runs})
    span = " to ".join(map(str, dict.fromkeys(seeds[:1] + seeds[-1:])))
    long = {grid.intermediate_label(name): task_title(name) for name, _ in grid.rows}
    stars = any(one.holds for one in comparisons.tests.values())
    chance = any(run.collapsed for runs in grid.cells.values() for run in runs)
    two = any(len(grid.metrics(one)) > 1 for one in grid.tasks)
    roots = (run for run in grid.runs if not run.parent and not run.intermediate.startswith("hub:"))
    several = len({str(run.config["start"]) for run in roots if "start" in run.config}) > 1

    def listed(words: Mapping[str, str]) -> str:
        return ", ".join(f"{grid.title(task)} {of}" for task, of in words.items())

    notes = {
        "* differs from the baseline beyond noise (Holm's correction over this table, 5 %).": stars,
        f"Languages of {grid.benchmark} that are here: {listed(fewer)}.": fewer,
        f"Trained in another language than the others: {listed(grid.elsewhere)}.": grid.elsewhere,
        f"Languages that {grid.benchmark} lacks are in scores.csv only: {listed(grid.beside)}.": grid.beside,
        f"Only the first rows of each language were scored: {listed(grid.limits)}.": grid.limits,
        "† some runs ended at chance level; they count here. “Seeds” names them.": chance,
        f"Intermediate trainings that ended at chance level: {lost}.": lost,
        **{f"{label}: {title}.": label != title for label, title in long.items()},
        f"Runs behind a number: {span}.{' One run has no ±.' * (1 in seeds)}": seeds,
        "Of two metrics ±, interval and colour are those of their mean.": two,
        "Not all rows start from the same encoder: its files differ, whatever they are called.": several,
    }
    return _by_rows(grid, ("main", "Main table: intermediates by target tasks"), heads, cells, notes)


def _by_rows(grid: Grid, names: tuple[str, str], heads: list, cells: list, notes: dict) -> Table:
    """A table of the grid's rows, the baselines apart; of ``notes`` those that hold."""
    bases = grid.baselines
    rows = [[Cell(grid.row_title(row), strong=row in bases), *own] for row, own in zip(grid.rows, cells)]
    ruled = [index for index, row in enumerate(grid.rows) if row in bases and len(grid.rows) > 1]
    shown = [note for note, holds in notes.items() if holds]
    return Table(*names, [*columns("Intermediate"), *heads], rows, shown, ruled, latex=True)


def _main_cell(grid: Grid, comparisons: Comparisons, row: Row, task: str) -> Cell:
    """Several metrics (F1 / EM) are shown beside each other, coloured by their mean."""
    number = grid.number(row, task)
    if number is None:
        return Cell("–", note=grid.reason(row, task))
    notes, metrics = [grid.reason(row, task)], grid.metrics(task, row)
    what = f"{meaning(metrics)} on {grid.split(task, row)}"
    if number.missing:
        notes.append(f"compared without {', '.join(number.missing)}, which this row or the baseline lacks")
    elif fewer := sorted({*grid.codes(task)} - {*grid.codes(task, row)}):
        notes.append(f"without {', '.join(fewer)}, which other rows have")
    if row in grid.compared and not number.is_difference:
        notes += [f"percent, {what}: the baseline has no such score of the same settings to compare with"]
    elif "/" in grid.split(task) or metrics != grid.metrics(task):
        notes.append(what)
    test, score = comparisons.tests.get((row, task)), comparisons.scores.get((row, task))
    interval, there = score, bool(comparisons.scores)
    if number.is_difference:
        interval, there = comparisons.interval(row, [task]), bool(comparisons.tests)
    if there and not interval:
        notes.append("no interval: no items of the same languages, metrics and seeds as the scores")
    more = {"percent_low": score.low, "percent_high": score.high} if score else {}
    more |= {"holm": test.holm, "items": test.items, "languages": len(test.languages)} if test else {}
    shown = number_cell(number, interval, sure=comparisons.holds(row, task), **more)
    text = shown.text
    if len(metrics) > 1:
        means = [grid.metric_means.get((*row, task, metric), (math.nan, math.nan)) for metric in metrics]
        text = " / ".join(signed(gain) if number.is_difference else fixed(value) for value, gain in means)
    text += "*" * bool(test and test.holds) + "†" * any(run.collapsed for run in grid.cells[row, task])
    return shown._replace(text=text, note="; ".join(filter(None, notes)))


def number_cell(number: Number, interval: Interval | None = None, *, sure: bool, **more: float) -> Cell:
    """The difference, coloured if ``sure``, or the score; below, ± over seeds and its interval; in CSV ``more`` too."""
    shown, sd, write = Cell.score(number.percent), number.percent_sd, fixed
    if number.is_difference:
        shown, sd, write = Cell.change(number.difference, sure=sure), number.difference_sd, signed
    named = {name: float(value) for name, value in number._asdict().items() if name != "missing"}
    details = [f"± {sd:.1f}"] * math.isfinite(sd)
    if interval:
        named |= interval._asdict() | {"difference": number.difference}
        details.append(f"{write(interval.low)} to {write(interval.high)}")
    return shown._replace(detail="\n".join(details), numbers=named | more)


def _averages(grid: Grid, comparisons: Comparisons) -> Table:
    """Group means and overall means, with and without retrieval, with and without the languages trained on."""
    *most, last = map(language_name, grid.trained_languages)
    trained = ", ".join(most) + " and " * bool(most) + last
    wanted = []  # (head, tasks, only transfer, shared head)
    for group, title in GROUP_TITLES.items():
        tasks = [task for task in grid.scored if grid.group(task) == group]
        wanted += [(title, tasks, False, "Groups")] * (len(tasks) > 1)
    # In one row: rows of other source languages may have other tasks.
    in_a_row = any(all(grid.number(row, one) for one in grid.own) for row in grid.rows)
    complete = in_a_row and not grid.limits and not any(map(grid.coverage, grid.own))
    name = f"{grid.benchmark} average" if complete else "Average of the tasks here"
    tasks = [task for task in grid.scored if task in grid.own or not complete]
    kept = [task for task in tasks if grid.group(task) != "retrieval"]
    transfer = [task for task in tasks if grid.transfer(grid.codes(task))]
    seen = any(len(grid.transfer(codes)) < len(codes) for codes in map(grid.codes, tasks))
    wanted.append(("All", tasks, False, name))
    wanted += [("Without retrieval", kept, False, name)] * (0 < len(kept) < len(tasks))
    wanted += [(f"Without {trained}", transfer, True, name)] * (seen and bool(transfer))

    def cell(row: Row, tasks: list[str], transfer: bool) -> Cell:
        number = grid.average(row, tasks, transfer=transfer)
        if number is None:
            return Cell("–", note="no task of it can be compared in this row")
        missing = ", ".join(map(grid.title, number.missing))
        why = "can't be compared" if row in grid.compared else "has no score"
        notes = [f"without {missing}, which {why} in this row"] * bool(missing)
        kept = [task for task in tasks if task not in number.missing]
        for task in kept:
            lacks = {*grid.codes(task)} - {*grid.codes(task, row)}  # what another row has
            if one := grid.number(row, task, transfer=transfer):
                lacks |= {*one.missing}
            fewer = sorted(grid.transfer([*lacks]) if transfer else lacks)
            notes += [f"{grid.title(task)} without {', '.join(fewer)}"] * bool(fewer)
        interval = comparisons.interval(row, kept, transfer=transfer)
        sure = interval is not None and interval.p < SIGNIFICANT
        return number_cell(number, interval, sure=sure)._replace(note="; ".join(notes))

    heads = [Column(head, counted(len(of), "task"), group) for head, of, _, group in wanted]
    cells = [[cell(row, tasks, transfer) for _, tasks, transfer, _ in wanted] for row in grid.rows]
    absent = ", ".join(grid.title(task) for task in grid.own if task not in grid.scored)
    other = any(map(grid.coverage, grid.own))
    why = "the languages are not just its own" if other else "no row has all of its tasks"
    why = "only the first rows of each language were scored" if grid.limits else why
    why = f"not in this grid are {absent}" if absent else why
    notes = {
        "Every task weighs the same.": True,
        "A task of two metrics is their mean.": any(len(grid.metrics(task)) > 1 for task in grid.scored),
        "Below a difference: its 95 % interval over test items, and over seeds where there are several; coloured "
        "where it leaves out zero.": comparisons.tests,
        f"No overall average here is {grid.benchmark}'s: {why}. Averages run over what is here.": not complete,
        f"“Without {trained}” leaves out what was trained on: transfer only.": any(one[2] for one in wanted),
    }
    return _by_rows(grid, ("averages", "Averages over tasks"), heads, cells, notes)
