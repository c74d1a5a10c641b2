"""What tasks there are, where their data was found, what is missing, and examples as a model will read them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields as fields_of
from textwrap import fill

from stilts_jax.errors import StiltsError
from stilts_jax.tasks.sources import read
from stilts_jax.tasks.sources.read import DataSource
from stilts_jax.tasks.spec import UNKNOWN_LABEL, ChoiceExample, Example, Task

_ORDER = ("train", "dev", "dev_mismatched", "test")
_MOST_SHOWN = 6  # languages of one split that the table lists as missing; `stilts tasks TASK` lists them all
_TEXTS = ("text", "pair", "words", "prompt", "question", "context")  # the fields whose pieces are shown
_LONGEST = 400  # characters of a text and pieces of it that are shown
_MOST_PIECES = 60


def list_splits(task: Task, source: DataSource) -> tuple[str, ...]:
    """Returns the splits that a task can have in its kind of source, and in another where that lacks them."""
    splits = ((one.kind, split) for one in task.sources for split in one.splits)
    known = {split for kind, split in splits if kind == source.kind_of(task, split)}
    return (*(split for split in _ORDER if split in known), *sorted(known.difference(_ORDER)))


def wanted_languages(task: Task, split: str) -> tuple[str, ...]:
    """Returns the languages that a split is needed in; none if the task does without it."""
    if split == "train":  # in one language; a task that is trained on others needs none of its own
        return () if task.train_on or not task.languages else (task.source_language,)
    # What was only translated for training is selected on English.
    if "@" in task.name or split not in (task.selection, task.reported):
        return ()
    return task.split_languages.get(split, task.languages)


def expected_count(task: Task, split: str, language: str) -> int | None:
    """Returns how many examples the released data has; None where that isn't known."""
    count = task.counts.get(split)
    return count.get(language) if isinstance(count, Mapping) else count


def _look(task: Task, split: str, source: DataSource) -> tuple[tuple[str, ...], list[str]]:
    """Returns the languages that a split is there in (of "mnli@de", only those that it can use), and the missing."""
    there = read.available_languages(task, split, source, beyond="@" not in task.name)
    return there, [language for language in wanted_languages(task, split) if language not in there]


def read_part(
    task: Task, split: str, language: str, source: DataSource
) -> tuple[Sequence[Example], int, int]:
    """Returns examples (or queries), how many there are of what is counted, and how many rows were skipped."""
    if any(one.build for part in read.sources_of(task, split, source).values() for one in part):
        pools = read.read_retrieval(task, split, language, source)
        # Only a mining task's count is of pairs: its pools hold much besides.
        counted = pools.gold if task.retrieval == "mining" and pools.gold else pools.queries
        return pools.queries, len(counted), 0
    reading = read.read_counted(task, split, language, source)
    return reading.examples, len(reading.examples), len(reading.skipped)


def format_inventory(tasks: Iterable[Task], source: DataSource) -> str:
    """Returns a table with a row for each task, without reading data."""
    header = ("task", "kind", "metric", "languages", "rows, released", "languages found", "fetched from")
    return format_table((*header, "missing"), [_describe(task, source) for task in tasks])


def _describe(task: Task, source: DataSource) -> tuple[str, ...]:
    found, missing, sizes = [], [], []
    for split in list_splits(task, source):
        there, absent = _look(task, split, source)
        found += [f"{split} {len(there)}"] * bool(there)
        if absent:
            listed = f"{len(absent)} languages" if len(absent) > _MOST_SHOWN else " ".join(absent)
            missing.append(f"{split} {listed}" if there else split)
    for split, count in task.counts.items():
        numbers = count.values() if isinstance(count, Mapping) else [count]
        ends = dict.fromkeys((min(numbers), max(numbers)))  # one where they are equal
        sizes.append(f"{split} " + "-".join(f"{number:,}" for number in ends))
    languages = len(task.languages or read.available_languages(task, "train", source))
    kinds = dict.fromkeys(one.kind for one in task.sources if one.kind != "files")
    lists = (", ".join(part) or "-" for part in (sizes, found, kinds, missing))
    return (task.name, task.kind, task.metric, str(languages), *lists)


