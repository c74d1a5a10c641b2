"""What XTREME and XTREME-R consist of, and the averages that they define."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.evaluation.metrics import MAIN_VALUES

_TATOEBA = (
    "ar he vi id jv tl eu ml ta te af nl de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw zh kk tr et "
    "fi hu"
)
_PANX = f"{_TATOEBA} en ms my yo"
_UDPOS = "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh"
_XQUAD = "en es de el ru tr ar vi th zh hi"


@dataclass(frozen=True)
class BenchmarkTask:
    """One task of a benchmark.

    Attributes:
        group: whose average it belongs to.
        metric: a name in ``METRICS``.
        languages: those that its average runs over.
    """

    group: str
    metric: str
    languages: tuple[str, ...]


def _task(group: str, metric: str, languages: str) -> BenchmarkTask:
    return BenchmarkTask(group, metric, tuple(languages.split()))


OURS = {"bucc2018": "bucc"}  # a benchmark's name of a task -> ours, where they differ
_XNLI = _task("classification", "accuracy", "ar bg de el en es fr hi ru sw th tr ur vi zh")
_MLQA = _task("qa", "mlqa", "en es de ar hi vi zh")
_TYDIQA = _task("qa", "squad", "en ar bn fi id ko ru sw te")

BENCHMARKS: Mapping[str, Mapping[str, BenchmarkTask]] = {
    "xtreme": {
        "xnli": _XNLI,
        "pawsx": _task("classification", "accuracy", "de en es fr ja ko zh"),
        "udpos": _task("tagging", "chunk_f1", _UDPOS),
        "panx": _task("tagging", "chunk_f1", _PANX),
        "xquad": _task("qa", "squad", _XQUAD),
        "mlqa": _MLQA,
        "tydiqa": _TYDIQA,
        "bucc2018": _task("retrieval", "bucc_f1", "de fr ru zh"),
        "tatoeba": _task("retrieval", "nearest_accuracy", _TATOEBA),
    },
    "xtreme-r": {
        "xnli": _XNLI,
        "xcopa": _task("classification", "accuracy", "et ht id it qu sw ta th tr vi zh"),
        "udpos": _task("tagging", "chunk_f1", f"{_UDPOS} lt pl uk wo ro"),
        "panx": _task("tagging", "chunk_f1", f"{_PANX} qu pl uk az lt pa gu ro"),
        "xquad": _task("qa", "squad", f"{_XQUAD} ro"),
        "mlqa": _MLQA,
        "tydiqa": _TYDIQA,
        "tatoeba": _task("retrieval", "nearest_accuracy", f"{_TATOEBA} az lt pl uk ro"),
        "mewslix": _task("retrieval", "mrr", "ar de en es fa ja pl ro ta tr uk"),
        "lareqa": _task("retrieval", "map", _XQUAD),
    },
}


def get_benchmark(name: str) -> Mapping[str, BenchmarkTask]:
    """The tasks of ``xtreme`` or ``xtreme-r``."""
    if name not in BENCHMARKS:
        raise ConfigError(
            f"There is no benchmark {name!r}.", where="--benchmark", fix=nearest(name, BENCHMARKS)
        )
    return BENCHMARKS[name]


def _mean(values: Iterable[float | None]) -> float | None:
    """The unweighted mean; None where something that it needs is absent."""
    numbers = list(values)
    if not numbers or any(number is None for number in numbers):
        return None
    return sum(number for number in numbers if number is not None) / len(numbers)


def _task_score(
    task: BenchmarkTask, metrics: Mapping[str, Mapping[str, float | None]], *, english: bool
) -> float | None:
    languages = [language for language in task.languages if english or language != "en"]
    return _mean(
        _mean(metrics.get(name, {}).get(language) for language in languages)
        for name in MAIN_VALUES[task.metric]
    )


def summarise(
    benchmark: str,
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> dict[str, Any]:
    """Averages as the benchmarks define them: over languages, then over tasks, all weighted equally.

    Args:
        benchmark: ``xtreme`` or ``xtreme-r``.
        scores: percent by task, metric and language.

    Returns:
        ``overall``, ``averages``, ``groups``, ``tasks``, ``mean`` and ``missing``. A task's score is the mean over
        its languages (for question answering the mean of F1 and EM); an average that needs something absent is
        None. ``averages`` has the overall one with English, without, and both without the retrieval tasks. The
        ``mean`` of a task is over the languages that are there, and the overall one over the tasks that are there.
    """
    tasks = get_benchmark(benchmark)
    shown, missing = summarise_tasks(tasks, scores)

    def average(names: Iterable[str], key: str) -> float | None:
        return _mean(shown[name][key] if name in shown else None for name in names)

    unretrieved = [name for name, task in tasks.items() if task.group != "retrieval"]
    groups = dict.fromkeys(task.group for task in tasks.values())
    averages = {
        "all": average(tasks, "score"),
        "without_english": average(tasks, "score_without_english"),
        "without_retrieval": average(unretrieved, "score"),
        "without_english_and_retrieval": average(unretrieved, "score_without_english"),
    }
    return {
        "benchmark": benchmark,
        "overall": averages["all"],
        "averages": averages,
        "groups": {
            group: average([name for name, task in tasks.items() if task.group == group], "score")
            for group in groups
        },
        "tasks": shown,
        "mean": _mean(task["mean"] for task in shown.values()),
        "missing": missing,
    }


def summarise_tasks(
    tasks: Mapping[str, BenchmarkTask], scores: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> tuple[dict[str, Any], list[str]]:
    """``tasks`` and ``missing`` of ``summarise``, for any tasks with the languages that their averages run over."""
    missing: list[str] = []
    shown: dict[str, Any] = {}
    for name, task in tasks.items():
        metrics = scores.get(name, {})
        present = [lang for lang in task.languages if lang in metrics.get(MAIN_VALUES[task.metric][0], {})]
        absent = [lang for lang in task.languages if lang not in present]
        missing.extend([f"{name}/{lang}" for lang in absent] if present else [name])
        if not present:
            continue
        shown[name] = {
            "score": _task_score(task, metrics, english=True),
            "score_without_english": _task_score(task, metrics, english=False),
            "mean": _task_score(replace(task, languages=tuple(present)), metrics, english=True),
            "languages": present,
            "metrics": {
                metric: {
                    "avg": _mean(by_language.get(language) for language in task.languages),
                    **by_language,
                }
                for metric, by_language in metrics.items()
            },
        }
    return shown, missing
