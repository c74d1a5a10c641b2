"""The section on reproducibility: commands, configurations, seeds, data."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stilts_jax.report.benchmarks import task_title
from stilts_jax.report.document import Block, Code, Folded, Section
from stilts_jax.report.grid import Grid
from stilts_jax.report.tables import Table, cells, numbers, words


def repeat_section(grid: Grid) -> Section:
    """Commands, configurations, seeds, data."""
    reading = (
        "Everything to run a cell again. The same command finds finished phases and runs only what is missing, so a "
        "cell is repeated by removing the folders of its phases (below) and giving the command again, in the folder "
        "where it was given. A phase's key is a hash of what its training depends on."
    )
    commands = dict.fromkeys(str(run.environment.get("command") or "") for run in grid.runs)
    blocks: list[Block] = [
        Code(redact("\n".join(filter(None, commands))) or "no command was recorded"),
        Folded("Phases, seeds and keys", [_phases(grid)]),
    ]
    common, own = split_configs([run.config for run in grid.runs])
    blocks.append(Folded("Configuration that all phases share", [Code(_pretty(common))]))
    names: dict[str, list[str]] = {}
    for run, config in zip(grid.runs, own):
        names.setdefault(_pretty(config), []).append(run.name)
    text = "\n\n".join(f"# {', '.join(runs)}\n{config}" for config, runs in names.items() if config != "{}")
    if text:
        blocks.append(Folded("Configuration that differs", [Code(text)]))
    blocks.append(Folded("Data", [_data(grid)]))
    return Section("repeat", "Reproducibility", reading, blocks)


def _pretty(record: Mapping[str, Any]) -> str:
    return redact(json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True, default=str))


def redact(text: str) -> str:
    """Takes out what opens other people's doors: names and passwords in URLs, values of options for secrets."""
    text = re.sub(r"://[^/@\s\"']+@", "://", text)
    return re.sub(r"(?i)(--[\w.]*(?:token|secret|password|key|credentials)[= ])\S+", r"\1...", text)


def split_configs(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what all configurations agree on, and what each has beyond that."""
    if not configs:
        return {}, []
    common: dict[str, Any] = {}
    rest: list[dict[str, Any]] = [{} for _ in configs]
    for name in sorted({name for config in configs for name in config}):
        values = [config.get(name) for config in configs]
        if all(isinstance(value, Mapping) for value in values):
            shared, different = split_configs([value for value in values if isinstance(value, Mapping)])
            if shared:
                common[name] = shared
            for own, value in zip(rest, different):
                if value:
                    own[name] = value
        elif all(name in config for config in configs) and all(value == values[0] for value in values):
            common[name] = values[0]
        else:
            for own, config in zip(rest, configs):
                if name in config:
                    own[name] = config[name]
    return common, rest


def _phases(grid: Grid) -> Table:
    columns = [*words("Phase", "folder", "scores"), *numbers("seeds: intermediate, target")]
    columns += [*words("key", "parent"), *numbers("best step"), *words("state")]
    rows = []
    for run in grid.runs:
        seeds = ", ".join("–" if seed is None else str(seed) for seed in run.seeds)
        scored = ", ".join(task_title(task) for task in run.tasks()) or "–"
        best = run.selection.get("best_step")
        state = "failed" if run.error else "at chance" if run.collapsed else "finished"
        who = run.name, run.path.parent.name, scored, seeds, run.key, run.parent or "–"
        rows.append(cells(*who, "–" if best is None else str(best), state))
    return Table("phases", "Phases", columns, rows)


def _count(split: Mapping[str, Any]) -> str:
    if "examples" in split:
        return str(split["examples"])
    languages = split.get("languages") or ()
    return f"{len(languages)} language{'s' * (len(languages) != 1)}" if languages else "?"


def _data(grid: Grid) -> Table:
    seen: dict[tuple[str, str, str, str], int] = {}
    for run in grid.runs:
        for task, splits in run.data.items():
            for split, one in splits.items():
                key = (task, split, str(one.get("fingerprint", "?")), _count(one))
                seen[key] = seen.get(key, 0) + 1
    columns = [*words("Task", "split"), *numbers("examples"), *words("fingerprint"), *numbers("phases")]
    rows = [
        cells(task, split, examples, fingerprint, count)
        for (task, split, fingerprint, examples), count in sorted(seen.items())
    ]
    changed = {(task, split) for task, split, _, _ in seen}
    notes = []
    if len(changed) < len(seen):
        notes.append("A split with several fingerprints was not the same data in all phases.")
    return Table("data", "Data", columns, rows, notes)
