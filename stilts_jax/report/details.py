"""Sections behind the main table: best of each target, languages, seeds, published numbers, runs and their commands."""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stilts_jax.evaluation.benchmarks import BENCHMARKS
from stilts_jax.progress import counted, format_seconds
from stilts_jax.report.figures import Figures, curves, dots
from stilts_jax.report.grid import CELL, SEEDS, Grid, Row
from stilts_jax.report.names import GROUP_TITLES, language_name, meaning, metric_title, read_table
from stilts_jax.report.overview import number_cell
from stilts_jax.report.results import BASELINE, split_configs
from stilts_jax.report.significance import Comparisons
from stilts_jax.report.statistics import crossed_components, full_table
from stilts_jax.report.tables import Block, Cell, Column, Table, columns, fixed, stem

_NO_DEV = "no dev set in the source language: choosing would need target-language data"
_LARGE = ("xlm-roberta-large", "xlmr-large", "xlm-r-large", "xlmr.large")


def best_section(grid: Grid, comparisons: Comparisons) -> Block | None:
    """Which row a dev set picks for each target, and how far that is from the best row."""
    if len(grid.rows) < 2 or not grid.scored:
        return None
    others = sorted({*" ".join(grid.elsewhere.values()).split()})
    language = " or ".join(map(language_name, (*grid.source_languages, *others)))
    allowed = f"{language} dev set of what the target was trained on, all that zero-shot transfer may look at"
    if all(run.in_language for run in grid.evaluations):
        allowed = "dev set of the language that the target was trained in"
    most = "gains most" if grid.baselines else "has the best score"
    reading = (
        f"“Chosen” has the best score on the {allowed}. “Oracle” {most} in the main table: nobody could have chosen "
        "it, and it flatters more the more rows there are."
    )
    heads = columns("Target")
    heads += columns("chosen|dev score|its score: main table|its gain: over none", "Chosen on dev")
    heads += columns("oracle|oracle's score: main table|oracle's gain: over none", "Oracle")
    rows, gains = [], []
    # Dev scores in different languages can't be compared: each source language has its own choice.
    for source, task in itertools.product(grid.source_languages, grid.scored):
        here = [row for row in grid.rows if row[1] == source]
        shown = {row: number for row in here if (number := grid.number(row, task))}
        # A row may be chosen by the dev set of its training; else all that there is are target languages.
        runs = {row: grid.cells[row, task] for row in here}
        own = {row: [run.source_dev for run in of if run.source_dev is not None] for row, of in runs.items()}
        dev, note = {row: float(np.mean(values)) for row, values in own.items() if values}, ""
        if not dev:
            scores = grid.frame[(grid.frame.split == "dev") & grid.frame.main & (grid.frame.task == task)]
            of_row = {row: scores.value[scores.key.isin([run.key for run in of])] for row, of in runs.items()}
            dev = {row: float(of.mean()) for row, of in of_row.items() if of.notna().any()}
            note = "dev-selected on target languages: not zero-shot" if dev else _NO_DEV
        lacking = ", ".join(grid.row_title(row) for row in shown if row not in dev)
        note = "; ".join(filter(None, [note, f"no dev score of {lacking}" if dev and lacking else ""]))
        gained = {row: 0.0 if row in grid.baselines else one.difference for row, one in shown.items()}
        merits = {row: gain for row, gain in gained.items() if math.isfinite(gain)}
        if not any(one.is_difference for one in shown.values()):
            merits = {row: one.percent for row, one in shown.items()}  # which may be over other languages
        chosen, oracle = (max(of, key=of.__getitem__, default=None) for of in (dev, merits))
        cells = [[Cell("–"), Cell.score(math.nan), Cell.change(math.nan)] for _ in range(2)]
        for place, row in enumerate((chosen, oracle)):
            if row:
                change = Cell.change(gained[row], sure=comparisons.holds(row, task))
                cells[place] = [Cell(grid.row_title(row)), Cell.score(shown[row].percent), change]
        gains.append([cell[-1].numbers[""] for cell in cells])
        name = Cell(grid.title(task) + f" (from {source})" * (len(grid.source_languages) > 1))
        picked = [cells[0][0]._replace(note=note), Cell.score(dev[chosen] if chosen else math.nan)]
        rows.append([name, *picked, *cells[0][1:], *cells[1]])
    whole = [pair for pair in gains if all(map(math.isfinite, pair))]
    if len(whole) > 1:
        first, second = (Cell.change(float(mean), sure=False) for mean in np.mean(whole, axis=0))
        what = "targets" if len(grid.source_languages) == 1 else "rows"
        name = Cell(f"mean of {len(whole)} {what}", strong=True)
        rows.append([name, *[Cell()] * 3, first, *[Cell()] * 2, second])
    title = "Best intermediate for each target: dev-selected, and oracle"
    ruled = [len(rows) - 2] * (len(whole) > 1)
    return Block("best", title.partition(":")[0], reading, [Table("best", title, heads, rows, (), ruled)])


