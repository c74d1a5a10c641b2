"""Names on the page: tasks, metrics, intermediates, languages; and which languages a benchmark's averages run over."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import pandas as pd

from stilts_jax.evaluation import benchmarks as evaluation

GROUP_TITLES = {
    "classification": "Sentence pairs",
    "tagging": "Structured",
    "qa": "Question answering",
    "retrieval": "Retrieval",
    "other": "Other",
}
# Intermediates in the order of the paper's rows, then targets.
_INTERMEDIATES = {
    **{"none": "none", "anli": "ANLI", "anliplus": "ANLI+", "mnli": "MNLI", "snli": "SNLI", "qqp": "QQP"},
    **{"squad_v1": "SQuAD v1.1", "squad_v2": "SQuAD v2.0", "hellaswag": "HellaSwag", "ccg": "CCG"},
    **{"cosmosqa": "Cosmos QA", "commonsenseqa": "CSQA", "siqa": "SIQA", "copa": "COPA", "mlm": "MLM"},
}
CONTROLS = ("blind", "shuffled", "text")  # of tasks with pictures
_TITLES = _INTERMEDIATES | {
    **{"easy_vqa": "easy-VQA", "vqa_v2": "VQA v2", "gqa": "GQA", "xgqa": "xGQA", "nlvr2": "NLVR2"},
    **{
        "coco_captions": "COCO captions",
        "coco_matching": "COCO matching",
        "xvnli": "XVNLI",
        "marvl": "MaRVL",
    },
    **{"xnli": "XNLI", "pawsx": "PAWS-X", "xcopa": "XCOPA", "udpos": "POS", "panx": "NER", "xquad": "XQuAD"},
    **{"mlqa": "MLQA", "tydiqa": "TyDiQA", "bucc": "BUCC", "tatoeba": "Tatoeba", "mewslix": "Mewsli-X"},
    "lareqa": "LAReQA",
}
_METRICS = {"accuracy": "acc.", "f1": "F1", "em": "EM", "map": "mAP", "map20": "mAP@20", "mrr": "MRR"}
_MANY_TASKS = 4


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's tasks in the order of its paper, and the languages that its own average of each runs over."""

    title: str
    languages: dict[str, tuple[str, ...]]
    groups: dict[str, str]

    def coverage(self, task: str, languages: Sequence[str]) -> str:
        """``2 of 4 (and sw)``: how many of its languages of ``task`` are there, and what is not one of them.

        Empty where they are just its own, and for a task of others.
        """
        own, here = set(self.languages.get(task, ())), set(languages)
        if not own or own == here:
            return ""
        others = f" (and {', '.join(sorted(here - own))})" if here - own else ""
        return f"{len(here & own)} of {len(own)}{others}"


def find_benchmark(name: str) -> Benchmark:
    """Returns a benchmark by the name that evaluation gives it; raises ConfigError for another."""
    # The folder in predictions has another name than the task.
    tasks = {evaluation.OURS.get(key, key): one for key, one in evaluation.get_benchmark(name).items()}
    languages = {key: one.languages for key, one in tasks.items()}
    return Benchmark(name.upper(), languages, {key: one.group for key, one in tasks.items()})


def known_group(task: str) -> str:
    """The group of a task of either benchmark."""
    groups = [find_benchmark(name).groups.get(task, "") for name in evaluation.BENCHMARKS]
    return next(filter(None, groups), "other")


def metric_titles(metrics: Sequence[str]) -> list[str]:
    """Short names for a column head."""
    return [_METRICS.get(metric, metric) for metric in metrics]


def meaning(metrics: Sequence[str]) -> str:
    """What a task's value is: ``acc.``, ``mean of F1 and EM``."""
    return "mean of " * (len(metrics) > 1) + " and ".join(metric_titles(metrics))


def task_title(name: str) -> str:
    """``mnli+mlm`` -> ``MNLI + MLM``, ``mnli@de`` -> ``MNLI (de)``, ``easy_vqa.blind`` -> ``easy-VQA, blind``."""
    if name.startswith("hub:"):
        return name[4:]
    return " + ".join(map(_part_title, name.split("+")))


def _part_title(part: str) -> str:
    """What is not known stays as it is."""
    task, _, code = part.partition("@")
    base, _, control = task.rpartition(".")
    title = (
        f"{_TITLES[base]}, {control}" if base in _TITLES and control in CONTROLS else _TITLES.get(task, task)
    )
    return title + (f" ({code})" if code else "")


def short_title(name: str) -> str:
    """The same, but ``Multi-task (8)`` for a long list of tasks, and of a model's folder only its name."""
    tasks = [part for part in name.split("+") if part != "mlm"]
    if name.startswith("hub:"):
        model = name[4:].rstrip("/")
        return model if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model) else model.split("/")[-1]
    if len(tasks) < _MANY_TASKS:
        return task_title(name)
    return f"Multi-task ({len(tasks)})" + (" + MLM" if "mlm" in name.split("+") else "")


def intermediate_order(name: str) -> tuple[int, int, int, str]:
    """Sorts as the paper does: single tasks, variants behind their base, mixtures, hub models."""
    known, parts = list(_INTERMEDIATES), name.split("+")
    base = parts[0].partition("@")[0]
    mixture = len([part for part in parts if part != "mlm"]) > 1
    place = known.index(base) if base in known else len(known)
    return (2 if name.startswith("hub:") else int(mixture), place, len(parts), name)


@cache
def known_languages() -> pd.DataFrame:
    """Names and a few public facts of the benchmarks' languages, by code; see the head of ``languages.csv``."""
    with resources.files("stilts_jax.report").joinpath("languages.csv").open(encoding="utf-8") as stream:
        return pd.read_csv(stream, comment="#", keep_default_na=False).set_index("code")


def language_name(code: str) -> str:
    """``Swahili`` for ``sw``; the code itself for what is not known."""
    return str(known_languages()["name"].get(code, code))
