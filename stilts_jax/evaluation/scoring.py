"""Scores folders of predictions against folders of gold, without an accelerator.

Gold may lie in XTREME's label layout (``TASK/test-LL.EXT``, as predictions do) or as data sets release it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stilts_jax.data.sources import DataSource, read_retrieval
from stilts_jax.errors import DataError
from stilts_jax.evaluation import submission
from stilts_jax.evaluation.benchmarks import BenchmarkTask, get_benchmark, summarise
from stilts_jax.evaluation.metrics import METRICS, MetricResult
from stilts_jax.tasks.lareqa import TASK as LAREQA

# Where releases keep the gold that XTREME's layout would have in TASK/test-LL.EXT.
_RELEASES: Mapping[str, tuple[str, ...]] = {
    "xquad": ("xquad/xquad.{}.json",),
    "mlqa": ("mlqa/MLQA_V1/test/test-context-{0}-question-{0}.json",),
    "tydiqa": ("tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{}.dev.json",),
    "bucc2018": ("bucc2018/{}-en.test.gold",),
    "tatoeba": ("tatoeba/{}-en.gold",),
    "mewslix": ("mewslix/wikinews_labels/test-{}.json",),
    "lareqa": ("lareqa/xquad-r/{}.json",),
}


def find_gold(folder: str | Path, task: str, language: str) -> Path | None:
    """The file with a language's gold; None if there is none."""
    places = [submission.prediction_path(folder, task, language)]
    places += [Path(folder) / pattern.format(language) for pattern in _RELEASES.get(task, ())]
    return next((path for path in places if path.is_file()), None)


def _read_gold_answers(path: Path) -> dict[str, list[str]]:
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
        raise DataError(f"The file is not in SQuAD's format: {error!r}.", where=str(path)) from error
    if not any(text for answers in gold.values() for text in answers):
        raise DataError(
            "Every answer is blank.",
            where=str(path),
            fix="take gold from the data set's own release; XTREME's download blanks it",
        )
    return gold


def _read_lareqa_gold(path: Path, language: str) -> Mapping[str, Sequence[str]]:
    """Right candidates are in every language that lies beside the file; ids are those of the task."""
    if path.parent.name != "xquad-r":
        return submission.read_rankings(path)
    found = read_retrieval(LAREQA, "test", language, DataSource(path.parents[2])).gold
    assert found is not None
    return found


def _check_lengths(predicted: Path, gold: Path, unit: str, counts: tuple[int, int]) -> None:
    if counts[0] != counts[1]:
        raise DataError(
            f"{counts[0]} {unit} are predicted, gold has {counts[1]}.",
            where=f"{predicted} (gold: {gold})",
            fix="predict every item of the test set once, in its order",
        )


def _read_tags(predicted: Path, gold: Path, tags: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
    predictions, starts = submission.read_tags(predicted)
    labels, gold_starts = submission.read_tags(gold)
    for sentence, start in zip(labels, gold_starts):
        for offset, tag in enumerate(sentence):
            if tag not in tags:
                raise DataError(
                    f"{tag[:60]!r} is not a tag.",
                    where=f"{gold}:{start + offset}",
                    fix="take gold from the data set's own release; XTREME's download blanks it",
                )
    _check_lengths(predicted, gold, "sentences", (len(predictions), len(labels)))
    for index, (ours, theirs) in enumerate(zip(predictions, labels)):
        if len(ours) != len(theirs):
            raise DataError(
                f"Sentence {index + 1} has {len(ours)} tags, gold has {len(theirs)}.",
                where=f"{predicted}:{starts[index]} (gold: {gold}:{gold_starts[index]})",
                fix="give every word of the file one tag, also behind the encoder's longest input",
            )
    return predictions, labels


def _read_both(name: str, task: BenchmarkTask, predicted: Path, gold: Path, language: str) -> tuple[Any, Any]:
    """Predictions and gold as the metric takes them."""
    if task.metric == "chunk_f1":
        return _read_tags(predicted, gold, task.labels)
    if task.metric == "bucc_f1":
        return submission.read_pairs(predicted), submission.read_pairs(gold)
    by_id: Mapping[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
        "squad": (submission.read_answers, _read_gold_answers),
        "mlqa": (submission.read_answers, _read_gold_answers),
        "mrr": (submission.read_rankings, submission.read_rankings),
        "map": (submission.read_rankings, lambda path: _read_lareqa_gold(path, language)),
    }
    if task.metric in by_id:
        read_predictions, read_gold = by_id[task.metric]
        predictions, labels = read_predictions(predicted), read_gold(gold)
        submission.check_ids(predicted, predictions, labels)
        return predictions, labels
    if task.metric == "nearest_accuracy":
        predictions, labels = submission.read_indices(predicted), submission.read_indices(gold)
    elif submission.EXTENSIONS.get(name) == "jsonl":
        predictions, labels = submission.read_choices(predicted), submission.read_choices(gold)
    else:
        predictions = submission.read_labels(predicted, task.labels)
        labels = submission.read_labels(gold, task.labels)
    _check_lengths(predicted, gold, "items", (len(predictions), len(labels)))
    return predictions, labels


def score_file(name: str, task: BenchmarkTask, predicted: Path, gold: Path, language: str) -> MetricResult:
    """Scores one language of one task."""
    predictions, labels = _read_both(name, task, predicted, gold, language)
    return METRICS[task.metric](None, predictions, labels, language)


def score_predictions(benchmark: str, predictions: str | Path, gold: str | Path) -> dict[str, Any]:
    """Scores a folder of predictions.

    Args:
        benchmark: ``xtreme`` or ``xtreme-r``.
        predictions: folder with ``TASK/test-LL.EXT`` in XTREME's formats; see ``submission``.
        gold: folder in XTREME's label layout, or in the layouts of the releases.

    Returns:
        Percent in full precision: ``{"benchmark", "overall", "averages", "groups", "tasks": {task: {"score",
        "score_without_english", "metrics": {metric: {"avg", language: value}}}}, "missing"}``. What is absent
        is listed under ``missing``, and the averages that would need it are None.
    """
    tasks = get_benchmark(benchmark)
    for folder, what in ((predictions, "predictions"), (gold, "gold")):
        if not Path(folder).is_dir():
            raise DataError(f"There is no folder of {what}.", where=str(folder), fix=f"name it with --{what}")
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, task in tasks.items():
        for language in task.languages:
            predicted = submission.prediction_path(predictions, name, language)
            right = find_gold(gold, name, language)
            if not predicted.is_file() or right is None:
                continue
            for metric, value in score_file(name, task, predicted, right, language).values.items():
                scores.setdefault(name, {}).setdefault(metric, {})[language] = value
    if not scores:
        raise DataError(
            f"No task of {benchmark} has both predictions and gold.",
            where=f"{predictions} and {gold}",
            fix="both hold one folder a task: " + ", ".join(tasks),
        )
    return summarise(benchmark, scores)
