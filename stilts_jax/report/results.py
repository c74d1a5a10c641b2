"""``result.json`` files as one frame, a row a score; a file that can't be used costs itself only."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stilts_jax.errors import DataError, RecordError
from stilts_jax.evaluation.metrics import Items
from stilts_jax.experiment.results import FAILURE, FORMAT, RESULT, decode_items
from stilts_jax.files import open_path, read_record
from stilts_jax.report.names import languages_of
from stilts_jax.tasks.languages import our_code
from stilts_jax.tasks.spec import names

BASELINE = "none"
_LOGIN = re.compile(r"://(?:[^/@\s\"'\\]|\\\\)+@")  # a name and a password in a URL, in JSON
_COLUMNS = names(
    "phase key stage intermediate target source_language intermediate_seed target_seed "
    "task group split reported metric main language value zero_shot settings"
)


class Run:
    """One phase that has scores, or failed, from its ``result.json`` or ``failure.json``.

    ``scores`` are (task, split, metric, language, percent), ``names`` the (title, group) of each task, ``tuned`` the
    languages but the source whose threshold was tuned on their own dev set; ``target`` is None for retrieval;
    ``trained_in`` are the languages of all training that it stands on;
    ``in_language`` says that it was scored in nothing but the language of its training, which its tasks name;
    ``error`` says why the phase failed, ``later_error`` why a later attempt of one with scores did.
    """

    def __init__(self, path: Path) -> None:
        record = read_record(path, FORMAT)
        # An encoder may be a URL with a password, which commands and messages say too.
        told = {name: record.get(name) for name in ("config", "environment", "error", "selection")}
        record |= json.loads(_LOGIN.sub("://", json.dumps(told, ensure_ascii=False)))
        phase, error, selection = record["phase"], record["error"], record["selection"] or {}

        def part(name: str) -> dict[str, Any]:
            return dict(record.get(name) or {})

        self.folder, self.later_error = path.parent, ""
        self.error = f"{error['type']}: {error['message']}" if error else ""
        self.key, self.name, self.stage = (phase[one] for one in ("key", "name", "stage"))
        self.intermediate, self.source_language = phase["intermediate"], phase["source_language"]
        self.parent, self.target = phase.get("parent"), phase.get("target_training")
        self.seeds: tuple[int | None, int | None] = phase.get("intermediate_seed"), phase.get("target_seed")
        self.scores = [
            (task, split, metric, language, math.nan if value is None else float(value))
            for task, by_split in record["scores"].items()
            for split, by_metric in by_split.items()
            for metric, by_language in by_metric.items()
            for language, value in by_language.items()
        ]
        self._main_metric, self._reported_split = record["main_metric"], record["reported_split"]
        self.tasks = list(dict.fromkeys([*self._main_metric, *self._reported_split, *record["scores"]]))
        names = [task.rpartition("@")[2] for task in self.tasks]
        self.in_language = self.stage == "target" and set(names) == {self.source_language}
        # Retrieval trains on nothing, whatever its source language is called.
        own = () if self.stage == "retrieval" else (self.source_language,)
        # The name of a row of several tasks does not say in which language one of a user's own is.
        data = [one["data"] for task, one in part("config").get("tasks", {}).items() if task != "mlm"]
        read = {place.removeprefix("train/") for places in data for place in places}
        codes = {*own, *read, *languages_of(self.intermediate)}
        self.trained_in = codes | {*map(our_code, codes)}  # a task of one's own keeps the codes of its files
        self.names = {task: (one["title"], one["group"]) for task, one in part("tasks").items()}
        # Mining tunes on each language's own dev set, questions without an answer on the source language's alone.
        self.tuned = {
            task: {*codes} - {self.source_language}
            for task, codes in part("thresholds").items()
            if part("tasks").get(task, {}).get("metric") != "squad_v2"
        }
        self.zero_shot, self.collapsed = selection.get("zero_shot", True), bool(selection.get("collapsed"))
        self.notes, self.best_step = list(selection.get("notes") or ()), selection.get("best_step")
        self.source_dev = (selection.get("source_dev") or {}).get("score")
        self.curve = [(float(step), float(loss)) for step, loss in record.get("curve") or ()]
        self._items = {task: dict(by_language) for task, by_language in part("items").items()}
        self.retrieval = dict(part("evaluation").get("retrieval") or {})
        self.config, self.environment = part("config"), part("environment")
        self.scored_rows = int(self.config.get("scored_rows") or 0)  # of each language; 0 (or not said): all
        self.data, self.throughput = part("data"), part("throughput")

    def split(self, task: str) -> str:
        """The split that tables show of ``task``."""
        return self._reported_split.get(task, "test")

    def metrics(self, task: str) -> list[str]:
        """The metrics whose mean is the value of ``task``."""
        return self._main_metric.get(task) or ["accuracy"]

    def items(self, task: str) -> dict[str, Items]:
        """The items of ``task`` by language."""
        decoded = {code: decode_items(raw) for code, raw in self._items.get(task, {}).items()}
        return {code: found for code, found in decoded.items() if found}


def load_results(workdir: str | Path) -> pd.DataFrame:
    """Returns the scores of a work directory as a tidy frame, a row a score.

    Of phases of one name, run with several settings, the last is here, as in the report, which names the others.

    ``target`` is what was trained on, ``reported`` says that tables show the split, ``main`` that the metric is one of
    those whose mean is the task's value, ``value`` is in percent, ``zero_shot`` says that nothing in the work directory
    was trained on the language, nor this selected or tuned on it; ``settings`` are JSON of what not all phases have in
    common (the common part is ``frame.attrs["settings"]``). The paper's table (the report's leaves out languages that
    XTREME lacks):

        >>> import stilts_jax as sj
        >>> scores = sj.load_results(workdir / "grid").query("reported and main and stage != 'intermediate'")
        >>> seeds = ["intermediate_seed", "target_seed"]
        >>> runs = scores.groupby(["intermediate", "task", *seeds], dropna=False).value.mean()
        >>> table = runs.groupby(["intermediate", "task"]).mean().unstack("task")
        >>> table.loc[table.index != "none"] -= table.loc["none"]
        >>> latex = table.round(1).to_latex()
    """
    return make_frame(read_results(open_path(str(workdir)))[0])


def make_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns the scores of ``runs``; see ``load_results``."""
    done = [run for run in runs if run.scores]  # a failed one has no settings
    common, own = split_configs([run.config for run in done])
    trained = set[str]().union(*(run.trained_in for run in runs))
    rows = []
    for run, config in zip(done, own):
        who = run.name, run.key, run.stage, run.intermediate, run.target or "", run.source_language
        settings = json.dumps(config, sort_keys=True, default=str)
        for task, split, metric, language, value in run.scores:
            group, reported = run.names.get(task, ("", ""))[1], run.split(task) == split
            unseen = run.zero_shot and language not in trained and language not in run.tuned.get(task, ())
            score = (task, group, split, reported, metric, metric in run.metrics(task), language, value)
            rows.append((*who, *run.seeds, *score, unseen, settings))
    kinds = {"intermediate_seed": "Int64", "target_seed": "Int64", "value": float}
    kinds |= dict.fromkeys(("reported", "main", "zero_shot"), bool)
    frame = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(kinds)
    frame.attrs["settings"] = common
    return frame


