"""``result.json`` files as one frame, a row a score; a file that can't be used costs itself only."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilts_jax.errors import DataError, RecordError
from stilts_jax.evaluation.metrics import Items
from stilts_jax.experiment.results import FAILURE, FORMAT, RESULT, decode_items
from stilts_jax.files import open_path, read_record

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "none"
_PHASE = (
    "phase",
    "key",
    "stage",
    "intermediate",
    "target",
    "source_language",
    "intermediate_seed",
    "target_seed",
)
_SCORE = (
    "task",
    "group",
    "split",
    "reported",
    "metric",
    "main",
    "language",
    "value",
    "zero_shot",
    "settings",
)


class Run:
    """One phase that has scores, or failed: its ``result.json`` or ``failure.json``.

    Attributes:
        target: what a target phase trains on; None for retrieval.
        seeds: (intermediate seed, target seed)
        scores: (task, split, metric, language, percent)
        tasks: those that this phase was to score.
        names: (title, group) by task; an empty title where the name serves.
        tuned: languages with a threshold that was tuned on their dev set, by task; without the source language.
        source_dev: the score on the dev set of what was trained, in the language of training; None if there is none.
        error: why the phase failed; empty where it has scores.
        later_error: why a later attempt of a phase with scores failed.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        phase, selection, error = record["phase"], record.get("selection") or {}, record.get("error")
        self.folder, self.later_error = folder, ""
        self.key, self.name, self.stage, self.parent = (
            phase[one] for one in ("key", "name", "stage", "parent")
        )
        self.intermediate, self.target = phase["intermediate"], phase["target_training"]
        self.source_language = phase["source_language"]
        self.seeds: tuple[int | None, int | None] = (phase["intermediate_seed"], phase["target_seed"])
        self.scores = [
            (task, split, metric, language, math.nan if value is None else float(value))
            for task, by_split in record["scores"].items()
            for split, by_metric in by_split.items()
            for metric, by_language in by_metric.items()
            for language, value in by_language.items()
        ]
        self._main_metric, self._reported_split = record["main_metric"], record["reported_split"]
        self.tasks = list(dict.fromkeys([*self._main_metric, *self._reported_split, *record["scores"]]))
        self.names = {task: (one["title"], one["group"]) for task, one in record.get("tasks", {}).items()}
        thresholds = record.get("thresholds") or {}
        self.tuned = {task: {*codes} - {self.source_language} for task, codes in thresholds.items()}
        self.zero_shot, self.collapsed = selection.get("zero_shot", True), bool(selection.get("collapsed"))
        self.notes, self.best_step = list(selection.get("notes") or ()), selection.get("best_step")
        self.source_dev = (selection.get("source_dev") or {}).get("score")
        self._items, self.curve = record.get("items") or {}, record.get("curve") or []
        self.throughput, self.environment = record.get("throughput") or {}, record.get("environment") or {}
        self.config, self.data = record.get("config") or {}, record.get("data") or {}
        self.error = f"{error['type']}: {error['message']}" if error else ""

    def split(self, task: str) -> str:
        """The split that tables show of ``task``."""
        return self._reported_split.get(task, "test")

    def metrics(self, task: str) -> list[str]:
        """The metrics whose mean is the value of ``task``."""
        return self._main_metric.get(task) or ["accuracy"]

    def items(self, task: str) -> dict[str, tuple[Items, bool]]:
        """The items of ``task`` by language, and whether item i is the same item in every language."""
        decoded = {code: decode_items(raw) for code, raw in self._items.get(task, {}).items()}
        return {code: found for code, found in decoded.items() if found}


@dataclass(frozen=True)
class Broken:
    """A phase's folder without a usable result, or a file that is none, and why."""

    path: str
    reason: str


def load_results(workdir: str | Path) -> "pd.DataFrame":
    """Returns every score of a work directory as a tidy frame, a row a score.

    Columns: ``phase``, ``key``, ``stage``, ``intermediate``, ``target`` (what was trained on), ``source_language``,
    ``intermediate_seed``, ``target_seed``, ``task``, ``group``, ``split``, ``reported`` (the split that tables show),
    ``metric``, ``main`` (one of the metrics whose mean is the task's value), ``language``, ``value`` (percent),
    ``zero_shot`` (nothing was trained, selected or tuned on the language) and ``settings`` (JSON of what not all
    phases have in common; the common part is ``frame.attrs["settings"]``).

    The paper's table:

        >>> import stilts_jax as sj
        >>> scores = sj.load_results(workdir / "grid").query("reported and main and stage != 'intermediate'")
        >>> seeds = ["intermediate_seed", "target_seed"]
        >>> runs = scores.groupby(["intermediate", "task", *seeds], dropna=False).value.mean()
        >>> table = runs.groupby(["intermediate", "task"]).mean().unstack("task")
        >>> table.loc[table.index != "none"] -= table.loc["none"]
        >>> latex = table.round(1).to_latex()

    Raises:
        DataError: there is no result.
    """
    runs, _ = read_results(open_path(str(workdir)))
    if not runs:
        fix = "run `stilts grid` first, or give the folder that it wrote to"
        raise DataError("There are no results.", where=f"{workdir}/phases", fix=fix)
    return make_frame(runs)