def language_section(grid: Grid, comparisons: Comparisons, figures: Figures) -> Block | None:
    """A chart for each task, and the numbers behind it; stars where a corrected test finds a difference."""
    charts, tables = [], []
    numbers = [(row[1], grid.number(row, task)) for row in grid.compared for task in grid.scored]
    sources = sorted({source for source, number in numbers if number and number.is_difference})
    for task in grid.scored:
        scores = {row: grid.by_language(row, task) for row in grid.rows}
        first = {code: score for row in reversed(grid.rows) for code, score in scores[row].items()}
        # What was trained on comes first, then from the baseline's best to its worst.
        codes = sorted(first, key=lambda code: (code not in grid.trained_languages, -first[code], code))
        # Gains over the baseline, whose own percentage stands beside the language; scores where there is none.
        labels, what = [grid.language_label(code) for code in codes], meaning(grid.metrics(task))
        gains = {row: grid.by_language(row, task, "difference") for row in grid.compared}
        if (compared := any(gains.values())) and len(sources) == 1:
            base = scores[BASELINE, sources[0]]
            labels = [f"{label} {fixed(base.get(code, math.nan))}" for label, code in zip(labels, codes)]
        values, axis = (gains, f"gain in {what}, points") if compared else (scores, f"{what}, percent")
        series = {grid.row_title(row): [of.get(one, math.nan) for one in codes] for row, of in values.items()}
        drawing, title = dots(labels, series, axis, zero=compared), f"{grid.title(task)}, {grid.split(task)}"
        charts.append(figures.draw(f"languages_{stem(task)}", title, drawing))
        table = _language_table(grid, task, codes, comparisons)
        tables.append(Block("folded", f"{grid.title(task)}: numbers for every language", blocks=[table]))
    beside = ", whose percentage stands beside the name" * (len(sources) == 1)
    marks = f"baseline{beside}; marks are what each intermediate adds to it"
    order = f"One line a language, from the best to the worst {marks if sources else 'score'}."
    reading = f"{order} Means over seeds. Tables below say the same in numbers."
    blocks = [Block("row", blocks=charts), *tables]
    return Block("languages", "Languages", reading, blocks) if charts else None


