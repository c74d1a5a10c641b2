"""What the benchmarks consist of, and the averages that they define."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stilts_jax.evaluation.metrics import MAIN_VALUES
from stilts_jax.tasks import get_task, panx, tatoeba, udpos, xquad
from stilts_jax.tasks.spec import names

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]  # percent by task, metric and language
OFFICIAL = {"bucc": "bucc2018"}  # our name of a task -> the benchmarks', where they differ

# Tasks in the order of the papers. Of XTREME-UP there is what suits an encoder and has a task here: names, trained in
# each language itself.
_TASKS = {
    "xtreme": "xnli pawsx udpos panx xquad mlqa tydiqa bucc tatoeba",
    "xtreme-r": "xnli xcopa udpos panx xquad mlqa tydiqa tatoeba mewslix lareqa",
    "africa": "sib200 masakhaner2 afriqa masakhanews",
    "xtreme-up": " ".join(f"masakhaner_x@{code}" for code in get_task("masakhaner_x").languages),
}
# Languages of Africa among those of SIB-200.
_AFRICAN = """
    aeb af ak am ary arz bem bm cjk dik dyu ee ff fon ha ig kab kam kbp kea ki kmb kg kr kr_Arab lg ln lua luo mg mos
    nqo nso nus ny om rn rw sg sn so ss st sw taq taq_Tfng ti tn ts tum tw tzm umb wo xh yo zu
"""

# The tasks of each benchmark by their official names, with the languages that averages run over.
BENCHMARKS = {
    benchmark: {OFFICIAL.get(name, name): get_task(name) for name in ours.split()}
    for benchmark, ours in _TASKS.items()
}
for _module in (udpos, panx, xquad, tatoeba):  # which have languages that XTREME-R has added
    _task = get_task(_module.TASK.name)
    BENCHMARKS["xtreme"][_task.name] = replace(_task, languages=_module.LANGUAGES)
BENCHMARKS["africa"]["sib200"] = replace(get_task("sib200"), languages=names(_AFRICAN))


def _mean(values: Iterable[float | None]) -> float | None:
    """The unweighted mean; None where something that it needs is absent."""
    numbers = list(values)
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if numbers and len(known) == len(numbers) else None


def summarise(benchmark: str, scores: Scores) -> dict[str, Any]:
    """Averages as the benchmarks define them: over languages, then over tasks, all weighted equally.

    Tasks have their official names. A task's score is the mean over its languages (for question answering the mean of
    F1 and EM); an average that needs something absent is None, and a ``mean`` is over what is there.
    """
    tasks = BENCHMARKS[benchmark]
    summary = summarise_tasks(tasks, scores)
    shown = summary["tasks"]

    def average(key: str, *groups: str) -> float | None:
        names = [name for name, task in tasks.items() if task.group in groups]
        return _mean(shown[name][key] if name in shown else None for name in names)

    groups = list(dict.fromkeys(task.group for task in tasks.values()))
    others = [group for group in groups if group != "retrieval"]
    averages = {
        "all": average("score", *groups),
        "without_english": average("score_without_english", *groups),
        "without_retrieval": average("score", *others),
        "without_english_and_retrieval": average("score_without_english", *others),
    }
    return {
        "benchmark": benchmark,
        "overall": averages["all"],
        "averages": averages,
        "groups": {group: average("score", group) for group in groups},
        **summary,
    }


def summarise_tasks(tasks: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    """``tasks``, ``mean`` and ``missing`` of ``summarise``, for any records with ``languages`` and a ``metric``."""
    missing: list[str] = []
    shown: dict[str, Any] = {}
    for name, task in tasks.items():
        languages, metrics = task.languages, scores.get(name, {})
        main = MAIN_VALUES.get(task.metric, (task.metric,))
        present = [code for code in languages if code in metrics.get(main[0], {})]
        absent = [f"{name}/{code}" for code in languages if code not in present]
        missing.extend(absent if present else [name])

        def average(codes: Sequence[str], *names: str, metrics: Mapping = metrics) -> float | None:
            return _mean(_mean(metrics.get(one, {}).get(code) for code in codes) for one in names)

        if present:
            shown[name] = {
                "score": average(languages, *main),
                "score_without_english": average([code for code in languages if code != "en"], *main),
                "mean": average(present, *main),
                "languages": present,
                "metrics": {one: {"avg": average(languages, one), **by} for one, by in metrics.items()},
            }
    return {"tasks": shown, "mean": _mean(one["mean"] for one in shown.values()), "missing": missing}
