"""Prediction folders, ``TASK/test-LL.EXT``: written, read, and scored against gold without an accelerator.

``_FORMS`` has what they hold. Where XTREME or XTREME-R has a format for a task, it is this one; tasks that neither has
are written alike. Gold may lie as predictions do (with labels alone, which is XTREME's layout), as the data sets
release it, or as `stilts prepare` fetched it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from stilts_jax.checked import stem
from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.evaluation.benchmarks import BENCHMARKS, OFFICIAL, Scores, summarise, summarise_tasks
from stilts_jax.evaluation.evaluate import find_gold
from stilts_jax.evaluation.metrics import METRICS, spell
from stilts_jax.files import write_lines
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources import read
from stilts_jax.tasks.sources.readers import read_lines, read_squad
from stilts_jax.tasks.sources.rows import BadRow, Problems, parse_json, read_json
from stilts_jax.tasks.spec import UNKNOWN_LABEL, Task
from stilts_jax.tasks.udpos import UNTAGGED

# By kind, or way of retrieval: how a file's name ends; what a line (or the values by id) are; and how they are written.
_FORMS = {
    "classify": ("tsv", "a label", "take one of LABELS; any other in gold means that it is blanked"),
    "choice": ("jsonl", "an object with a label", 'write {"label": 0}, {"label": 1}, ...'),
    "tag": ("tsv", "a tag", "write a tag a line, and a blank line behind each sentence"),
    "nearest": ("tsv", "an index", "write for each query the number of its candidate, from 0 on"),
    "mining": ("tsv", "a pair of ids", "write LLid <tab> enid"),
    "span": ("json", "answers", "write {question id: answer text, ...}"),
    "ranking": ("json", "rankings", "write {query id: [candidate id, ...]}"),
}
_BY_ID = ("span", "ranking")  # objects; the others have lines in the order of the test set
_BLANKED = "take gold from the data set's own release; XTREME's download blanks it"
MEND = "mend the file"  # nothing is skipped here
Found = tuple[Any, Path]  # gold as a metric takes it, labels and tags as names, and where it lies


def format_of(task: Task) -> str:
    """What a file of predictions holds is said by the kind of a task, or by its way of retrieval."""
    if task.kind == "mlm":
        fix = "name a task with labels, tags, answers or retrieved candidates"
        raise ConfigError("There is nothing that a file could hold.", where=f"task {task.name}", fix=fix)
    return task.retrieval or task.kind


def prediction_path(folder: Path, task: Task, language: str) -> Path:
    """Where the predictions of one language lie, under the task's official name."""
    return folder / OFFICIAL.get(task.name, task.name) / f"test-{language}.{_FORMS[format_of(task)][0]}"


def write_predictions(folder: Path, task: Task, language: str, predictions: Any) -> Path:
    """Writes one language's predictions, as the metric takes them (labels also as indices), where XTREME looks."""

    def name(value: Any) -> str:
        text = str(value) if isinstance(value, str) or not task.labels else task.labels[int(value)]
        return " ".join(text.split("\n"))

    form, path = format_of(task), prediction_path(folder, task, language)
    if form in _BY_ID:
        lines = [json.dumps(dict(predictions), ensure_ascii=False, indent=1)]
    elif form == "choice":
        lines = [json.dumps({"label": int(value)}) for value in predictions]
    elif form == "tag":
        lines = ["".join(f"{name(tag)}\n" for tag in tags) for tags in predictions]
    elif form == "mining":
        lines = [f"{source}\t{english}" for source, english in predictions]
    else:
        lines = [str(int(value)) if form == "nearest" else name(value) for value in predictions]
    write_lines(path, lines)
    return path


def read_predictions(path: Path, task: Task) -> Any:
    """What ``write_predictions`` wrote, as the metric takes it; labels and tags as names."""
    form = format_of(task)
    if form == "tag":
        renamed = UNTAGGED if stem(task.name) == "udpos" else {}  # as in an experiment
        return [[renamed.get(tag, tag) for tag in tags] for tags in read_tags(path)[0]]
    _, what, fix = _FORMS[form]
    if form in _BY_ID:
        content = read_json(path)
        texts: Any = content.values() if isinstance(content, dict) else [None]
        if form == "ranking":
            texts = chain.from_iterable(one if isinstance(one, list) else [None] for one in texts)
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"These are not {what}.", where=str(path), fix=fix)
        return content
    values = []
    for line, text in _lines(path):
        try:
            values.append(_parse_line(form, text, task))
        except (ValueError, KeyError, TypeError, BadRow) as error:
            fix = fix.replace("LABELS", ", ".join(task.labels))
            raise DataError(f"{text[:60]!r} is not {what}.", where=f"{path}:{line}", fix=fix) from error
    return values


