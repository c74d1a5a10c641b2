"""Scores folders of predictions against folders of gold, without an accelerator.

Gold may lie as predictions do (``TASK/test-LL.EXT`` with labels alone, which is XTREME's layout), or as the data sets
release it, where it is read as training and evaluation read it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stilts_jax.errors import DataError
from stilts_jax.evaluation import submission
from stilts_jax.evaluation.benchmarks import OURS, BenchmarkTask, get_benchmark, summarise, summarise_tasks
from stilts_jax.evaluation.gold import find_gold, retrieval_gold
from stilts_jax.evaluation.metrics import METRICS, MetricResult
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.files import fill, find_files
from stilts_jax.tasks.sources.read import DataSource, find_paths, read_examples, read_retrieval, with_labels
from stilts_jax.tasks.sources.readers import read_lines
from stilts_jax.tasks.sources.rows import Problems
from stilts_jax.tasks.spec import UNKNOWN_LABEL, Task
from stilts_jax.tasks.udpos import UNTAGGED

_BLANKED = "take gold from the data set's own release; XTREME's download blanks it"


def _bare_gold(folder: Path, task: Task, language: str) -> Path | None:
    """The file that has nothing but labels; None if there is none, or if it is the release's, which has texts too."""
    path = submission.prediction_path(folder, task, language)
    if not path.is_file():
        return None
    form = submission.format_of(task)
    if form in ("answers", "rankings", "pairs"):
        return path
    first = next((text for _, text in read_lines(path, Problems("gold")) if text.strip()), "")
    if form == "choices":
        try:
            return path if list(json.loads(first)) == ["label"] else None
        except ValueError:
            return path  # refused with its line when it is read
    return None if "\t" in first else path