def _language_table(grid: Grid, task: str, codes: Sequence[str], comparisons: Comparisons) -> Table:
    """Languages as rows, intermediates as columns; the baseline in percent, the others as differences."""
    here = {row: number for row in grid.rows if (number := grid.number(row, task))}
    tests = {row: comparisons.languages.get((row, task), {}) for row in here}

    def cell(row: Row, code: str) -> Cell:
        number, test = grid.language_numbers.get((*row, task, code)), tests[row].get(code)
        if number is None:
            return Cell("–", note="no score in this language")
        if here[row].is_difference and not number.is_difference:
            return Cell("–", note="the baseline has no score in this language")
        if test is None:
            return number_cell(number, sure=False)
        low, high = test.interval.low, test.interval.high
        shown = number_cell(number, sure=test.holds, low=low, high=high, holm=test.holm)
        return shown._replace(text=shown.text + "*" * test.holds)

    rows = [[Cell(grid.language_label(code)), *(cell(row, code) for row in here)] for code in codes]
    rows.append([Cell("mean", strong=True)])
    for row, number in here.items():
        interval = comparisons.interval(row, [task])
        rows[-1].append(number_cell(number, interval, sure=comparisons.holds(row, task)))
    notes = ["±: standard deviation over seeds, of a difference over its pairs of equal target seed."]
    notes *= any(len(grid.cells[row, task]) > 1 for row in here)
    if any(test.holds for of_row in tests.values() for test in of_row.values()):
        notes.append("* differs from the baseline beyond noise, Holm-corrected over this table.")
    kinds = ("percent", "difference")
    heads = [Column(grid.row_title(row), kinds[number.is_difference]) for row, number in here.items()]
    title = f"{grid.title(task)} by language, {meaning(grid.metrics(task))}, {grid.split(task)} split"
    heads, ruled = [*columns("Language"), *heads], [len(rows) - 2]
    return Table(f"languages_{stem(task)}", title, heads, rows, notes, ruled, latex=True)


def layer_section(grid: Grid, figures: Figures) -> Block | None:
    """Retrieval by the layer whose states are compared, where all were scored (``model.sweep_layers``)."""
    parts = grid.frame.split.str.extract(r"^(.*)-layer(\d+)$")
    swept = grid.frame.assign(split=parts[0], layer=parts[1]).dropna(subset="layer").astype({"layer": int})
    # Of the runs and languages that the other tables show.
    same = ["key", "task", "split", "language", "metric"]
    swept = swept[[*same, "layer", "value"]].merge(grid.shown.drop(columns="value"), on=same)
    if swept.empty:
        return None
    by_run = swept.groupby([*CELL, *SEEDS, "layer"]).value.mean()
    means = by_run.groupby([*CELL, "layer"]).mean().unstack()
    others, charts, rows = [row for row in grid.rows if row not in grid.baselines], [], []
    for task in (task for task in grid.scored if task in set(swept.task)):
        lines: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for row in (row for row in grid.rows if (*row, task) in means.index):
            values = means.loc[(*row, task)]
            place = others.index(row) if row in others else -1
            lines[grid.row_title(row), place] = list(values.dropna().items())
            shown = ("–" if math.isnan(value) else value for value in values)
            rows.append([grid.title(task), grid.row_title(row), *shown])
        name, what = f"layers_{stem(task)}", f"{meaning(grid.metrics(task))}, percent"
        drawing = curves(lines, what, "layer (0: the embeddings)")
        charts.append(figures.draw(name, f"{grid.title(task)} by layer", drawing, paper=True))
    reading = (
        "Retrieval without training compares means of one layer's states, over all of a sentence's tokens. Means over "
        "languages, then seeds. To choose a layer by these scores is not zero-shot."
    )
    heads = "|".join(["Target", "Intermediate", *map(str, means.columns)])
    table = Table.plain("layers", "Score by layer", heads, rows)
    return Block("layers", "Layers", reading, [Block("row", blocks=charts), table])


def seed_section(grid: Grid) -> Block | None:
    """Variance components for each target, and which runs collapsed."""
    if not grid.scored:
        return None
    reading = (
        "How much of the spread over runs comes from the seed of the intermediate training, of the target training, "
        "or neither: standard deviations in points. From three seeds one can be off by a factor of two."
    )
    found: dict[tuple[str, str], list[Sequence[float]]] = {}
    order = sorted(grid.rows, key=lambda row: row in grid.baselines)
    for task, row in itertools.product(grid.scored, order):
        table = full_table(grid.by_seeds(row, [task], "value"))
        if table.size > 1:
            title = grid.title(task) + " (baseline)" * (row in grid.baselines)
            seeds = " x ".join(map(str, table.shape))
            found.setdefault((title, seeds), []).append(crossed_components(table))
    rows = []
    for names, parts in found.items():
        shown = (Cell.score(math.sqrt(max(one, 0.0)), 2) for one in np.mean(parts, axis=0))
        rows.append([*names, *shown, len(parts)])
    heads = "Target|seeds: intermediate x target|intermediate seed|target seed|rest|rows: pooled"
    note = (
        "Mean variances of rows of the same design (method of moments, two-way random effects; below zero: 0.0). "
        "Where only one kind of seed varies, its column includes the rest."
    )
    if not rows:
        reading = "No number here has runs that differ in one seed alone, to compare. Run with seeds=3."
    tables = [Table.plain("seeds", "Standard deviation by source", heads, rows, [note])] * bool(rows)
    lost = ", ".join(run.name for run in grid.runs if run.collapsed) or "none"
    chance = f"Runs that ended at chance level, where it is known (labels and choices): {lost}."
    return Block("seeds", "Seeds", reading, [*tables, Block("text", text=chance)])


