"""Prediction folders: ``TASK/test-LL.EXT``, written and read. A task's kind decides the format.

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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.evaluation.benchmarks import OURS
from stilts_jax.files import write_json, write_whole
from stilts_jax.tasks.sources.documents import read_bytes
from stilts_jax.tasks.sources.readers import read_lines
from stilts_jax.tasks.sources.rows import Problems
from stilts_jax.tasks.spec import Task

# What a file of predictions holds, by kind or, for tasks that compare vectors, by way of retrieval.
FORMATS: Mapping[str, str] = {
    "classify": "labels",
    "choice": "choices",
    "tag": "tags",
    "span": "answers",
    "mining": "pairs",
    "nearest": "lines",
    "ranking": "rankings",
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


def format_predictions(task: Task, predictions: Any) -> str:
    """The text of a prediction file; ``predictions`` as the metric takes them, labels also as indices."""

    def name(value: Any) -> str:
        text = str(value) if isinstance(value, str) or not task.labels else task.labels[int(value)]
        return " ".join(text.split("\n"))

    form = format_of(task)
    if form in ("answers", "rankings"):
        return json.dumps(dict(predictions), ensure_ascii=False, indent=1) + "\n"
    if form == "choices":
        return "".join(json.dumps({"label": int(value)}) + "\n" for value in predictions)
    if form == "tags":
        return "".join("".join(f"{name(tag)}\n" for tag in tags) + "\n" for tags in predictions)
    if form == "pairs":
        return "".join(f"{source}\t{english}\n" for source, english in predictions)
    if form == "lines":
        return "".join(f"{int(index)}\n" for index in predictions)
    return "".join(f"{name(value)}\n" for value in predictions)


def write_predictions(folder: str | Path, task: Task, language: str, predictions: Any) -> Path:
    """Writes one language's predictions where XTREME looks for them."""
    path = prediction_path(folder, task, language)
    write_whole(path, format_predictions(task, predictions))
    return path


def read_predictions(path: Path, task: Task) -> Any:
    """What ``write_predictions`` wrote, as the metric takes it; labels and tags as names."""
    form = format_of(task)
    if form == "labels":
        return read_labels(path, task.labels)
    if form == "tags":
        return read_tags(path)[0]
    readers: Mapping[str, Callable[[Path], Any]] = {
        "choices": read_choices,
        "answers": read_answers,
        "pairs": read_pairs,
        "lines": read_indices,
        "rankings": read_rankings,
    }
    return readers[form](path)


def write_thresholds(folder: str | Path, task: Task, thresholds: Mapping[str, float]) -> None:
    """Stores the thresholds that were tuned on dev beside the predictions that they made."""
    write_json(Path(folder) / official_name(task) / THRESHOLDS_FILE, dict(thresholds))


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines without the blank ones at the end."""
    lines = [(number, text.strip()) for number, text in read_lines(path, Problems("predictions"))]
    while lines and not lines[-1][1]:
        lines.pop()
    return lines


def read_json(path: Path) -> Any:
    """What a JSON file holds."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"The file is not JSON: {error}", where=f"{path}{line}", fix="write it again"
        ) from error


def read_labels(path: Path, labels: Sequence[str]) -> list[str]:
    """One label a line, the last column where there are several; only ``labels`` where they are given."""
    values = []
    for line, text in _lines(path):
        value = text.rpartition("\t")[2].strip()
        if labels and value not in labels:
            raise DataError(
                f"{value[:60]!r} is not a label.",
                where=f"{path}:{line}",
                fix=f"the labels are {', '.join(labels)}; in gold: another text means that gold is blanked",
            )
        values.append(value)
    return values


def read_indices(path: Path) -> list[int]:
    """One number a line."""
    values = []
    for line, text in _lines(path):
        if not text.isascii() or not text.isdigit():
            raise DataError(
                f"{text[:60]!r} is not an index.", where=f"{path}:{line}", fix="write 0, 1, 2, ..."
            )
        values.append(int(text))
    return values


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """One pair of ids a line."""
    pairs = []
    for line, text in _lines(path):
        source, tab, english = text.partition("\t")
        if not tab or "\t" in english or not source or not english:
            raise DataError(
                f"{text[:60]!r} is not a pair of ids.", where=f"{path}:{line}", fix="write LLid <tab> enid"
            )
        pairs.append((source.strip(), english.strip()))
    return pairs


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


def read_choices(path: Path) -> list[int]:
    """The ``label`` of each JSON line."""
    values = []
    for line, text in _lines(path):
        try:
            values.append(int(str(json.loads(text)["label"])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                "The line has no label.", where=f"{path}:{line}", fix='write {"label": 0}, {"label": 1}, ...'
            ) from error
    return values


def read_answers(path: Path) -> dict[str, str]:
    """Answers by question id."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(answer, str) for answer in content.values()):
        raise DataError(
            "These are not answers.", where=str(path), fix="write {question id: answer text, ...}"
        )
    return content


def read_rankings(path: Path) -> dict[str, list[str]]:
    """Ranked candidate ids by query id."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(ids, list) and all(isinstance(each, str) for each in ids) for ids in content.values()
    ):
        raise DataError(
            "These are not rankings.", where=str(path), fix="write {query id: [candidate id, ...]}"
        )
    return content


def check_ids(path: Path, predicted: Mapping[str, Any], gold: Mapping[str, Any]) -> None:
    """Raises at the first predicted id that gold does not have, with its line."""
    for identifier in predicted:
        if identifier not in gold:
            text = read_bytes(path).decode(errors="replace")
            spelled = (json.dumps(identifier), json.dumps(identifier, ensure_ascii=False))
            found = max(text.find(spelling) for spelling in spelled)
            line = text.count("\n", 0, max(found, 0)) + 1
            raise DataError(
                f"There is no item {identifier!r} in gold.",
                where=f"{path}:{line}",
                fix=nearest(identifier, gold) if len(gold) <= 20 else "predict the test set of this language",
            )
