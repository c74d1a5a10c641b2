"""Prediction folders: ``TASK/test-LL.EXT``, written and read. A task's kind decides the form.

| kind | file | content |
|---|---|---|
| classify | tsv | a label per line |
| choice | jsonl | objects with ``label``, the number of the choice |
| tag | tsv | a tag per line, a blank line after each sentence |
| span | json | ``{question id: answer}`` |
| embed, mining (BUCC) | tsv | ``LLid <tab> enid``; ``thresholds.json`` beside them has each language's threshold |
| embed, nearest (Tatoeba) | tsv | for each English line the 0-based line of its translation |
| embed, ranking | json | ``{query id: [up to twenty candidate ids]}`` |

Where XTREME or XTREME-R has a format for a task, it is this one. Tasks that neither has are written alike.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.evaluation.benchmarks import OURS
from stilts_jax.files import write_json, write_whole
from stilts_jax.tasks.sources.readers import read_lines
from stilts_jax.tasks.sources.rows import Problems, read_json
from stilts_jax.tasks.spec import Task

# What a file of predictions holds, by kind or, for tasks that compare vectors, by way of retrieval.
FORMATS: Mapping[str, str] = {
    **{"classify": "labels", "choice": "choices", "tag": "tags", "span": "answers"},
    **{"mining": "pairs", "nearest": "lines", "ranking": "rankings"},
}
_EXTENSIONS = {"choices": "jsonl", "answers": "json", "rankings": "json"}
THRESHOLDS_FILE = "thresholds.json"


def format_of(task: Task) -> str:
    """What a file of the task's predictions holds: a value of ``FORMATS``."""
    found = FORMATS.get(task.retrieval or task.kind)
    if found is None:
        raise ConfigError(
            f"The task {task.name} predicts nothing that a file could hold.",
            where=f"task {task.name}, kind {task.kind}",
            fix="name a task with labels, tags, answers or retrieved candidates",
        )
    return found


def official_name(task: Task) -> str:
    """The name of the task's folder."""
    return next((theirs for theirs, ours in OURS.items() if ours == task.name), task.name)


def prediction_path(folder: str | Path, task: Task, language: str) -> Path:
    """Where the predictions of one language lie."""
    return Path(folder) / official_name(task) / f"test-{language}.{_EXTENSIONS.get(format_of(task), 'tsv')}"


def write_predictions(folder: str | Path, task: Task, language: str, predictions: Any) -> Path:
    """Writes one language's predictions, as the metric takes them (labels also as indices), where XTREME looks."""

    def name(value: Any) -> str:
        text = str(value) if isinstance(value, str) or not task.labels else task.labels[int(value)]
        return " ".join(text.split("\n"))

    form, path = format_of(task), prediction_path(folder, task, language)
    if form in ("answers", "rankings"):
        lines = [json.dumps(dict(predictions), ensure_ascii=False, indent=1)]
    elif form == "choices":
        lines = [json.dumps({"label": int(value)}) for value in predictions]
    elif form == "tags":
        lines = ["".join(f"{name(tag)}\n" for tag in tags) for tags in predictions]
    elif form == "pairs":
        lines = [f"{source}\t{english}" for source, english in predictions]
    else:
        lines = [str(int(value)) if form == "lines" else name(value) for value in predictions]
    write_whole(path, "".join(f"{line}\n" for line in lines))
    return path


def write_thresholds(folder: str | Path, task: Task, thresholds: Mapping[str, float]) -> None:
    """Stores the thresholds that were tuned on dev beside the predictions that they made."""
    write_json(Path(folder) / official_name(task) / THRESHOLDS_FILE, dict(thresholds))


def read_predictions(path: Path, task: Task) -> Any:
    """What ``write_predictions`` wrote, as the metric takes it; labels and tags as names."""
    form = format_of(task)
    if form == "tags":
        return read_tags(path)[0]
    if form in _OBJECTS:
        fits, what = _OBJECTS[form]
        content = read_json(path)
        if not isinstance(content, dict) or not all(map(fits, content.values())):
            raise DataError(f"These are not {form}.", where=str(path), fix=f"write {what}")
        return content
    parse, what, fix = _LINES[form]
    values = []
    for line, text in _lines(path):
        try:
            values.append(parse(text, task))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{text[:60]!r} is not {what}.",
                where=f"{path}:{line}",
                fix=fix.replace("LABELS", ", ".join(task.labels)),
            ) from error
    return values


def read_tags(path: Path) -> tuple[list[list[str]], list[int]]:
    """Sentences of tags, the last column where there are several, and the line where each sentence begins."""
    sentences: list[list[str]] = []
    starts: list[int] = []
    inside = False
    for line, text in _lines(path):
        if text and not inside:
            sentences.append([])
            starts.append(line)
        if text:
            sentences[-1].append(text.rpartition("\t")[2])
        inside = bool(text)
    return sentences, starts


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines without the blank ones at the end."""
    lines = [(number, text.strip()) for number, text in read_lines(path, Problems("predictions"))]
    while lines and not lines[-1][1]:
        lines.pop()
    return lines


def _parse_label(text: str, task: Task) -> str:
    value = text.rpartition("\t")[2].strip()  # the last column where there are several
    if task.labels and value not in task.labels:
        raise ValueError
    return value


def _parse_index(text: str, task: Task) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError
    return int(text)


def _parse_pair(text: str, task: Task) -> tuple[str, str]:
    source, english = text.split("\t")
    if not source or not english:
        raise ValueError
    return source.strip(), english.strip()


# How a line is read, what it is, and what to do where it is something else.
_LINES: Mapping[str, tuple[Callable[[str, Task], Any], str, str]] = {
    "labels": (
        *(_parse_label, "a label"),
        "the labels are LABELS; in gold: another text means that gold is blanked",
    ),
    "choices": (
        *(lambda text, task: int(str(json.loads(text)["label"])), "an object with a label"),
        'write {"label": 0}, {"label": 1}, ...',
    ),
    "lines": (_parse_index, "an index", "write 0, 1, 2, ..."),
    "pairs": (_parse_pair, "a pair of ids", "write LLid <tab> enid"),
}
_OBJECTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "answers": (lambda value: isinstance(value, str), "{question id: answer text, ...}"),
    "rankings": (
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
        "{query id: [candidate id, ...]}",
    ),
}