def published_section(grid: Grid, wanted: bool | None) -> Block | None:
    """Numbers of others beside; None for ``wanted`` shows them where the encoder is XLM-R Large by its name."""
    table = read_table("published.csv")
    table = table.assign(values=table["values"].str.split()).explode("values", ignore_index=True)
    words, is_mean = table["values"].str.partition(":"), table.task == "mean"
    language, task = words[0].mask(is_mean, "mean"), table.task.mask(is_mean, words[0])
    table = table.assign(task=task, language=language, value=words[2].astype(float))
    note = "The average of XLM-R Large over the nine tasks of XTREME is given as 68.1 and as 68.2."
    tables = [
        _beside(grid, "published", "Means over languages, percent", table[is_mean], [note]),
        _beside(grid, "published_languages", "By language, percent", table[~is_mean]),
    ]
    reading = (
        f"Numbers of others beside the rows of this grid (encoder: {', '.join(grid.encoders) or 'not named'}), as "
        "read in the source named. X-STILTs is the best intermediate for each task, chosen on dev. A gap of a few "
        "points may be the split, the layer of retrieval, or the seed."
    )
    shown = [table for table in tables if table.rows]
    if wanted is None:
        wanted = bool(shown) and any(name in encoder.lower() for encoder in grid.encoders for name in _LARGE)
    nothing = Block("text", text="No published number is of a target and a metric that are here.")
    return Block("published", "Published numbers", reading, shown or [nothing]) if wanted else None


def _beside(grid: Grid, name: str, title: str, published: pd.DataFrame, notes: Sequence[str] = ()) -> Table:
    """A line for what was published: the numbers of all who did, and those of the grid's rows."""
    own = list(grid.own) if grid.benchmark == "XTREME" else []
    # The published means are of its languages.
    xtreme = {task.name: task for task in BENCHMARKS["xtreme"].values()}
    wholes = {group: [task for task in own if grid.group(task) == group] for group in GROUP_TITLES}
    wholes["average"] = own
    by_language = grid.shown.groupby([*CELL, "metric", "language"]).value.mean()

    def here(row: Row, task: str, metric: str, code: str) -> float:
        if task in wholes:
            average = grid.average(row, wholes[task])
            return average.percent if average and not average.missing else math.nan
        if code == "mean":
            return grid.metric_means.get((*row, task, metric), (math.nan,))[0]
        return by_language.get((*row, task, metric, code), math.nan)

    who = []
    for model, source, split in zip(published.model, published.source, published.split):
        who.append(", ".join([model, source, split][: 2 + (not source.endswith(split))]))
    keys = ["task", "metric", "language"]
    wide = published.assign(who=who).pivot_table("value", keys, "who", sort=False)
    ours = {what: [here(row, *what) for row in grid.rows] for what in wide.index}
    wide = wide[[any(map(math.isfinite, ours[what])) for what in wide.index]].dropna(axis=1, how="all")
    rows = []
    for (task, metric, code), numbers in wide.iterrows():
        target, split = GROUP_TITLES.get(task, "All"), ""
        if task not in wholes:
            target, split = grid.title(task), grid.split(task)
        label = code if code == "mean" else grid.language_label(code)
        rows.append([Cell(target, split), Cell(metric_title(metric)), Cell(label), *map(Cell.score, numbers)])
        for row, value in zip(grid.rows, ours[task, metric, code]):
            # A mean over other languages than the published one's.
            parts = wholes.get(task, [task]) if code == "mean" and math.isfinite(value) else []
            names = [f"{grid.title(one)} " * (len(parts) > 1) for one in parts]
            fewer = [name + of for name, one in zip(names, parts) if (of := grid.coverage(one, row, xtreme))]
            rows[-1].append(
                Cell.score(value)._replace(note=f"languages: {', '.join(fewer)}" if fewer else "")
            )
    heads = columns("Target|metric|language") + [Column(who, group="published") for who in wide]
    heads += [Column(grid.row_title(row), group="this grid") for row in grid.rows]
    return Table(name, title, heads, rows, notes)