def _read_bare_gold(path: Path, task: Task) -> Any:
    if submission.format_of(task) != "answers":
        return submission.read_predictions(path, task)
    content = submission.read_json(path)
    articles = content["data"] if isinstance(content, dict) and "data" in content else content
    try:
        gold = {
            question["id"]: [answer["text"] for answer in question["answers"]]
            for article in articles
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


def _read_gold_file(folder: Path, task: Task, language: str) -> tuple[Any, Path] | None:
    """Gold of a release that keeps it in a file of its own, so that nobody needs the texts or a pool of millions."""
    for layout in task.sources.pools:
        for role in layout.optional:
            pattern = layout.paths.get(task.reported, {}).get(role)
            found = (
                find_files(folder, fill(pattern, language, layout.codes, base=language)) if pattern else ()
            )
            if found:
                return submission.read_predictions(found[0], task), found[0]
    return None


def read_gold(folder: Path, task: Task, language: str) -> tuple[Any, Path] | None:
    """Gold as the task's metric takes it, labels and tags as names, and where it lies; None if there is none."""
    bare = _bare_gold(folder, task, language)
    if bare is not None:
        found: tuple[Any, Path] | None = (_read_bare_gold(bare, task), bare)
    else:
        found = _read_gold_file(folder, task, language) or _read_release(folder, task, language)
    if found is not None and found[0] is None:
        raise DataError("Gold is blank, all of it or a part.", where=str(found[1]), fix=_BLANKED)
    return found


def _read_release(folder: Path, task: Task, language: str) -> tuple[Any, Path] | None:
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
    if gold is not None and task.kind == "classify":
        gold = [task.labels[label] for label in gold]
    return gold, where


def _check_lengths(predicted: Path, gold: Path, unit: str, counts: tuple[int, int]) -> None:
    if counts[0] != counts[1]:
        raise DataError(
            f"{counts[0]} {unit} are predicted, gold has {counts[1]}.",
            where=f"{predicted} (gold: {gold})",
            fix="predict every item of the test set once, in its order",
        )


def _check_tags(
    predicted: Path, predictions: Sequence[Sequence[str]], gold: Path, labels: Any, task: Task
) -> None:
    """Refuses sentences of other lengths, and gold that has words where tags should be."""
    known = {*task.labels, UNKNOWN_LABEL, *(UNTAGGED if task.name == "udpos" else ())}
    for sentence, tags in enumerate(labels):
        for place, tag in enumerate(tags):
            if tag not in known:
                start = submission.read_tags(gold)[1][sentence]
                raise DataError(f"{tag[:60]!r} is not a tag.", where=f"{gold}:{start + place}", fix=_BLANKED)
    _check_lengths(predicted, gold, "sentences", (len(predictions), len(labels)))
    for index, (ours, theirs) in enumerate(zip(predictions, labels)):
        if len(ours) != len(theirs):
            raise DataError(
                f"Sentence {index + 1} has {len(ours)} tags, gold has {len(theirs)}.",
                where=f"{predicted}:{submission.read_tags(predicted)[1][index]} (gold: {gold})",
                fix="give every word of the file one tag, also behind the encoder's longest input",
            )


def score_file(task: Task, language: str, predicted: Path, gold: Any, gold_path: Path) -> MetricResult:
    """Scores one language of one task; ``gold`` as ``read_gold`` gives it."""
    predictions = submission.read_predictions(predicted, task)
    form = submission.format_of(task)
    if form in ("answers", "rankings"):
        submission.check_ids(predicted, predictions, gold)
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
        _check_lengths(predicted, gold_path, "items", (len(predictions), len(gold)))
    return METRICS[task.metric](task, predictions, gold, language)


def _score(
    tasks: Mapping[str, tuple[Task, Sequence[str]]], predictions: str | Path, gold: str | Path, what: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Percent by task, metric and language, of all that has both predictions and gold."""
    for folder, kind in ((predictions, "predictions"), (gold, "gold")):
        if not Path(folder).is_dir():
            raise DataError(f"There is no folder of {kind}.", where=str(folder), fix=f"name it with --{kind}")
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, (task, languages) in tasks.items():
        for language in languages:
            predicted = submission.prediction_path(predictions, task, language)
            found = read_gold(Path(gold), task, language) if predicted.is_file() else None
            if found is None:
                continue
            for metric, value in score_file(task, language, predicted, *found).values.items():
                scores.setdefault(name, {}).setdefault(metric, {})[language] = value
    if not scores:
        raise DataError(
            f"No task of {what} has both predictions and gold.",
            where=f"{predictions} and {gold}",
            fix="both hold one folder per task: "
            + ", ".join(submission.official_name(task) for task, _ in tasks.values()),
        )
    return scores


def score_predictions(benchmark: str, predictions: str | Path, gold: str | Path) -> dict[str, Any]:
    """Scores a folder of predictions.

    Args:
        benchmark: ``xtreme`` or ``xtreme-r``.
        predictions: folder with ``TASK/test-LL.EXT`` in XTREME's formats; see ``submission``.
        gold: folder in XTREME's label layout, or in the layouts of the releases.

    Returns:
        What ``summarise`` returns, in full precision.
    """
    tasks = {
        name: (get_task(OURS.get(name, name)), one.languages)
        for name, one in get_benchmark(benchmark).items()
    }
    return summarise(benchmark, _score(tasks, predictions, gold, benchmark))


def score_tasks(names: Sequence[str], predictions: str | Path, gold: str | Path) -> dict[str, Any]:
    """Scores tasks by name, any that ``get_task`` knows, in every language that has predictions.

    Returns:
        ``tasks``, ``mean`` and ``missing`` as ``summarise`` has them.
    """
    tasks: dict[str, tuple[Task, Sequence[str]]] = {}
    for name in names:
        task = with_labels(get_task(name), DataSource(Path(gold)))
        pattern = submission.prediction_path(predictions, task, "*")
        found = [path.stem.removeprefix("test-") for path in sorted(pattern.parent.glob(pattern.name))]
        tasks[task.name] = (task, found)
    scores = _score(tasks, predictions, gold, ", ".join(names))
    listed = {
        name: BenchmarkTask(task.group, task.metric, tuple(found)) for name, (task, found) in tasks.items()
    }
    shown, missing = summarise_tasks(listed, scores)
    return {
        "tasks": shown,
        "mean": sum(task["mean"] for task in shown.values()) / len(shown),
        "missing": missing,
    }
