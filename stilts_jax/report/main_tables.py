"""The paper's main table, the averages, the best intermediate of each target, and the scores of every language."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stilts_jax.report.figures import Figures, dots
from stilts_jax.report.grid import Grid, Number, Row
from stilts_jax.report.languages import language_name
from stilts_jax.report.names import GROUP_TITLES, intermediate_title, meaning, metric_titles
from stilts_jax.report.results import BASELINE
from stilts_jax.report.significance import SIGNIFICANT, Comparison, LanguageTest
from stilts_jax.report.tables import (
    Block,
    Cell,
    Column,
    Section,
    Table,
    change,
    fixed,
    folded,
    numbers,
    score,
    signed,
    stem,
    words,
)

_NO_DEV = "no dev set in the source language: choosing would need target-language data"
_TARGET_DEV = "dev-selected on target languages: not zero-shot"


def main_section(
    grid: Grid, tables: Sequence[Table], comparisons: Sequence[Comparison], means: Sequence[Comparison]
) -> Section:
    """Intermediates x targets, and the averages."""
    reading = (
        "A row is what the encoder was trained on before the target task, a column is a target task; each "
        "number is a mean over the languages of the task, then over seeds (± is the standard deviation over "
        "seeds; beside a difference, that of the differences between runs of equal target seed)."
    )
    if any(row[0] == BASELINE for row in grid.rows):
        reading += (
            " The row “none” is the baseline, in percent; all other rows are differences from it in points, "
            "blue where better and orange where worse."
        )
    headline = _headline(grid, comparisons, means)
    blocks = [Block("text", text=headline)] if headline else []
    return Section("main", "Main table", reading, [*blocks, *tables])


def summary_tables(grid: Grid) -> list[Table]:
    """What a terminal shows too."""
    return [_main_table(grid)] + ([_averages_table(grid)] if len(grid.scored) > 1 else [])


def _main_table(grid: Grid) -> Table:
    """One column a task; splits and metrics are in the heads."""
    columns, fewer = words("Intermediate"), []
    for task in grid.tasks:
        metrics, split = grid.metrics(task), grid.splits(task)
        parts = ["/".join(metric_titles(metrics)) or "no scores", split]
        columns.append(
            Column(
                grid.title(task),
                ", ".join(filter(None, parts)),
                GROUP_TITLES[grid.group(task)],
                meaning=f"{meaning(metrics)}, {split}",
            )
        )
        here = grid.languages(task)
        if here and (coverage := grid.benchmark.coverage(task, here)):
            fewer.append(f"{grid.title(task)} {coverage}")
    rows = []
    for row in grid.rows:
        cells = [_main_cell(grid, row, task) for task in grid.tasks]
        rows.append([Cell(grid.row_title(row), strong=row[0] == BASELINE), *cells])
    notes = [f"Languages of {grid.benchmark.title} that are here: {', '.join(fewer)}."] if fewer else []
    if any(run.collapsed for cell in grid.cells.values() for run in cell.runs):
        notes.append(
            "† some runs ended at chance level; they count here. See “Seeds” for the means without them."
        )
    lost = [run.name for run in grid.intermediates if run.collapsed]
    if lost:
        notes.append(f"Intermediate trainings that ended at chance level: {', '.join(lost)}.")
    for name in dict.fromkeys(row[0] for row in grid.rows):
        if grid.intermediate_label(name) != intermediate_title(name):
            notes.append(f"{grid.intermediate_label(name)}: {intermediate_title(name)}.")
    seeds = sorted({len(cell.runs) for cell in grid.cells.values() if cell})
    if seeds:
        span = " to ".join(map(str, dict.fromkeys([seeds[0], seeds[-1]])))
        notes.append(f"Runs behind a number: {span}." + " One run has no ±." * (seeds[0] == 1))
    if any(len(grid.metrics(task)) > 1 for task in grid.tasks):
        notes.append("Of two metrics ± and colour are those of their mean.")
    return Table(
        "main", "Main table: intermediates by target tasks", columns, rows, notes, _ruled(grid), latex=True
    )


def _ruled(grid: Grid) -> list[int]:
    return [index for index, row in enumerate(grid.rows) if row[0] == BASELINE and len(grid.rows) > 1]


def _main_cell(grid: Grid, row: Row, task: str) -> Cell:
    """Several metrics (F1 / EM) are shown beside each other, coloured by their mean."""
    cell, number = grid.cell(row, task), grid.number(row, task)
    if number is None:
        return Cell("–", note=cell.reason)
    notes = [cell.reason] if cell.reason else []
    if number.missing and number.is_difference:
        notes.append(f"compared without {', '.join(number.missing)}, which this row or the baseline lacks")
    base = grid.compared_with(row, task)
    if row in grid.compared and base is None:
        notes.append(f"percent on {cell.split}: the baseline has no such score to compare with")
    elif "/" in grid.splits(task):
        notes.append(f"on {cell.split}")
    shown = number_cell(number)
    if len(cell.parts) > 1:
        values = [part.mean(axis=None) for part in cell.parts.values()]
        if base is not None:
            shared = [code for code in cell.languages if code in base.languages]
            sides = zip(cell.parts.values(), base.parts.values())
            values = [own[shared].mean(axis=None) - before[shared].mean(axis=None) for own, before in sides]
        shown = replace(shown, text=" / ".join(map(signed if base is not None else fixed, values)))
    dagger = "†" if any(run.collapsed for run in cell.runs) else ""
    hint = f"{grid.row_title(row)}, {grid.title(task)}: {fixed(number.mean, 2)}, {number.runs} runs"
    return replace(shown, text=shown.text + dagger, note="; ".join(notes), hint=hint)


def number_cell(number: Number) -> Cell:
    """The difference from the baseline, or the score where there is none; its deviation over seeds below."""
    sd = number.difference_sd if number.is_difference else number.sd
    cell = change(number.difference, coloured=True) if number.is_difference else score(number.mean)
    columns = {"percent": number.mean, "percent_sd": number.sd, "difference": number.difference}
    columns |= {"difference_sd": number.difference_sd, "runs": float(number.runs)}
    return replace(cell, detail=f"± {sd:.1f}" if math.isfinite(sd) else "", numbers=columns)


def _averages_table(grid: Grid) -> Table:
    """Group means and overall means, with and without retrieval, with and without the languages trained on."""
    wanted = _average_columns(grid)
    columns = words("Intermediate")
    columns += [Column(head, f"{len(of)} task{'s' * (len(of) > 1)}", group) for head, of, _, group in wanted]
    rows = []
    for row in grid.rows:
        rows.append([Cell(grid.row_title(row), strong=row[0] == BASELINE)])
        for _, tasks, transfer, _ in wanted:
            number = grid.average(row, tasks, transfer=transfer)
            if number is None:
                rows[-1].append(Cell("–", note="no task of it can be compared in this row"))
                continue
            missing = ", ".join(map(grid.title, number.missing))
            why = "can't be compared" if row in grid.compared else "has no score"
            note = f"without {missing}, which {why} in this row" if missing else ""
            hint = f"{grid.row_title(row)}: {fixed(number.mean, 2)}"
            rows[-1].append(replace(number_cell(number), note=note, hint=hint))
    notes = ["Every task weighs the same; a question answering task is the mean of F1 and EM."]
    absent = [grid.title(task) for task in grid.benchmark.languages if task not in grid.scored]
    if wanted[-1][3].startswith("Average"):
        why = f"not in this grid are {', '.join(absent)}" if absent else "some languages are missing"
        notes.append(
            f"No overall average here is {grid.benchmark.title}'s: {why}. Averages run over what is here."
        )
    if any(transfer for _, _, transfer, _ in wanted):
        notes.append(f"“Without {_trained_on(grid)}” leaves out what was trained on: transfer only.")
    return Table("averages", "Averages over tasks", columns, rows, notes, _ruled(grid), latex=True)


def _trained_on(grid: Grid) -> str:
    return " and ".join(language_name(code) or code for code in grid.trained_languages)


def _average_columns(grid: Grid) -> list[tuple[str, list[str], bool, str]]:
    """(head, tasks, only transfer, shared head) of each."""
    groups = {group: grid.tasks_in(group) for group in GROUP_TITLES}
    columns = [
        (GROUP_TITLES[group], tasks, False, "Groups") for group, tasks in groups.items() if len(tasks) > 1
    ]
    own = grid.benchmark.languages
    complete = all(
        task in grid.scored and not grid.benchmark.coverage(task, grid.languages(task)) for task in own
    )
    name = f"{grid.benchmark.title} average" if complete else "Average of the tasks here"
    everything = [task for task in grid.scored if task in own or not complete]
    transferable = [task for task in everything if grid.transfer(grid.languages(task))]

    def kept(tasks: list[str]) -> list[str]:
        return [task for task in tasks if grid.group(task) != "retrieval"]

    columns.append(("All", everything, False, name))
    if 0 < len(kept(everything)) < len(everything):
        columns.append(("Without retrieval", kept(everything), False, name))
    if any(len(grid.transfer(grid.languages(task))) < len(grid.languages(task)) for task in everything):
        if transferable:
            columns.append((f"Without {_trained_on(grid)}", transferable, True, name))
        if 0 < len(kept(transferable)) < len(transferable):
            columns.append(("Without either", kept(transferable), True, name))
    return columns


def _headline(grid: Grid, comparisons: Sequence[Comparison], means: Sequence[Comparison]) -> str:
    """Means over all that was compared: the largest of many cells would owe part of its size to chance."""
    sentences = []
    rest = [task for task in grid.scored if grid.group(task) != "retrieval"]
    for name, tasks in (("", grid.scored), (" without retrieval", rest)):
        found = [grid.average(row, tasks) for row in grid.compared]
        gains = [one.difference for one in found if one and one.is_difference]
        if gains and (not name or 0 < len(rest) < len(grid.scored)):
            many = f" and {len(gains)} intermediates" if len(gains) > 1 else ""
            mean, plural = signed(float(np.mean(gains))), "s" * (len(tasks) > 1)
            sentences.append(
                f"Mean difference from the baseline{name}: {mean} points over {len(tasks)} task{plural}{many}"
            )
    if not sentences:
        return ""
    if means:
        interval = means[-1].interval
        sentences[0] += f" (95 % interval over test items {signed(interval.low)} to {signed(interval.high)})"
    if comparisons:
        holds = [one.interval.difference for one in comparisons if one.holm < SIGNIFICANT]
        up = sum(difference > 0 for difference in holds)
        sentences.append(
            f"Of {len(comparisons)} differences {up} are above zero and {len(holds) - up} below beyond the luck of "
            "test items (Holm)"
        )
    return ". ".join(sentences) + "."


def best_section(grid: Grid) -> Section | None:
    """Which row a dev set picks for each target, and how far that is from the best row."""
    if len(grid.rows) < 2:
        return None
    language = " or ".join(language_name(code) or code for code in grid.source_languages)
    reading = (
        f"Which intermediate to take for each target. “Chosen” is dev-selected: the row with the best score on "
        f"the {language} dev set of what the target was trained on, which is all that zero-shot transfer may look "
        "at. “Oracle” is the row with the best of the scores in the main table: nobody could have chosen it, it "
        "is what perfect choice would give, and it flatters more the more rows there are. The paper's “best” row "
        "lies between: it was chosen on dev sets of all languages."
    )
    outcome = numbers("score: main table", "gain: over none")
    heads = {
        "Chosen on dev": [*words("row"), *numbers("dev score"), *outcome],
        "Oracle": [*words("row"), *outcome],
    }
    columns = words("Target") + [replace(one, group=group) for group, ones in heads.items() for one in ones]
    rows, gains = [], []
    # Dev scores in different languages can't be compared: each source language has its own choice.
    for source, task in itertools.product(grid.source_languages, grid.tasks):
        found = {row: grid.number(row, task) for row in grid.rows if row[1] == source}
        shown = {row: number for row, number in found.items() if number}
        if not shown:
            continue
        dev, note = _dev_scores(grid, list(found), task)
        lacking = ", ".join(grid.row_title(row) for row in shown if row not in dev)
        note = "; ".join(filter(None, [note, f"no dev score of {lacking}" if dev and lacking else ""]))
        chosen, oracle = (
            max(dev, key=lambda row: dev[row], default=None),
            max(shown, key=lambda row: shown[row].mean),
        )
        gains.append([_gain(row, shown[row]) if row in shown else math.nan for row in (chosen, oracle)])
        rows.append([Cell(grid.title(task) + f" (from {source})" * (len(grid.source_languages) > 1))])
        rows[-1] += [Cell(grid.row_title(chosen) if chosen else "–", note=note)]
        rows[-1] += [score(dev[chosen] if chosen else math.nan)]
        rows[-1] += [
            score(shown[chosen].mean if chosen in shown else math.nan),
            change(gains[-1][0], coloured=True),
        ]
        rows[-1] += [
            Cell(grid.row_title(oracle)),
            score(shown[oracle].mean),
            change(gains[-1][1], coloured=True),
        ]
    whole = [pair for pair in gains if all(map(math.isfinite, pair))]
    ruled = [len(rows) - 1] if len(whole) > 1 else []
    if ruled:
        means = [change(float(mean), coloured=True) for mean in np.mean(whole, axis=0)]
        name = Cell(f"mean of {len(whole)} targets", strong=True)
        rows.append([name, *[Cell()] * 3, means[0], *[Cell()] * 2, means[1]])
    title = "Best intermediate for each target: dev-selected, and oracle"
    return Section("best", title.partition(":")[0], reading, [Table("best", title, columns, rows, (), ruled)])


def _gain(row: Row, number: Number) -> float:
    """The gain over the baseline; the baseline's own is zero."""
    return 0.0 if row[0] == BASELINE else number.difference


