"""What tasks there are, how big they are, where their data was found and what is missing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields as fields_of
from typing import Any

from stilts_jax.errors import StiltsError
from stilts_jax.tasks.sources.read import (
    DataSource,
    available_languages,
    find_paths,
    list_patterns,
    read_counted,
    read_retrieval,
    sources_of,
    with_labels,
)
from stilts_jax.tasks.spec import UNKNOWN_LABEL, Example, Task

_ORDER = ("train", "dev", "dev_mismatched", "test")
_MOST_SHOWN = 15  # languages of one split that the table lists as missing; `stilts tasks TASK` lists them all
_MAIN = ("text", "words", "prompt", "question")  # the field of an example whose pieces are shown


def list_splits(task: Task, source: DataSource) -> tuple[str, ...]:
    """Returns the splits that a task can have in its kind of source, and in another where that lacks them."""
    splits = dict.fromkeys(split for one in task.sources for split in one.splits)
    known = [
        split for split in splits if any(one.kind == source.kind_of(task, split) for one in task.sources)
    ]
    return (*(split for split in _ORDER if split in known), *sorted(set(known).difference(_ORDER)))


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


def format_inventory(tasks: Iterable[Task], source: DataSource) -> str:
    """Returns a table with a row for each task, without reading data."""
    header = ("task", "kind", "group", "languages", "metric", "released", "found", "missing")
    return format_table(header, [_describe(task, source) for task in tasks])


def _describe(task: Task, source: DataSource) -> tuple[str, ...]:
    found, missing = [], []
    for split in list_splits(task, source):
        there, absent = _look(task, split, source)
        if there:
            try:
                path = _list_paths(task, split, there[0], source)[0]
            except StiltsError as error:
                missing.append(f"{split} ({error.what})")
                continue
            found.append(f"{split} {path}" + f" ({len(there)} languages)" * (len(there) > 1))
        if absent and not there:
            missing.append(split)
        elif absent and split != "train":
            many = len(absent) > _MOST_SHOWN
            missing.append(f"{split} {f'{len(absent)} languages' if many else ' '.join(absent)}")
    sizes = []
    for split, count in task.counts.items():
        numbers = list(count.values()) if isinstance(count, Mapping) else [count]
        low, high = min(numbers), max(numbers)
        sizes.append(f"{split} {high:,}" if low == high else f"{split} {low:,}-{high:,}")
    languages = len(task.languages or available_languages(task, "train", source))
    lists = (", ".join(sizes), "; ".join(found) or "-", "; ".join(missing) or "-")
    return (task.name, task.kind, task.group, str(languages), task.metric, *lists)


def _look(task: Task, split: str, source: DataSource) -> tuple[tuple[str, ...], list[str]]:
    """Returns the languages that a split is there in, and those that are needed and missing."""
    there = available_languages(task, split, source, beyond=True)
    return there, [language for language in wanted_languages(task, split) if language not in there]


def _list_paths(task: Task, split: str, language: str, source: DataSource) -> list[str]:
    paths = find_paths(task, split, language, source)
    return [
        str(path.relative_to(source.root) if path.is_relative_to(source.root) else path) for path in paths
    ]


def format_paths(task: Task, source: DataSource) -> str:
    """Returns every path of a task that was found, by split and language, and what was looked for in vain."""
    lines = [f"{task.name}, below {source.root}:"]
    for split in list_splits(task, source):
        there, absent = _look(task, split, source)
        for language in there:
            try:
                paths = _list_paths(task, split, language, source)
            except StiltsError as error:
                paths = [str(error).replace("\n", ";")]
            lines.append(f"  {split} {language}: {', '.join(paths)}")
        if absent or not there:
            codes = f" ({' '.join(absent)})" if absent else ""
            lines.append(
                f"  {split} not found{codes}: looked for {', '.join(list_patterns(task, split, source))}"
            )
    offers = {f"{one.kind}: {one.name}": None for one in task.sources if one.kind != "files"}
    if offers:
        lines.append(f"  `stilts prepare {task.name} --source=...` fetches it from {', '.join(offers)}")
    if task.train_on:
        lines.append(f"  trained on {', then '.join(task.train_on)}")
    return "\n".join(lines)


def format_examples(
    task: Task, source: DataSource, cut: Callable[[str], Sequence[str]] | None = None, count: int = 3
) -> str:
    """Returns the first examples as the model will read them, of the smallest split that is there.

    Args:
        task: the task.
        source: where it is read from.
        cut: cuts a text into the pieces of an encoder's vocabulary; pieces are shown if it is given.
        count: how many are shown.
    """
    task = with_labels(task, source)
    for split in (task.reported, task.selection, "train"):
        languages = available_languages(task, split, source, beyond=True) if split else ()
        if not languages:
            continue
        language = task.source_language if task.source_language in languages else languages[0]
        examples: Sequence[Example]
        if any(one.build for part in sources_of(task, split, source).values() for one in part):
            examples = read_retrieval(task, split, language, source).queries
        else:
            examples = read_counted(task, split, language, source).examples
        lines = [f"{task.name} {split} {language}, {min(count, len(examples))} of {len(examples)} examples:"]
        for example in examples[:count]:
            fields = {
                field.name: _show(task, getattr(example, field.name), field.name)
                for field in fields_of(example)
            }
            lines += [f"  {name}: {text}" for name, text in fields.items() if text]
            if cut:
                text = next(fields[name] for name in _MAIN if fields.get(name))
                lines.append(f"  pieces: {' '.join(cut(text))}")
            lines.append("")
        return "\n".join(lines[:-1])
    return f"{task.name}: no split is there"


def _show(task: Task, value: Any, name: str) -> str:
    """Returns a field of an example as text; labels and tags are names, answers are texts."""
    if value is None or value is False:
        return ""
    if name == "label":
        return task.labels[value] if task.labels else str(value)
    if name == "tags":
        return " ".join((*task.labels, UNKNOWN_LABEL)[tag] for tag in value)
    if name == "words":
        return " ".join(value)
    if name == "answers":
        return " | ".join(f"{text} (at {start})" for text, start in value)
    return " | ".join(value) if isinstance(value, tuple) else str(value)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns aligned columns; columns of numbers stand on the right."""
    columns = []
    for name, *cells in zip(header, *rows):
        width = max(map(len, (name, *cells)))
        numeric = all(cell.replace(",", "").isdecimal() or cell in ("", "-") for cell in cells)
        columns.append([cell.rjust(width) if numeric else cell.ljust(width) for cell in (name, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns))
