"""Sections on the runs themselves, and on how to repeat them."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from stilts_jax.progress import format_seconds
from stilts_jax.report.figures import Figures, curves
from stilts_jax.report.grid import Grid
from stilts_jax.report.names import meaning
from stilts_jax.report.results import BASELINE, make_frame, split_configs
from stilts_jax.report.tables import Block, Cell, Section, Table, fixed, folded, plain_table, stem


def run_section(grid: Grid, broken: Mapping[str, str], figures: Figures) -> Section:
    """Learning curves, throughput, remarks, what failed."""
    reading = "How training went and what it cost. A curve is the training loss of one run."
    blocks: list[Block | Table] = [folded("Learning curves", Block("row", blocks=_curves(grid, figures)))]
    blocks += [table for table in (_own_scores(grid), _throughput(grid), _notes(grid)) if table.rows]
    if grid.scored and all(run.zero_shot for run in grid.evaluations):
        tuned = {grid.title(task): 0 for run in grid.evaluations for task, of in run.tuned.items() if of}
        claim = "checkpoint was selected on data of a target language"
        but = f"No {claim}, but thresholds of {', '.join(tuned)} were tuned on it."
        blocks.append(Block("text", text=but if tuned else f"Zero-shot: no {claim}."))
    problems = [(run.name, "failed", run.error) for run in grid.runs if run.error]
    later = "a later attempt failed"
    problems += [(run.name, later, run.later_error) for run in grid.runs if run.later_error]
    problems += [(path, "left out", reason) for path, reason in broken.items()]
    if problems:
        blocks.append(plain_table("problems", "Phases without a result", "Phase|What|Why", problems))
    else:
        blocks.append(Block("text", text="No phase failed, and every result file could be read."))
    return Section("runs", "Runs", reading, blocks)


def _curves(grid: Grid, figures: Figures) -> list[Block]:
    shown = [*(row[0] for row in grid.rows), *(run.intermediate for run in grid.intermediates)]
    names = list(dict.fromkeys([BASELINE, *shown]))
    charts: dict[str, dict[tuple[str, int], list]] = {"Intermediate trainings": {}}
    for run in sorted(grid.runs, key=lambda run: names.index(run.intermediate)):
        if run.curve and (run.target or run.stage == "intermediate"):
            title = f"{grid.title(run.target)}, target training" if run.target else "Intermediate trainings"
            line = grid.intermediate_label(run.intermediate), names.index(run.intermediate) - 1
            # Several of one name are one line with gaps.
            charts.setdefault(title, {}).setdefault(line, []).extend([*run.curve, (math.nan, math.nan)])
    drawn = [(title, curves(lines, "training loss")) for title, lines in charts.items() if lines]
    return [figures.draw(f"curves_{stem(title)}", title, drawing) for title, drawing in drawn]


def _own_scores(grid: Grid) -> Table:
    """What intermediate trainings reached on their own tasks: a failed one explains its row."""
    frame = make_frame(grid.intermediates)
    rows = []
    parts = frame[frame.reported & frame.main].groupby(["intermediate", "task", "split"])
    for (name, task, split), part in parts:
        metrics = meaning(list(dict.fromkeys(part.metric)))
        what = grid.intermediate_label(name), grid.title(task), metrics, split
        values = part.groupby("key").value.mean()
        rows.append([*what, float(values.mean()), float(values.std()), len(values)])
    heads = "Intermediate|its task|metric|split|score|sd: over seeds|runs"
    return plain_table("intermediates", "Intermediate trainings on their own tasks", heads, rows)


def _throughput(grid: Grid) -> Table:
    fields = ["steps", "examples_per_second", "real_tokens_per_second", "padding_share", "seconds"]
    frame = pd.DataFrame([run.throughput for run in grid.runs]).reindex(columns=fields)
    names = [f"{grid.title(run.target or run.intermediate)} ({run.stage})" for run in grid.runs]
    frame = frame.apply(pd.to_numeric, errors="coerce").assign(training=names)
    rows = []
    for name, part in frame[frame.steps > 0].groupby("training", sort=False):  # retrieval takes no steps
        means = part[fields].mean()
        shown = [_valued(v, f"{v:,.0f}" if v >= 10 else fixed(v, 2)) for v in means[fields[:3]]]
        padding = _valued(means.padding_share, f"{100 * means.padding_share:.0f} %")
        times = [_valued(v, format_seconds(v)) for v in (means.seconds, part.seconds.sum())]
        rows.append([name, len(part), *shown, padding, *times])
    heads = "Training|runs|steps|examples/s|real tokens/s|padding|time: a run|time: all runs"
    note = f"Means over runs; {format_seconds(frame.seconds.sum())} in all."
    return plain_table("throughput", "Throughput", heads, rows, [note])


def _valued(value: float, text: str) -> Cell:
    return Cell(text, numbers={"": float(value)})


def _notes(grid: Grid) -> Table:
    """Remarks on selection, with how many phases carry each; what is not zero-shot comes first."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for run in grid.runs:
        for note in run.notes or ("selected on target-language data",) * (not run.zero_shot):
            groups.setdefault((run.zero_shot, note), []).append(run.name)
    marks = Cell("NO", strong=True), Cell("yes")
    rows = [[note, marks[good], len(runs), runs[0]] for (good, note), runs in sorted(groups.items())]
    heads = "Remark|zero-shot|phases|for instance"
    return plain_table("selection", "Remarks on model selection", heads, rows)