def _dev_scores(grid: Grid, rows: Sequence[Row], task: str) -> tuple[dict[Row, float], str]:
    """Returns what rows may be chosen by, mean over seeds, and what a reader must know about that."""
    kept = {
        row: [one for run in grid.cell(row, task).runs if (one := run.source_dev) is not None] for row in rows
    }
    scores = {row: float(np.mean(found)) for row, found in kept.items() if found}
    if scores:
        return scores, ""
    cells = {row: grid.cell(row, task, "dev") for row in rows}
    scores = {row: float(cell.values.mean(axis=None)) for row, cell in cells.items() if cell}
    return scores, _TARGET_DEV if scores else _NO_DEV


def language_section(grid: Grid, tests: Sequence[LanguageTest], figures: Figures) -> Section:
    """A chart for each task, and the numbers behind it; stars where a corrected test finds a difference."""
    stars = {(test.row, test.task, test.language) for test in tests if test.holm < SIGNIFICANT}
    charts, tables = [], []
    for task in grid.scored:
        charts.append(_chart(grid, task, figures))
        title = f"{grid.title(task)}: numbers for every language"
        tables.append(folded(title, _language_table(grid, task, stars)))
    reading = (
        "One line a language, from the best to the worst baseline, whose percentage stands beside the name; marks "
        "are what each intermediate adds to it. Means over seeds. Tables below say the same in numbers."
    )
    return Section("languages", "Languages", reading, [Block("row", blocks=charts), *tables])


