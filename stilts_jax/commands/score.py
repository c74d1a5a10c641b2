"""Score folders of predictions in XTREME's official formats.

PREDICTIONS holds TASK/test-LL.tsv (or .json, .jsonl); GOLD holds the same layout with labels, the releases' own files,
or what `stilts prepare` fetched. Needs no accelerator. Prints a task per line with the mean over the languages that are
there; the averages of the benchmark need all of them.
"""

from argparse import Namespace
from typing import Any

from stilts_jax.commands.options import Add, joined_names
from stilts_jax.errors import ConfigError
from stilts_jax.files import check_out, local_path
from stilts_jax.progress import counted


def add_arguments(add: Add) -> None:
    add("--benchmark", default=None)
    told = "score these, joined by +, instead of a benchmark; also my.module:TASK"
    add("--task", told, type=joined_names, action="extend", metavar="TASK")
    add("--predictions", type=local_path, required=True)
    add("--gold", type=local_path, required=True)
    add("--out", "write all scores, language by language, as JSON too")


def run(arguments: Namespace) -> None:
    from stilts_jax.evaluation.submission import score_predictions, score_tasks
    from stilts_jax.evaluation.xtreme_up import score_files
    from stilts_jax.files import write_json

    if arguments.task and arguments.benchmark:
        what, fix = "Tasks and a benchmark can't be scored at once.", "leave --task or --benchmark out"
        raise ConfigError(what, where="stilts score", fix=fix)
    if arguments.out is not None:
        check_out(arguments.out)
    places = arguments.predictions, arguments.gold, arguments.progress
    if arguments.task:
        scores = score_tasks(arguments.task, *places)
    elif arguments.benchmark == "xtreme-up":
        scores = score_files(arguments.predictions, arguments.gold)
    else:
        scores = score_predictions(arguments.benchmark or "xtreme", *places)
    print(_format(scores))
    if arguments.out is not None:
        write_json(arguments.out, scores)


def _format(scores: dict[str, Any]) -> str:
    """A task per line: the mean over its languages that are there, and which are missing."""
    missing: dict[str, list[str]] = {}
    for name in scores["missing"]:
        task, _, language = name.partition("/")
        missing.setdefault(task, []).append(language)
    lines = [f"{'task':12} {'mean':>7}  languages"]
    for name, task in scores["tasks"].items():
        lost = f", missing: {' '.join(missing[name])}" if name in missing else ""
        lines.append(f"{name:12} {task['mean']:7.2f}  {len(task['languages'])}{lost}")
    lines.append(f"{'mean':12} {scores['mean']:7.2f}  of {counted(len(scores['tasks']), 'task')}")
    if "benchmark" in scores:
        overall = scores["overall"]
        lines.append(f"{scores['benchmark']:12} {'-' if overall is None else f'{overall:.2f}':>7}")
        parts = {**scores.get("groups", {}), **scores.get("averages", {}), "all": None}
        for name, value in parts.items():
            lines += [f"  {name.replace('_', ' '):30} {value:7.2f}"] if value is not None else []
    if absent := [name for name in missing if name not in scores["tasks"]]:
        lines.append(f"tasks without predictions or gold: {', '.join(absent)}")
    return "\n".join(lines)
