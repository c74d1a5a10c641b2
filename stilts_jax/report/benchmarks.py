"""What the two benchmarks consist of: tasks in the order of the papers' tables, groups, languages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stilts_jax.evaluation import benchmarks as evaluation

GROUP_TITLES = {
    "classification": "Sentence pairs",
    "tagging": "Structured",
    "qa": "Question answering",
    "retrieval": "Retrieval",
    "other": "Other",
}
TASK_TITLES = {
    "xnli": "XNLI",
    "pawsx": "PAWS-X",
    "xcopa": "XCOPA",
    "udpos": "POS",
    "panx": "NER",
    "xquad": "XQuAD",
    "mlqa": "MLQA",
    "tydiqa": "TyDiQA",
    "bucc": "BUCC",
    "tatoeba": "Tatoeba",
    "mewslix": "Mewsli-X",
    "lareqa": "LAReQA",
}
_GROUPS = {
    "classification": ("xnli", "pawsx", "xcopa"),
    "tagging": ("udpos", "panx"),
    "qa": ("xquad", "mlqa", "tydiqa"),
    "retrieval": ("bucc", "tatoeba", "mewslix", "lareqa"),
}
_INTERMEDIATE_TITLES = {
    "none": "none",
    "anli": "ANLI",
    "anliplus": "ANLI+",
    "anli_plus": "ANLI+",
    "mnli": "MNLI",
    "snli": "SNLI",
    "qqp": "QQP",
    "squad_v1": "SQuAD v1.1",
    "squad_v2": "SQuAD v2.0",
    "hellaswag": "HellaSwag",
    "ccg": "CCG",
    "cosmosqa": "Cosmos QA",
    "commonsenseqa": "CSQA",
    "siqa": "SIQA",
    "copa": "COPA",
    "mlm": "MLM",
}
_MANY_TASKS = 4
METRIC_TITLES = {
    "accuracy": "acc.",
    "f1": "F1",
    "em": "EM",
    "map": "mAP",
    "map20": "mAP@20",
    "map_at_20": "mAP@20",
    "mrr": "MRR",
}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's tasks, and the languages that its own average of each task runs over."""

    title: str
    languages: dict[str, tuple[str, ...]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names in the order of the paper's table."""
        return tuple(self.languages)

    def coverage(self, task: str, languages: Sequence[str]) -> str:
        """``2 of 4 (and sw)``: how many of its languages of ``task`` are there, and what is not one of them.

        Empty where they are just its own, and for a task of others.
        """
        own, here = set(self.languages.get(task, ())), set(languages)
        if not own or own == here:
            return ""
        others = f" (and {', '.join(sorted(here - own))})" if here - own else ""
        return f"{len(here & own)} of {len(own)}{others}"


_TASKS = {"bucc2018": "bucc"}  # the folder in predictions has another name than the task
_TITLES = {"xtreme": "XTREME", "xtreme-r": "XTREME-R"}


def find_benchmark(name: str) -> Benchmark:
    """Returns a benchmark by the name that evaluation gives it; raises ConfigError for another."""
    tasks = evaluation.get_benchmark(name)
    return Benchmark(_TITLES[name], {_TASKS.get(task, task): one.languages for task, one in tasks.items()})


def group_of(task: str) -> str:
    """The group whose average ``task`` belongs to."""
    for group, tasks in _GROUPS.items():
        if task in tasks:
            return group
    return "other"


def task_title(task: str) -> str:
    """The name that the papers' tables use."""
    return TASK_TITLES.get(task, task)


def training_title(name: str) -> str:
    """The name of what a target phase trains on: a target task, or a task of its own such as SQuAD."""
    return TASK_TITLES.get(name) or intermediate_title(name)


def metric_title(metric: str) -> str:
    """A short name for a column head."""
    return METRIC_TITLES.get(metric, metric)


def intermediate_title(name: str) -> str:
    """``mnli+mlm`` -> ``MNLI + MLM``, ``mnli@de`` -> ``MNLI (de)``; what is not known stays as it is."""
    if name.startswith("hub:"):
        return name[4:]
    titles = []
    for part in name.split("+"):
        task, _, language = part.partition("@")
        titles.append(_INTERMEDIATE_TITLES.get(task, task) + (f" ({language})" if language else ""))
    return " + ".join(titles)


def short_title(name: str) -> str:
    """The same, but ``Multi-task (8)`` where a list of tasks would be too long for a table."""
    tasks = [part for part in name.split("+") if part != "mlm"]
    if name.startswith("hub:"):  # ORG/MODEL as it is; of a folder its name
        model = name[4:].rstrip("/")
        return model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and model[0] != "." else model.split("/")[-1]
    if len(tasks) < _MANY_TASKS:
        return intermediate_title(name)
    return f"Multi-task ({len(tasks)})" + (" + MLM" if "mlm" in name.split("+") else "")


def intermediate_order(name: str) -> tuple[int, int, int, str]:
    """Sorts as the paper does: single tasks, variants behind their base, mixtures, hub models."""
    known = list(_INTERMEDIATE_TITLES)
    parts = name.split("+")
    base = parts[0].partition("@")[0]
    mixture = len([part for part in parts if part != "mlm"]) > 1
    place = known.index(base) if base in known else len(known)
    return (2 if name.startswith("hub:") else int(mixture), place, len(parts), name)