def read_tags(path: Path) -> tuple[list[list[str]], list[int]]:
    """Sentences of tags, the last column where there are several, and the line where each sentence begins."""
    sentences, starts = [], []
    for has_text, lines in groupby(_lines(path), lambda line: bool(line[1])):
        if has_text:
            numbers, texts = zip(*lines)
            starts.append(numbers[0])
            sentences.append([text.rpartition("\t")[2] for text in texts])
    return sentences, starts


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines without the blank ones at the end."""
    lines = [(number, text.strip()) for number, text in read_lines(path, Problems("predictions", fix=MEND))]
    while lines and not lines[-1][1]:
        lines.pop()
    return lines


def _parse_line(form: str, text: str, task: Task) -> Any:
    """What a line says; an error, of whatever kind, where it says something else."""
    if form == "mining":
        source, english = text.split("\t")
        return source.strip(), english.strip()
    if form == "classify":
        value = text.rpartition("\t")[2].strip()  # the last column where there are several
        if task.labels and value not in task.labels:
            raise ValueError
        return value
    number = str(parse_json(text)["label"]) if form == "choice" else text
    if not number.isascii() or not number.isdigit():
        raise ValueError
    return int(number)


def read_gold(folder: Path, task: Task, language: str, progress: Progress = SILENT) -> Found | None:
    """The gold of one language; None if there is none."""
    found = _read_bare_gold(folder, task, language)
    if found is None and (path := read.find_gold_file(task, language, folder)):
        # A file of its own: nobody needs the texts, or a pool of millions.
        found = read_predictions(path, task), path
    found = found or _read_release(folder, task, language, progress)
    if found is not None and found[0] is None:
        raise DataError("Gold is blank, all of it or a part.", where=str(found[1]), fix=_BLANKED)
    return found


def _read_bare_gold(folder: Path, task: Task, language: str) -> Found | None:
    """Gold of a file that holds nothing but labels; None where there is none, or one of the release, with texts."""
    path, form = prediction_path(folder, task, language), format_of(task)
    if not path.is_file() or task.metric == "vqa_accuracy":  # whose gold is what ten people say
        return None
    if form == "span":
        answered, problems = dict[str, list[str]](), Problems("gold", fix=MEND)
        for row in read_squad(path, "", problems):
            with problems.skipping(path, row):
                answered[row.id("id")] = [answer.text("text") for answer in row.parts("answers")]
        may_be_empty = task.metric == "squad_v2"  # questions without an answer
        whole = all(any(texts) or (may_be_empty and not texts) for texts in answered.values())
        return answered if whole and any(map(any, answered.values())) else None, path
    if form in ("classify", "tag", "nearest", "choice"):
        first = next((text for _, text in read_lines(path, Problems("gold", fix=MEND)) if text.strip()), "")
        try:
            bare = form != "choice" or list(parse_json(first)) == ["label"]
        except (BadRow, TypeError):
            bare = True  # refused with its line when it is read
        if "\t" in first or not bare:
            return None
    return read_predictions(path, task), path


def _read_release(folder: Path, task: Task, language: str, progress: Progress) -> Found | None:
    """From the first kind of source that has gold, else what the first of all has."""
    blanked: Found | None = None
    for source in (read.DataSource(folder, kind) for kind in read.KINDS):
        if source.kind_of(task, task.reported) != source.kind:
            continue
        try:
            where = read.find_paths(task, task.reported, language, source)[0]
        except DataError:  # no file: what is there and can't be read is refused below
            continue
        found = _read_source(source, task, language), where
        if found[0] is not None:
            if source.kind == "tfds" and format_of(task) not in _BY_ID:
                told = "TFDS shuffles its rows, and gold is in its order: predictions must be too"
                progress.say(f"warning: {where}: {told}")
            return found
        blanked = blanked or found
    return blanked


def _read_source(source: read.DataSource, task: Task, language: str) -> Any:
    if task.kind == "embed":
        part = read.read_retrieval(task, task.reported, language, source)
        gold = find_gold(task, part)
        if task.retrieval == "ranking" and gold is not None:
            gold = {query.id: gold.get(query.id, ()) for query in part.queries}
        return gold
    # Gold needs no pictures.
    gold = find_gold(task, read.read_examples(replace(task, pictures=""), task.reported, language, source))
    if gold is not None and task.kind == "classify" and task.metric != "vqa_accuracy":
        gold = spell(task, gold)
    return gold


def check_count(predicted: Path, predictions: Sequence[Any], gold: Path, right: Sequence[Any]) -> None:
    """Refuses predictions of more or fewer items than gold has."""
    if len(predictions) != len(right) or not right:
        what = f"{len(predictions)} items are predicted, gold has {len(right)}."
        fix = "predict every item of the test set once, in its order"
        raise DataError(what, where=f"{predicted} (gold: {gold})", fix=fix)


def _score_file(
    task: Task, language: str, folder: Path, gold_folder: Path, *, progress: Progress
) -> Mapping[str, float] | None:
    form, predicted = format_of(task), prediction_path(folder, task, language)
    if not predicted.is_file():
        return None
    if (found := read_gold(gold_folder, task, language, progress)) is None:
        return {}
    predictions, (gold, gold_path) = read_predictions(predicted, task), found
    if form in _BY_ID:
        unknown = next((one for one in predictions if one not in gold), None)
        if unknown is not None:
            fix = nearest(unknown, gold) if len(gold) <= 20 else "predict the test set of this language"
            raise DataError(f"There is no item {unknown!r} in gold.", where=str(predicted), fix=fix)
        if lost := len(gold.keys() - predictions.keys()):  # as most official scripts count them
            progress.say(
                f"warning: {predicted}: {lost} of {len(gold)} have no prediction, which counts as wrong"
            )
    elif form != "mining":
        check_count(predicted, predictions, gold_path, gold)
    if form == "tag":
        known = {*task.labels, UNKNOWN_LABEL}
        for index, (ours, theirs) in enumerate(zip(predictions, gold)):
            for path, tags in ((gold_path, theirs), (predicted, ours)):
                if wrong := [tag for tag in tags if tag not in known]:  # words, where tags should be
                    line = read_tags(path)[1][index] + tags.index(wrong[0])
                    fix = _BLANKED if path == gold_path else f"take one of {', '.join(task.labels)}"
                    raise DataError(f"{wrong[0][:60]!r} is not a tag.", where=f"{path}:{line}", fix=fix)
            if len(ours) != len(theirs):
                what = f"Sentence {index + 1} has {len(ours)} tags, gold has {len(theirs)}."
                where = f"{predicted}:{read_tags(predicted)[1][index]} (gold: {gold_path})"
                fix = "give every word of the file one tag, also behind the encoder's longest input"
                raise DataError(what, where=where, fix=fix)
    elif form == "ranking":  # queries without a right candidate do not count
        gold = {query: right for query, right in gold.items() if any(right)}
    if not gold:
        raise DataError("Gold is blank, all of it.", where=str(gold_path), fix=_BLANKED)
    return METRICS[task.metric](task, predictions, gold, language).values


def score_languages(
    tasks: Mapping[str, Any],
    score: Callable[[Any, str, Path, Path], Mapping[str, float] | None],
    predictions: Path,
    gold: Path,
    layout: str = "TASK/test-LL.tsv (.json, .jsonl)",
) -> Scores:
    """Percent by task, metric and language; ``score`` is asked in all ``languages`` of each task.

    It answers None where there are no predictions, and nothing where these have no gold.
    """
    for folder, kind in ((predictions, "predictions"), (gold, "gold")):
        if not folder.is_dir():
            raise DataError(f"There is no folder of {kind}.", where=str(folder), fix=f"name it with --{kind}")
    if predictions.samefile(gold):
        what, fix = "Predictions would be compared with themselves.", "name another folder with --gold"
        raise DataError(what, where=str(gold), fix=fix)
    scores, predicted = dict[str, dict[str, dict[str, float]]](), False
    for name, task in tasks.items():
        for code in task.languages:
            found = score(task, code, predictions, gold)
            predicted |= found is not None
            for metric, value in (found or {}).items():
                scores.setdefault(name, {}).setdefault(metric, {})[code] = value
    if not scores:
        folders = ", ".join(OFFICIAL.get(task.name, task.name) for task in tasks.values())
        what, fix = "No task has predictions.", f"they lie in {layout}, where TASK is {folders}"
        if predicted:
            what, fix = "There is no gold for any of the predictions.", f"{fix}, or as they were released"
        elif (inside := predictions / "predictions").is_dir():  # as `stilts eval` writes them
            fix = f"name the folder inside: --predictions={inside}"
        raise DataError(what, where=str(gold if predicted else predictions), fix=fix)
    return scores


def score_predictions(
    benchmark: str, predictions: Path, gold: Path, progress: Progress = SILENT
) -> dict[str, Any]:
    """Scores predictions of a benchmark, of XTREME-UP as tags only, and returns what ``summarise`` does."""
    score = partial(_score_file, progress=progress)
    return summarise(benchmark, score_languages(BENCHMARKS[benchmark], score, predictions, gold))


def score_tasks(
    names: Sequence[str], predictions: Path, gold: Path, progress: Progress = SILENT
) -> dict[str, Any]:
    """Scores tasks by name in every language that has predictions, and returns what ``summarise_tasks`` does."""
    tasks = {}
    for name in names:
        task = read.with_labels(get_task(name), read.DataSource(gold))
        pattern = prediction_path(predictions, task, "*")
        found = [path.stem.removeprefix("test-") for path in sorted(pattern.parent.glob(pattern.name))]
        if task.name in tasks:
            what = f"Two tasks are called {task.name!r}."
            raise ConfigError(what, where="--task", fix="name it once, or rename one of them")
        tasks[task.name] = replace(task, languages=tuple(found))
    score = partial(_score_file, progress=progress)
    return summarise_tasks(tasks, score_languages(tasks, score, predictions, gold))