def repeat_section(grid: Grid) -> Section:
    """Commands, configurations, seeds, data."""
    reading = (
        "The same command, in the folder where it was given, runs only what is missing: to repeat a cell, remove the "
        "folders of its phases (below). A phase's key is a hash of what its training depends on."
    )
    commands = dict.fromkeys(str(run.environment.get("command") or "") for run in grid.runs)
    machine, finished = ("device", "device_count", "versions"), [run for run in grid.runs if not run.error]
    configs = [run.config | {name: run.environment.get(name) for name in machine} for run in finished]
    common, _ = split_configs(configs)
    phases = []
    for run in grid.runs:
        seeds = ", ".join("–" if seed is None else str(seed) for seed in run.seeds)
        scored = ", ".join(map(grid.title, run.tasks)) or "–"
        best = "–" if run.best_step is None else str(run.best_step)
        state = "failed" if run.error else "at chance" if run.collapsed else "finished"
        phases.append([run.name, run.folder.name, scored, seeds, run.key, run.parent or "–", best, state])
    heads = "Phase|folder|scores|seeds: intermediate, target|key|parent|best step|state"
    data: Counter[tuple[str, ...]] = Counter()
    for run in grid.runs:
        for task, by_split in run.data.items():
            for split, one in by_split.items():
                count = one.get("examples") or f"{len(one.get('languages') or ())} languages"
                data[task, split, str(count), str(one.get("fingerprint", "?"))] += 1
    several = len({names[:2] for names in data}) < len(data)
    notes = ["A split with several fingerprints was not the same data in all phases."] * several
    rows = [[*names, count] for names, count in sorted(data.items())]
    table = plain_table("data", "Data", "Task|split|examples|fingerprint|phases", rows, notes)
    blocks = [
        Block("code", text=redact("\n".join(filter(None, commands))) or "no command was recorded"),
        folded("Phases, seeds and keys", plain_table("phases", "Phases", heads, phases)),
        folded("Configuration, hardware and versions of all phases", Block("code", text=_pretty(common))),
    ]
    return Section("repeat", "Reproducibility", reading, [*blocks, folded("Data", table)])


def _pretty(record: Mapping[str, Any]) -> str:
    return redact(json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True, default=str))


def redact(text: str) -> str:
    """Takes out names and passwords in URLs, and the values of options for secrets."""
    text = re.sub(r"://[^/@\s\"']+@", "://", text)
    return re.sub(r"(?i)(--[\w.]*(?:token|secret|password|key|credentials)[= ])\S+", r"\1...", text)