def _ordered_languages(grid: Grid, task: str) -> list[str]:
    """The languages that were trained on first, then from the baseline's best to its worst."""
    base: dict[str, float] = {}
    for row in grid.rows:
        base = dict(grid.cell(row, task).means) | base if grid.cell(row, task) else base
    return sorted(base, key=lambda code: (code not in grid.trained_languages, -base[code], code))


def _chart(grid: Grid, task: str, figures: Figures) -> Block:
    """Gains over the baseline, whose own percentage stands beside the language; scores where there is none."""
    languages = _ordered_languages(grid, task)
    labels = [grid.language_label(code) for code in languages]
    values = {row: gains.mean() for row in grid.compared if (gains := grid.gains(row, task)) is not None}
    axis, is_gain = f"{meaning(grid.metrics(task))}, percent", bool(values)
    if is_gain:
        axis = f"gain in {meaning(grid.metrics(task))}, points"
        bases = {grid.baseline(row) for row in values}
        if len(bases) == 1:
            base = grid.cell(bases.pop(), task).means
            labels = [f"{label} {fixed(base.get(code, math.nan))}" for label, code in zip(labels, languages)]
    else:
        values = {row: cell.means for row in grid.rows if (cell := grid.cell(row, task))}
    series = {
        grid.row_title(row): [own.get(code, math.nan) for code in languages] for row, own in values.items()
    }
    title = f"{grid.title(task)}, {grid.splits(task)}"
    drawing = figures.draw(f"languages_{stem(task)}", *dots(labels, series, axis, zero=is_gain))
    return Block("chart", title, drawing)


