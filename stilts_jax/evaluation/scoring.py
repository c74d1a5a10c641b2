"""Scores folders of predictions against folders of gold, without an accelerator.

Gold may lie as predictions do (``TASK/test-LL.EXT`` with labels alone, which is XTREME's layout), or as the data sets
release it, where it is read as training and evaluation read it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stilts_jax.errors import DataError, nearest
from stilts_jax.evaluation import submission
from stilts_jax.evaluation.benchmarks import get_benchmark, summarise, summarise_tasks
from stilts_jax.evaluation.evaluate import find_gold
from stilts_jax.evaluation.metrics import METRICS, MetricResult
from stilts_jax.evaluation.retrieval import retrieval_gold
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import (
    DataSource,
    find_gold_file,
    find_paths,
    read_examples,
    read_retrieval,
    with_labels,
)
from stilts_jax.tasks.sources.readers import read_lines
from stilts_jax.tasks.sources.rows import Problems, read_bytes, read_json
from stilts_jax.tasks.spec import UNKNOWN_LABEL, Task
from stilts_jax.tasks.udpos import UNTAGGED

_BLANKED = "take gold from the data set's own release; XTREME's download blanks it"
Found = tuple[Any, Path]  # gold as a metric takes it, labels and tags as names, and where it lies
Scores = dict[str, dict[str, dict[str, float]]]  # percent by task, metric and language


def read_gold(folder: Path, task: Task, language: str) -> Found | None:
    """The gold of one language; None if there is none."""
    found = (
        _read_bare_gold(folder, task, language)
        or _read_gold_file(folder, task, language)
        or _read_release(folder, task, language)
    )
    if found is not None and found[0] is None:
        raise DataError("Gold is blank, all of it or a part.", where=str(found[1]), fix=_BLANKED)
    return found


def _read_bare_gold(folder: Path, task: Task, language: str) -> Found | None:
    """Gold of a file that holds nothing but labels; None where there is none, or one of the release, with texts."""
    path, form = submission.prediction_path(folder, task, language), submission.format_of(task)
    if not path.is_file() or task.metric == "vqa_accuracy":  # whose gold is what ten people say
        return None
    if form == "answers":
        return _read_squad(path), path
    if form in ("labels", "tags", "lines", "choices"):
        first = next((text for _, text in read_lines(path, Problems("gold")) if text.strip()), "")
        if "\t" in first or (form == "choices" and not _is_bare_choice(first)):
            return None
    return submission.read_predictions(path, task), path


def _is_bare_choice(text: str) -> bool:
    try:
        return list(json.loads(text)) == ["label"]
    except ValueError:
        return True  # refused with its line when it is read


def _read_squad(path: Path) -> dict[str, list[str]] | None:
    content = read_json(path)
    try:
        gold = {
            question["id"]: [answer["text"] for answer in question["answers"]]
            for article in (content["data"] if isinstance(content, dict) else content)
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        }
    except (KeyError, TypeError) as error:
        raise DataError(
            f"The file is not in SQuAD's format: {error!r}.",
            where=str(path),
            fix="write {'data': [{'paragraphs': [{'context', 'qas'}]}]} as SQuAD does",
        ) from error
    return gold if any(text for answers in gold.values() for text in answers) else None


def _read_gold_file(folder: Path, task: Task, language: str) -> Found | None:
    """Gold of a release that keeps it in a file of its own, so that nobody needs the texts or a pool of millions."""
    found = find_gold_file(task, language, folder)
    return (submission.read_predictions(found, task), found) if found else None


def _read_release(folder: Path, task: Task, language: str) -> Found | None:
    source = DataSource(folder)
    try:
        where = find_paths(task, task.reported, language, source)[0]
    except DataError:
        return None  # no file: what is there and can't be read is refused below
    if task.kind == "embed":
        part = read_retrieval(task, task.reported, language, source)
        known = retrieval_gold(task, part)
        if task.retrieval == "ranking" and known is not None:
            known = {query.id: known.get(query.id, ()) for query in part.queries}
        return known, where
    gold = find_gold(task, read_examples(task, task.reported, language, source))
    if gold is not None and task.kind == "classify" and task.metric != "vqa_accuracy":
        gold = [task.labels[label] for label in gold]
    return gold, where


def _check_lengths(predicted: Path, gold: Path, unit: str, ours: Sequence, theirs: Sequence) -> None:
    if len(ours) != len(theirs):
        raise DataError(
            f"{len(ours)} {unit} are predicted, gold has {len(theirs)}.",
            where=f"{predicted} (gold: {gold})",
            fix="predict every item of the test set once, in its order",
        )


def _check_tags(predicted: Path, predictions: Any, gold: Path, labels: Any, task: Task) -> None:
    """Refuses sentences of other lengths, and gold that has words where tags should be."""
    known = {*task.labels, UNKNOWN_LABEL, *(UNTAGGED if task.name == "udpos" else ())}
    for sentence, tags in enumerate(labels):
        for place, tag in enumerate(tags):
            if tag not in known:
                line = submission.read_tags(gold)[1][sentence] + place
                raise DataError(f"{tag[:60]!r} is not a tag.", where=f"{gold}:{line}", fix=_BLANKED)
    _check_lengths(predicted, gold, "sentences", predictions, labels)
    for index, (ours, theirs) in enumerate(zip(predictions, labels)):
        if len(ours) != len(theirs):
            raise DataError(
                f"Sentence {index + 1} has {len(ours)} tags, gold has {len(theirs)}.",
                where=f"{predicted}:{submission.read_tags(predicted)[1][index]} (gold: {gold})",
                fix="give every word of the file one tag, also behind the encoder's longest input",
            )


def _check_ids(path: Path, predicted: Mapping[str, Any], gold: Mapping[str, Any]) -> None:
    """Raises at the first predicted id that gold does not have, with its line."""
    for identifier in predicted:
        if identifier not in gold:
            text = read_bytes(path).decode(errors="replace")
            spelled = (json.dumps(identifier), json.dumps(identifier, ensure_ascii=False))
            found = max(text.find(spelling) for spelling in spelled)
            raise DataError(
                f"There is no item {identifier!r} in gold.",
                where=f"{path}:{text.count(chr(10), 0, max(found, 0)) + 1}",
                fix=nearest(identifier, gold) if len(gold) <= 20 else "predict the test set of this language",
            )


def _score_file(task: Task, language: str, predicted: Path, gold: Any, gold_path: Path) -> MetricResult:
    predictions = submission.read_predictions(predicted, task)
    form = submission.format_of(task)
    if form in ("answers", "rankings"):
        _check_ids(predicted, predictions, gold)
        if form == "rankings":  # queries without a right candidate do not count
            gold = {query: right for query, right in gold.items() if right}
    elif form == "tags":
        _check_tags(predicted, predictions, gold_path, gold, task)
        # Words without a part of speech have the tag that they have in an experiment.
        renamed = UNTAGGED if task.name == "udpos" else {}
        predictions, gold = (
            [[renamed.get(tag, tag) for tag in tags] for tags in side] for side in (predictions, gold)
        )
    elif form != "pairs":
        _check_lengths(predicted, gold_path, "items", predictions, gold)
    return METRICS[task.metric](task, predictions, gold, language)


def _score(tasks: Mapping[str, Task], predictions: str | Path, gold: str | Path, what: str) -> Scores:
    """Scores all that has both predictions and gold."""
    for folder, kind in ((predictions, "predictions"), (gold, "gold")):
        if not Path(folder).is_dir():
            raise DataError(f"There is no folder of {kind}.", where=str(folder), fix=f"name it with --{kind}")
    scores: Scores = {}
    for name, task in tasks.items():
        for language in task.languages:
            predicted = submission.prediction_path(predictions, task, language)
            found = read_gold(Path(gold), task, language) if predicted.is_file() else None
            if found is None:
                continue
            for metric, value in _score_file(task, language, predicted, *found).values.items():
                scores.setdefault(name, {}).setdefault(metric, {})[language] = value
    if not scores:
        raise DataError(
            f"No task of {what} has both predictions and gold.",
            where=f"{predictions} and {gold}",
            fix=f"both hold one folder per task: {', '.join(map(submission.official_name, tasks.values()))}",
        )
    return scores


def score_predictions(benchmark: str, predictions: str | Path, gold: str | Path) -> dict[str, Any]:
    """Scores a folder of predictions (``TASK/test-LL.EXT``); returns what ``summarise`` returns, in full precision.

    Args:
        benchmark: ``xtreme`` or ``xtreme-r``.
        gold: folder in XTREME's label layout, or in the layouts of the releases.
    """
    return summarise(benchmark, _score(get_benchmark(benchmark), predictions, gold, benchmark))


def score_tasks(names: Sequence[str], predictions: str | Path, gold: str | Path) -> dict[str, Any]:
    """Scores tasks by name, any that ``get_task`` knows, in every language that has predictions.

    Returns:
        ``tasks``, ``mean`` and ``missing`` as ``summarise`` has them.
    """
    tasks = {}
    for name in names:
        task = with_labels(get_task(name), DataSource(Path(gold)))
        pattern = submission.prediction_path(predictions, task, "*")
        found = [path.stem.removeprefix("test-") for path in sorted(pattern.parent.glob(pattern.name))]
        tasks[task.name] = replace(task, languages=tuple(found))
    shown, missing = summarise_tasks(tasks, _score(tasks, predictions, gold, ", ".join(names)))
    mean = sum(task["mean"] for task in shown.values()) / len(shown)
    return {"tasks": shown, "mean": mean, "missing": missing}
