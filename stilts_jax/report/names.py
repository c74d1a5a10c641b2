"""Names on the page: tasks, metrics, intermediates, languages; the small tables that come with the package."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

import pandas as pd

from stilts_jax.evaluation.benchmarks import get_benchmark
from stilts_jax.tasks.spec import Task

GROUP_TITLES = {
    **{"classification": "Sentence pairs", "tagging": "Structured", "qa": "Question answering"},
    **{"retrieval": "Retrieval", "other": "Other"},
}
# Intermediates in the order of the paper's rows.
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


def find_benchmark(name: str) -> Mapping[str, Task]:
    """A benchmark's tasks in its order, by our names, with the languages that its averages run over."""
    return {task.name: task for task in get_benchmark(name).values()}


def metric_titles(metrics: Sequence[str]) -> list[str]:
    """Short names for a column head."""
    return [_METRICS.get(metric, metric) for metric in metrics]


def meaning(metrics: Sequence[str]) -> str:
    """What a task's value is: ``acc.``, ``mean of F1 and EM``."""
    return "mean of " * (len(metrics) > 1) + " and ".join(metric_titles(metrics))


def task_title(name: str) -> str:
    """``mnli+mlm`` -> ``MNLI + MLM``, ``mnli@de`` -> ``MNLI (de)``, ``easy_vqa.blind`` -> ``easy-VQA, blind``."""
    parts = []
    for part in name.split("+"):
        task, _, code = part.partition("@")
        base, _, control = task.rpartition(".")
        known = base in _TITLES and control in CONTROLS
        parts.append(f"{_TITLES[base]}, {control}" if known else _TITLES.get(task, task))
        parts[-1] += f" ({code})" if code else ""
    return name[4:] if name.startswith("hub:") else " + ".join(parts)


def short_title(name: str) -> str:
    """The same, but ``Multi-task (8)`` for a long list of tasks, and of a model's folder only its name."""
    if name.startswith("hub:"):
        model = name[4:].rstrip("/")
        return model if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model) else model.split("/")[-1]
    parts = name.split("+")
    count = len(parts) - parts.count("mlm")
    return f"Multi-task ({count})" + " + MLM" * ("mlm" in parts) if count >= _MANY_TASKS else task_title(name)


def intermediate_order(name: str) -> tuple[int, int, int, str]:
    """Sorts as the paper does: single tasks, variants behind their base, mixtures, hub models."""
    known, parts = list(_INTERMEDIATES), name.split("+")
    base = parts[0].partition("@")[0]
    place = known.index(base) if base in known else len(known)
    return 2 if name.startswith("hub:") else int(len(parts) - parts.count("mlm") > 1), place, len(parts), name


@cache
def read_table(name: str) -> pd.DataFrame:
    """One of the tables that come with the package: ``languages.csv`` by code, ``published.csv``; see their heads."""
    with resources.files("stilts_jax.report").joinpath(name).open(encoding="utf-8") as stream:
        table = pd.read_csv(stream, comment="#", keep_default_na=False)
    return table.set_index("code") if "code" in table else table


def language_name(code: str) -> str:
    """``Swahili`` for ``sw``; the code itself for what is not known."""
    return str(read_table("languages.csv")["name"].get(code, code))