def _language_table(grid: Grid, task: str, stars: set[tuple[Row, str, str]]) -> Table:
    """Languages as rows, intermediates as columns; the baseline in percent, the others as differences."""
    rows_here = [row for row in grid.rows if grid.cell(row, task)]
    columns = words("Language")
    for row in rows_here:
        detail = "percent" if grid.compared_with(row, task) is None else "difference"
        columns.append(Column(grid.row_title(row), detail))
    rows = []
    found = {row: grid.language_numbers(row, task) for row in rows_here}
    for code in _ordered_languages(grid, task):
        rows.append([Cell(grid.language_label(code))])
        for row in rows_here:
            number = found[row].get(code)
            if number is None:
                rows[-1].append(Cell("–", note="no score in this language"))
                continue
            shown = number_cell(number)
            star = "*" if (row, task, code) in stars else ""
            hint = fixed(number.mean, 2) if number.is_difference else ""
            rows[-1].append(replace(shown, text=shown.text + star, hint=hint))
    means = [grid.number(row, task) for row in rows_here]
    rows.append([Cell("mean", strong=True), *(number_cell(one) if one else Cell("–") for one in means)])
    notes = [
        "± is the standard deviation over seeds, of a difference that of its pairs of equal target seed."
    ]
    notes *= any(len(grid.cell(row, task).runs) > 1 for row in rows_here)
    if any(name == task for _, name, _ in stars):
        notes.append(
            "* differs from the baseline beyond the sampling of test items, Holm-corrected over this table: "
            "McNemar on the runs of the lowest seeds where items are right or wrong, else paired bootstrap."
        )
    title = f"{grid.title(task)} by language, {meaning(grid.metrics(task))}, {grid.splits(task)} split"
    return Table(f"languages_{stem(task)}", title, columns, rows, notes, [len(rows) - 2], latex=True)
