"""Names on the page: tasks, metrics, intermediates, languages; the small tables that come with the package."""

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

import pandas as pd

from stilts_jax.tasks import CONTROLS, get_task, list_tasks
from stilts_jax.tasks.spec import Task, names

GROUP_TITLES = {"classification": "Classification", "tagging": "Tagging", "qa": "Question answering"}
GROUP_TITLES |= {"retrieval": "Retrieval", "other": "Other"}
# Intermediates in the order of the paper's rows.
_ORDER = names("none anli mnli snli qqp squad_v1 squad_v2 hellaswag ccg cosmosqa commonsenseqa siqa copa mlm")
_SKILLS = {"choice": "multiple choice", "tag": "tagging", "span": "question answering"}  # by kind of task
_METRICS = {"accuracy": "acc.", "f1": "F1", "em": "EM", "map": "mAP", "mrr": "MRR"}
_MANY_TASKS = 4


def metric_title(metric: str) -> str:
    """A short name for a column head."""
    return _METRICS.get(metric, metric)


def meaning(metrics: Sequence[str]) -> str:
    """What a task's value is: ``acc.``, ``mean of F1 and EM``."""
    return "mean of " * (len(metrics) > 1) + " and ".join(map(metric_title, metrics))


def _declared(part: str) -> tuple[Task | None, str, str]:
    """``easy_vqa.blind@de``: the task as the package declares it, if it does; its control and its language."""
    name, _, code = part.partition("@")
    base, _, control = name.rpartition(".")
    name, control = (base, control) if control in CONTROLS else (name, "")
    return get_task(name) if name in list_tasks() else None, control, code


def task_title(name: str) -> str:
    """``mnli+mlm`` -> ``MNLI + MLM``, ``mnli@de`` -> ``MNLI (de)``, ``easy_vqa.blind`` -> ``easy-VQA, blind``."""
    parts = []
    for part in name.split("+"):
        task, control, code = _declared(part)
        title = task.title + f", {control}" * bool(control) if task else part.partition("@")[0]
        parts.append(title + f" ({code})" * bool(code))
    return name[4:] if name.startswith("hub:") else " + ".join(parts)


def _language(part: str) -> str:
    """The language that a task is trained in: the one it names, else its own; "" where only its authors know."""
    task, _, code = _declared(part)
    return code or (task.source_language if task else "")


def languages_of(name: str) -> set[str]:
    """The languages that an intermediate training was in."""
    parts = [part for part in name.split("+") if part != "none"]
    return {"en"} if name.startswith("hub:") else set(map(_language, parts)) - {""}


def trained_on(name: str) -> str:
    """``English NLI`` for ``mnli``: what an intermediate training taught, in words of the field."""
    parts = [part for part in name.split("+") if part != "mlm"]
    if name.startswith("hub:") or not parts:
        return short_title(name)
    found = [(part, *_declared(part)) for part in parts]
    languages = "/".join(dict.fromkeys(language_name(code) for part in parts if (code := _language(part))))
    skills: dict[str, None] = {}
    for part, task, *_ in found:
        nli = task and "entailment" in task.labels and not task.pictures
        skill = "NLI" if nli else _SKILLS.get(task.kind if task else "")
        skills[skill or task_title(part.partition("@")[0])] = None
    several = f"several {languages} tasks" if len(skills) > 2 else f"{languages} {' and '.join(skills)}"
    return " ".join(several.split()) + " with MLM" * (len(parts) < len(name.split("+")))


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
    parts = name.split("+")
    place = [*_ORDER, base := parts[0].partition("@")[0]].index(base)
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