def run_section(grid: Grid, broken: Mapping[str, str], figures: Figures) -> Block:
    """Learning curves, throughput, remarks, what failed."""
    reading = "How training went and what it cost. A curve is the training loss of one run."
    order = [BASELINE, *(row[0] for row in grid.rows), *(run.intermediate for run in grid.runs)]
    names = list(dict.fromkeys(order))
    lines: dict[str, dict[tuple[str, int], list]] = {"Intermediate trainings": {}}
    for run in sorted(grid.runs, key=lambda run: names.index(run.intermediate)):
        if run.curve and (run.target or run.stage == "intermediate"):
            title = f"{grid.title(run.target)}, target training" if run.target else "Intermediate trainings"
            line = grid.intermediate_label(run.intermediate), names.index(run.intermediate) - 1
            # Several of one name are one line with gaps.
            lines.setdefault(title, {}).setdefault(line, []).extend([*run.curve, (math.nan, math.nan)])
    drawn = {title: curves(of, "training loss") for title, of in lines.items() if of}
    charts = [figures.draw(f"curves_{stem(title)}", title, drawing) for title, drawing in drawn.items()]
    remarks: dict[tuple[bool, str], list[str]] = {}
    for run in grid.runs:
        for note in run.notes or ("selected on target-language data",) * (not run.zero_shot):
            remarks.setdefault((run.zero_shot, note), []).append(run.name)
    # What is not zero-shot comes first.
    marks, heads = (Cell("NO", strong=True), Cell("yes")), "Remark|zero-shot|phases|for instance"
    rows = [[note, marks[good], len(names), names[0]] for (good, note), names in sorted(remarks.items())]
    noted = Table.plain("selection", "Remarks on data and selection", heads, rows)
    # What intermediate trainings reached on their own tasks: a failed one explains its row.
    frame, reached = grid.all_scores, list[list]()
    shown = frame[(frame.stage == "intermediate") & frame.reported & frame.main]
    for (name, task, split), part in shown.groupby(["intermediate", "task", "split"]):
        metrics, values = meaning(list(dict.fromkeys(part.metric))), part.groupby("key").value.mean()
        what = grid.intermediate_label(name), grid.title(task), metrics, split
        reached.append([*what, float(values.mean()), float(values.std()), len(values)])
    heads = "Intermediate|its task|metric|split|score|sd: over seeds|runs"
    own = Table.plain("intermediates", "Intermediate trainings on their own tasks", heads, reached)
    tables = [table for table in (own, _throughput(grid), noted) if table.rows]
    drawings = Block("folded", "Learning curves", blocks=[Block("row", blocks=charts)])
    blocks: list[Block | Table] = [*[drawings] * bool(charts), *tables]
    tuned = {grid.title(task): 0 for run in grid.evaluations for task, of in run.tuned.items() if of}
    # A task whose own dev set is what it reports has no such score.
    if (tuned or grid.shown.zero_shot.any()) and all(run.zero_shot for run in grid.evaluations):
        claim = "checkpoint was selected on data of a target language"
        but = f"No {claim}, but thresholds of {', '.join(tuned)} were tuned on it."
        blocks.append(Block("text", text=but if tuned else f"Zero-shot: no {claim}."))
    later = "a later attempt failed"
    problems = [(run.name, "failed", run.error) for run in grid.runs if run.error]
    problems += [(run.name, later, run.later_error) for run in grid.runs if run.later_error]
    problems += [(path, "left out", reason) for path, reason in broken.items()]
    table = Table.plain("problems", "Phases without a result", "Phase|What|Why", problems)
    fine = Block("text", text="No phase failed, and every result file could be read.")
    return Block("runs", "Runs", reading, [*blocks, table if problems else fine])


