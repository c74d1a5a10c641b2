"""What tasks there are, how big they are, where their data was found and what is missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stilts_jax.errors import StiltsError
from stilts_jax.tasks.sources.locate import list_patterns
from stilts_jax.tasks.sources.read import DataSource, available_languages, find_paths
from stilts_jax.tasks.spec import Task

_ORDER = ("train", "dev", "dev_mismatched", "test")


@dataclass(frozen=True)
class InventoryRow:
    """One task as ``stilts tasks`` shows it.

    Attributes:
        sizes: examples of the released data by split, as text.
        found: a file that was found by split, and in how many languages more, as text; empty if none was.
        missing: splits and languages that weren't found, as text.
    """

    name: str
    kind: str
    group: str
    languages: tuple[str, ...]
    metric: str
    sizes: str
    found: str
    missing: str


def list_splits(task: Task, source: DataSource) -> tuple[str, ...]:
    """Returns the splits that a task can have in its kind of source, and in files where that lacks them."""
    splits: set[str] = set()
    for part in [part for _, part in task.sources.parts] or [task.sources]:
        splits.update(*(layout.paths for layout in part.files), *(pool.paths for pool in part.pools))
        for data_set in (*part.hub, *part.tfds):
            splits |= {split for split in data_set.splits if source.kind_of(task, split) != "files"}
    return (*(split for split in _ORDER if split in splits), *sorted(splits.difference(_ORDER)))


def wanted_languages(task: Task, split: str) -> tuple[str, ...]:
    """Returns the languages that a split is needed in; none if the task does without it."""
    if split == "train":  # in one language; a task that is trained on others needs none of its own
        return () if task.train_on or not task.languages else (task.source_language,)
    if "@" in task.name:
        return ()  # what was only translated for training is selected on English
    if split not in (task.selection, task.reported):
        return ()
    return task.split_languages.get(split, task.languages)


def expected_count(task: Task, split: str, language: str) -> int | None:
    """Returns how many examples the released data has; None where that isn't known."""
    count = task.counts.get(split)
    return count.get(language) if isinstance(count, Mapping) else count


def take_inventory(tasks: Iterable[Task], source: DataSource) -> list[InventoryRow]:
    """Returns a row for each task, without reading data."""
    return [_describe(task, source) for task in tasks]


def _describe(task: Task, source: DataSource) -> InventoryRow:
    found, missing = [], []
    for split in list_splits(task, source):
        there = available_languages(task, split, source, beyond=True)
        if there:
            try:
                paths = _list_paths(task, split, there[0], source)
            except StiltsError as error:
                missing.append(f"{split} ({error.what})")
                continue
            more = f" ({len(there)} languages)" if len(there) > 1 else ""
            found.append(f"{split} {paths[0]}{more}")
        absent = [language for language in wanted_languages(task, split) if language not in there]
        if absent and not there:
            missing.append(split)
        elif absent and split != "train":
            missing.append(f"{split} {' '.join(absent)}")
    sizes = []
    for split, count in task.counts.items():
        numbers = list(count.values()) if isinstance(count, Mapping) else [count]
        low, high = min(numbers), max(numbers)
        sizes.append(f"{split} {high:,}" if low == high else f"{split} {low:,}-{high:,}")
    return InventoryRow(
        task.name,
        task.kind,
        task.group,
        task.languages or available_languages(task, "train", source),
        task.metric,
        ", ".join(sizes),
        "; ".join(found),
        "; ".join(missing),
    )


def _list_paths(task: Task, split: str, language: str, source: DataSource) -> list[str]:
    paths = find_paths(task, split, language, source)
    return [
        str(path.relative_to(source.root) if path.is_relative_to(source.root) else path) for path in paths
    ]


def format_paths(task: Task, source: DataSource) -> str:
    """Returns every path of a task that was found, by split and language, and what was looked for in vain."""
    lines = [f"{task.name}, below {source.root}:"]
    for split in list_splits(task, source):
        there = available_languages(task, split, source, beyond=True)
        for language in there:
            try:
                paths = _list_paths(task, split, language, source)
            except StiltsError as error:
                paths = [str(error).replace("\n", ";")]
            lines.append(f"  {split} {language}: {', '.join(paths)}")
        absent = [language for language in wanted_languages(task, split) if language not in there]
        if absent or not there:
            patterns = list_patterns(task.sources, split, source.kind_of(task, split))
            codes = f" ({' '.join(absent)})" if absent else ""
            lines.append(f"  {split} not found{codes}: looked for {', '.join(patterns)}")
    if task.train_on:
        lines.append(f"  trained on {', then '.join(task.train_on)}")
    return "\n".join(lines)


def format_inventory(rows: Sequence[InventoryRow]) -> str:
    """Returns the inventory as a table to print."""
    header = ("task", "kind", "group", "languages", "metric", "released", "found", "missing")
    cells = [
        (
            row.name,
            row.kind,
            row.group,
            str(len(row.languages)),
            row.metric,
            row.sizes,
            row.found or "-",
            row.missing or "-",
        )
        for row in rows
    ]
    return format_table(header, cells)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns aligned columns; columns of numbers stand on the right."""
    table = [header, *rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(header))]
    numeric = [
        all(row[index].replace(",", "").isdecimal() or row[index] in ("", "-") for row in rows)
        for index in range(len(header))
    ]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