def format_paths(task: Task, source: DataSource) -> str:
    """Returns every path of a task that was found, by split and language, and what was looked for in vain."""
    lines = [f"{task.name}, below {source.root}:"]
    listed: list[str] = []  # languages that a line named already: of many, once is enough
    for split in list_splits(task, source):
        there, absent = _look(task, split, source)
        groups = _group_by_path(task, split, there, source)
        parts = [(f"{split}: {paths}", codes) for paths, codes in groups.items()]
        if absent or not there:
            patterns = ", ".join(read.list_patterns(task, split, source))
            parts.append((f"{split} not found; looked for {patterns}", absent))
        for text, codes in parts:
            same = len(codes) > 1 and codes == listed
            lines.append(f"  {text}, the same languages" if same else _wrap(text, codes, task))
            listed = codes if len(codes) > 1 else listed
    offers = dict.fromkeys(f"{one.kind}: {one.name}" for one in task.sources if one.kind != "files")
    if offers:
        lines.append(f"  `stilts prepare {task.name} --source=...` fetches it from {', '.join(offers)}")
    if task.train_on:
        lines.append(f"  trained on {', then '.join(task.train_on)}")
    return "\n".join(lines)


def _group_by_path(task: Task, split: str, there: Iterable[str], source: DataSource) -> dict[str, list[str]]:
    """Returns languages by their files, with ``{language}`` where paths differ by a code only."""
    groups: dict[str, dict[str, str]] = {}
    for language in there:
        try:
            paths = read.find_paths(task, split, language, source)
            exact = ", ".join(str(path).removeprefix(f"{source.root}/") for path in paths)
        except StiltsError as error:
            exact = str(error).replace("\n", ";")
        code = re.escape(_their_code(task, language))
        pattern = re.sub(rf"(?<![a-zA-Z]){code}(?![a-zA-Z])", "{language}", exact)
        groups.setdefault(pattern, {})[language] = exact
    return {
        pattern if len(found) > 1 else "".join(found.values()): list(found)
        for pattern, found in groups.items()
    }


def _their_code(task: Task, language: str) -> str:
    """Returns the code that a task's data use for a language."""
    return next((one.codes[language] for one in task.sources if language in one.codes), language)


def _wrap(text: str, languages: Sequence[str], task: Task) -> str:
    """Returns a line, and below it languages with the codes of the data where these are others."""
    theirs = {language: _their_code(task, language) for language in languages}
    codes = [ours if ours == code else f"{ours}={code}" for ours, code in theirs.items()]
    if len(codes) < 2:
        return f"  {text}" + "".join(f" ({code})" for code in codes)
    below = fill(" ".join(codes), 118, initial_indent="    ", subsequent_indent="    ")
    return f"  {text}, {len(codes)} languages:\n{below}"


def format_examples(
    task: Task, source: DataSource, cut: Callable[[str], Sequence[str]] | None = None, count: int = 3
) -> str:
    """Returns the first examples as the model will read them, of the split that is reported if it is there.

    If ``cut`` is given, which cuts a text into the pieces of an encoder's vocabulary, these are shown too.
    """
    task = read.with_labels(task, source)
    for split in filter(None, (task.reported, task.selection, "train")):
        languages, _ = _look(task, split, source)
        if not languages:
            continue
        language = task.source_language if task.source_language in languages else languages[0]
        examples, *_ = read_part(task, split, language, source)
        lines = [f"{task.name} {split} {language}, {min(count, len(examples))} of {len(examples)} examples:"]
        for example in examples[:count]:
            for name in (one.name for one in fields_of(example)):
                text = _show(task, example, name)
                pieces = cut(text) if cut and text and name in _TEXTS else ()
                more = f" ... ({len(text):,} characters)" if len(text) > _LONGEST else ""
                lines += [f"  {name}: {text[:_LONGEST]}{more}"] if text else []
                more = " ..." if len(pieces) > _MOST_PIECES else ""
                lines += (
                    [f"    {len(pieces)} pieces: {' '.join(pieces[:_MOST_PIECES])}{more}"] if pieces else []
                )
            lines.append("")
        return "\n".join(lines[:-1])
    return f"{task.name}: no split is there"


def _show(task: Task, example: Example, name: str) -> str:
    """Returns a field of an example as text; labels and tags are names, answers are texts."""
    value, labels = getattr(example, name), (*task.labels, UNKNOWN_LABEL)
    if value is None or value is False:
        return ""
    if name == "label":
        return f"{value} ({example.choices[value]})" if isinstance(example, ChoiceExample) else labels[value]
    if name in ("words", "tags"):
        return " ".join(value if name == "words" else (labels[tag] for tag in value))
    if name == "answers" and task.kind == "span":
        return " | ".join(f"{text} (at {start})" for text, start in value)
    return " | ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns aligned columns; columns of numbers stand on the right."""
    columns = []
    for name, *cells in zip(header, *rows):
        width = max(map(len, (name, *cells)))
        numeric = all(cell.replace(",", "").isdecimal() or cell in ("", "-") for cell in cells)
        columns.append([cell.rjust(width) if numeric else cell.ljust(width) for cell in (name, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns))