def _throughput(grid: Grid) -> Table:
    fields = ["steps", "examples_per_second", "real_tokens_per_second", "padding_share", "seconds"]
    runs = {run.key: run for run in grid.runs if not run.error}.values()  # one of those that share a model
    frame = pd.DataFrame([run.throughput for run in runs]).reindex(columns=fields)
    names = [f"{grid.title(run.target or run.intermediate)} ({run.stage})" for run in runs]
    frame = frame.apply(pd.to_numeric, errors="coerce").assign(training=names)
    rows = []
    for name, part in frame[frame.steps > 0].groupby("training", sort=False):  # retrieval takes no steps
        means = part[fields].mean()
        rates = [f"{v:,.0f}" if v >= 10 else fixed(v, 2) for v in means[fields[:3]]]
        times = [format_seconds(v) for v in (means.seconds, part.seconds.sum())]
        texts = [*rates, f"{100 * means.padding_share:.0f} %", *times]
        shown = zip(texts, [*means, part.seconds.sum()])
        rows.append([name, len(part), *(Cell(text, numbers={"": value}) for text, value in shown)])
    heads = "Training|runs|steps|examples/s|real tokens/s|padding|time: a run|time: all runs"
    note = f"Means over runs; {format_seconds(frame.seconds.sum())} in all."
    return Table.plain("throughput", "Throughput", heads, rows, [note])


def repeat_section(grid: Grid) -> Block:
    """Commands, configurations, seeds, data."""
    reading = (
        "The same command, in the folder where it was given, runs only what is missing: to repeat a cell, remove all "
        "folders of its phases' keys (below). A phase's key is a hash of what its training depends on."
    )
    commands = dict.fromkeys(str(run.environment.get("command") or "") for run in grid.runs)
    machine, finished = ("device", "device_count", "versions"), [run for run in grid.runs if not run.error]
    configs = [run.config | {name: run.environment.get(name) for name in machine} for run in finished]
    common, _ = split_configs(configs)
    phases = []
    for run in grid.runs:
        *seeds, best = ("–" if one is None else str(one) for one in (*run.seeds, run.best_step))
        names = run.name, run.folder.name, ", ".join(map(grid.title, run.tasks)) or "–", ", ".join(seeds)
        state = "failed" if run.error else "at chance" if run.collapsed else "finished"
        phases.append([*names, run.key, run.parent or "–", best, state])
    heads = "Phase|folder|scores|seeds: intermediate, target|key|parent|best step|state"
    splits = [
        (task, split, str(one.get("examples") or counted(len(one.get("languages") or ()), "language")), one)
        for run in grid.runs
        for task, by_split in run.data.items()
        for split, one in by_split.items()
    ]
    data = Counter((*names, str(one.get("fingerprint", "?"))) for *names, one in splits)
    notes = ["A split with several fingerprints was not the same data in all phases."]
    notes *= len({names[:2] for names in data}) < len(data)
    rows = [[*names, count] for names, count in sorted(data.items())]
    table = Table.plain("data", "Data", "Task|split|examples|fingerprint|phases", rows, notes)
    same = [Block("code", text=json.dumps(common, indent=2, ensure_ascii=False, sort_keys=True, default=str))]
    secret = r"(?i)(--[\w.-]*(?:token|secret|password|key|credentials)[= ])\S+"
    typed = re.sub(secret, r"\1...", "\n".join(filter(None, commands)))
    blocks = [
        Block("code", text=typed or "no command was recorded"),
        Block("folded", "Phases, seeds and keys", blocks=[Table.plain("phases", "Phases", heads, phases)]),
        Block("folded", "Configuration, hardware and versions of all phases", blocks=same),
        Block("folded", "Data", blocks=[table]),
    ]
    return Block("repeat", "Reproducibility", reading, blocks)