def split_configs(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what all configurations agree on, and what each has beyond that."""
    common: dict[str, Any] = {}
    rest = [dict(config) for config in configs]
    for name in sorted(set(rest[0]).intersection(*rest[1:]) if rest else ()):
        values = [one.pop(name) for one in rest]
        if all(isinstance(value, Mapping) for value in values):
            shared, values = split_configs(values)
            common |= {name: shared} if shared else {}
            rest = [one | ({name: value} if value else {}) for one, value in zip(rest, values)]
        elif all(value == values[0] for value in values):
            common[name] = values[0]
        else:
            rest = [one | {name: value} for one, value in zip(rest, values)]
    return common, rest


def read_results(workdir: Path) -> tuple[list[Run], dict[str, str]]:
    """Reads the results and failures of all phases, in the order of their folders; a DataError where there is none.

    Returned with them is what could not be used, and why, by its path. Of phases of one name, run with several settings
    in one work directory, the one that finished last is kept: two settings in one cell would look like two seeds.
    """
    runs, broken, phases = list[Run](), dict[str, str](), workdir / "phases"
    for folder in sorted(path for path in phases.iterdir() if path.is_dir()) if phases.is_dir() else ():
        found: dict[str, Run] = {}
        for name in (RESULT, FAILURE):
            try:
                found[name] = Run(folder / name)
            except FileNotFoundError:
                pass
            except RecordError as error:
                broken[f"{folder.name}/{name}"] = error.what
            except OSError as error:
                broken[f"{folder.name}/{name}"] = f"it can't be read: {error.strerror or error}"
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                # Its digest is right, so another program wrote it.
                broken[f"{folder.name}/{name}"] = f"it is no result: {error!r}"
        if len(found) == 2:
            found[RESULT].later_error = found[FAILURE].error
        runs += list(found.values())[:1]
        if not found and not (folder / RESULT).exists():
            broken[folder.name] = "no result.json: not finished"
    if not runs:
        fix = "run `stilts grid` first, or give the folder that it wrote to"
        reason = "no finished phase" if workdir.is_dir() else "the folder does not exist"
        # The folder above, as a demo's, or one inside, as that of a phase.
        near = [*sorted(workdir.glob("*/phases")), *(one / "phases" for one in [*workdir.parents][:2])]
        if not phases.is_dir() and (there := [one for one in near if one.is_dir()]):
            fix = f"give {there[0].parent}"
        raise DataError(f"There are no results: {reason}.", where=str(phases), fix=fix)
    order = sorted(runs, key=lambda run: (not run.error, str(run.environment.get("finished") or "")))
    newest = {run.name: run for run in order}
    for run in runs:
        if (last := newest[run.name]) is not run:
            told = f"{run.name} was run with other settings too ({last.folder.name})"
            stands = any(one.parent == run.key for one in newest.values())
            broken[run.folder.name] = told + "; rows here still start from it" * stands
    return [run for run in runs if newest[run.name] is run], broken