def make_frame(runs: Sequence[Run]) -> "pd.DataFrame":
    """Returns the scores of ``runs``; see ``load_results``."""
    import pandas as pd  # takes a while, and a command line without a report does without

    common, own = split_configs([run.config for run in runs])
    trained = {"en", *(run.source_language for run in runs)}
    rows = []
    for run, config in zip(runs, own):
        who = (
            run.name,
            run.key,
            run.stage,
            run.intermediate,
            run.target or "",
            run.source_language,
            *run.seeds,
        )
        settings = json.dumps(config, sort_keys=True, default=str)
        for task, split, metric, language, value in run.scores:
            group, reported = run.names.get(task, ("", ""))[1], run.split(task) == split
            unseen = run.zero_shot and language not in trained and language not in run.tuned.get(task, ())
            score = (task, group, split, reported, metric, metric in run.metrics(task), language, value)
            rows.append((*who, *score, unseen, settings))
    kinds = {"intermediate_seed": "Int64", "target_seed": "Int64", "value": float}
    kinds |= dict.fromkeys(("reported", "main", "zero_shot"), bool)
    frame = pd.DataFrame(rows, columns=[*_PHASE, *_SCORE]).astype(kinds)
    frame.attrs["settings"] = common
    return frame


def split_configs(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what all configurations agree on, and what each has beyond that."""
    common: dict[str, Any] = {}
    rest: list[dict[str, Any]] = [{} for _ in configs]
    for name in sorted({name for config in configs for name in config}):
        there = [config[name] for config in configs if name in config]
        if len(there) == len(configs) and all(isinstance(value, Mapping) for value in there):
            shared, different = split_configs(there)
            common |= {name: shared} if shared else {}
            for own, value in zip(rest, different):
                own |= {name: value} if value else {}
        elif len(there) == len(configs) and all(value == there[0] for value in there):
            common[name] = there[0]
        else:
            for own, config in zip(rest, configs):
                own |= {name: config[name]} if name in config else {}
    return common, rest


def read_results(workdir: Path) -> tuple[list[Run], list[Broken]]:
    """Reads the results and failures of all phases below ``workdir``, in the order of their folders.

    Of phases of one name, run with several settings in one work directory, the one that finished last is kept: two
    settings in one cell would look like two seeds.
    """
    runs: list[Run] = []
    broken: list[Broken] = []
    phases = workdir / "phases"
    for folder in sorted(path for path in phases.iterdir() if path.is_dir()) if phases.is_dir() else ():
        result, failure = (_try_to_read(folder / name, broken) for name in (RESULT, FAILURE))
        if result:
            result.later_error = failure.error if failure else ""
            runs.append(result)
        elif failure:
            runs.append(failure)
        elif not (folder / RESULT).exists():
            broken.append(Broken(folder.name, "no result.json: not finished"))
    order = sorted(runs, key=lambda run: (not run.error, str(run.environment.get("finished") or "")))
    newest = {run.name: run for run in order}
    for run in runs:
        if newest[run.name] is not run:
            why = f"{run.name} was run with other settings too ({newest[run.name].folder.name})"
            broken.append(Broken(run.folder.name, why))
    return [run for run in runs if newest[run.name] is run], broken


def _try_to_read(path: Path, broken: list[Broken]) -> Run | None:
    name = f"{path.parent.name}/{path.name}"
    try:
        return read_run(path)
    except FileNotFoundError:
        return None
    except RecordError as error:
        broken.append(Broken(name, error.what))
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:  # it has a digest, so another program wrote it
        broken.append(Broken(name, f"it is no result: {error!r}"))
    return None


def read_run(path: Path) -> Run:
    """Reads one ``result.json`` or ``failure.json``; raises FileNotFoundError, or RecordError for a damaged one."""
    return Run(path.parent, read_record(path, FORMAT))
