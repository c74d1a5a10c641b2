"""``result.json`` files as one frame, a row a score; what is broken or half there costs itself only."""

import base64
import binascii
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stilts_jax.errors import DataError, RecordError
from stilts_jax.files import open_path, read_record

if TYPE_CHECKING:
    import pandas as pd

RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"
FORMAT = 2
BASELINE = "none"
_ITEM_TYPES = ("float32", "int32", "uint8")
_COLUMNS = (
    *(
        "phase",
        "key",
        "stage",
        "intermediate",
        "target",
        "source_language",
        "intermediate_seed",
        "target_seed",
    ),
    *("task", "group", "split", "reported", "metric", "main", "language", "value", "zero_shot", "settings"),
)
T = TypeVar("T")


@dataclass(frozen=True)
class Items:
    """What one run scored on each item of one language.

    Attributes:
        statistic: ``mean``: values are [n] in 0..1; otherwise [n, 3] counts (right, predicted, gold).
        values: [n] or [n, 3]
        aligned: whether item i is the same item in every language.
        ids: a digest of the items' ids in their order; empty where none was kept.
    """

    statistic: str
    values: np.ndarray
    aligned: bool
    ids: str = ""

    def score(self) -> float:
        """The percentage that the items add up to."""
        if self.values.ndim == 1:
            return 100.0 * float(np.mean(self.values, dtype=np.float64)) if len(self.values) else math.nan
        right, predicted, gold = self.values.sum(axis=0, dtype=np.float64)
        return 200.0 * right / (predicted + gold) if predicted + gold else 0.0


@dataclass(frozen=True)
class Run:
    """One finished or failed phase.

    Attributes:
        path: where it was read.
        target: what a target phase trains on; None for retrieval.
        scores: (task, split, metric, language, percent)
        main_metric: the metrics whose mean is the value of a task, by task.
        names: (title, group) by task; an empty title where the name serves.
        tuned: languages with a threshold that was tuned on their dev set, by task; without the source language.
        source_dev: the score on the dev set of what was trained, in the language of training.
        error: why the phase failed; empty where it has scores.
        later_error: why a later attempt of a phase with scores failed.
    """

    path: Path
    key: str
    name: str
    stage: str
    intermediate: str
    target: str | None
    source_language: str
    intermediate_seed: int | None
    target_seed: int | None
    parent: str | None
    scores: tuple[tuple[str, str, str, str, float], ...]
    main_metric: Mapping[str, tuple[str, ...]]
    reported_split: Mapping[str, str]
    names: Mapping[str, tuple[str, str]]
    tuned: Mapping[str, frozenset[str]]
    zero_shot: bool
    collapsed: bool
    notes: tuple[str, ...]
    best_step: object
    source_dev: float | None
    history: tuple[tuple[float, float], ...]
    curve: tuple[tuple[float, float], ...] = field(repr=False)
    raw_items: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(repr=False)
    throughput: Mapping[str, Any]
    environment: Mapping[str, Any]
    config: Mapping[str, Any] = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)
    error: str
    later_error: str = ""

    @property
    def seeds(self) -> tuple[int | None, int | None]:
        """(intermediate seed, target seed)"""
        return self.intermediate_seed, self.target_seed

    def tasks(self) -> tuple[str, ...]:
        """The tasks that this phase was to score."""
        scored = (task for task, *_ in self.scores)
        return tuple(dict.fromkeys([*self.main_metric, *self.reported_split, *scored]))

    def split(self, task: str) -> str:
        """The split that tables show of ``task``."""
        return self.reported_split.get(task, "test")

    def metrics(self, task: str) -> tuple[str, ...]:
        """The metrics whose mean is the value of ``task``."""
        return self.main_metric.get(task, ("accuracy",))

    def language_scores(self, task: str) -> dict[str, tuple[float, ...]]:
        """The main metrics of each language that has all of them, on the split that tables show."""
        here = (task, self.split(task))
        found = {(metric, code): value for *names, metric, code, value in self.scores if tuple(names) == here}
        rows = {
            code: tuple(found.get((one, code), math.nan) for one in self.metrics(task)) for _, code in found
        }
        return {code: row for code, row in rows.items() if all(map(math.isfinite, row))}

    def items(self, task: str) -> dict[str, Items]:
        """Decodes the items of ``task`` by language; what can't be decoded is left out."""
        decoded = {code: _decode_items(raw) for code, raw in self.raw_items.get(task, {}).items()}
        return {code: items for code, items in decoded.items() if items is not None}


@dataclass(frozen=True)
class Broken:
    """A file that is no usable result, and why."""

    path: Path
    reason: str


def load_results(workdir: str | Path) -> "pd.DataFrame":
    """Returns every score of a work directory as a tidy frame, a row a score.

    Columns: ``phase``, ``key``, ``stage``, ``intermediate``, ``target`` (what was trained on), ``source_language``,
    ``intermediate_seed``, ``target_seed``, ``task``, ``group``, ``split``, ``reported`` (the split that tables show),
    ``metric``, ``main`` (one of the metrics whose mean is the task's value), ``language``, ``value`` (percent),
    ``zero_shot`` (nothing was trained, selected or tuned on the language) and ``settings`` (JSON of what not all
    phases have in common; the common part is ``frame.attrs["settings"]``).

    The paper's table::

        scores = stilts_jax.load_results("W").query("reported and main and stage != 'intermediate'")
        runs = scores.groupby(["intermediate", "task", "intermediate_seed", "target_seed"], dropna=False).value.mean()
        table = runs.groupby(["intermediate", "task"]).mean().unstack("task")
        table.loc[table.index != "none"] -= table.loc["none"]
        print(table.round(1).to_latex())

    Raises:
        DataError: there is no result.
    """
    runs, _ = read_results(open_path(str(workdir)))
    if not runs:
        raise DataError(
            "There are no results.",
            where=f"{workdir}/phases",
            fix="run `stilts grid` first, or give the folder that it wrote to",
        )
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
    frame = pd.DataFrame(rows, columns=_COLUMNS).astype(kinds)
    frame.attrs["settings"] = common
    return frame


def split_configs(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what all configurations agree on, and what each has beyond that."""
    common: dict[str, Any] = {}
    rest: list[dict[str, Any]] = [{} for _ in configs]
    for name in sorted({name for config in configs for name in config}):
        values = [config.get(name) for config in configs]
        if all(isinstance(value, Mapping) for value in values):
            shared, different = split_configs([value for value in values if isinstance(value, Mapping)])
            common |= {name: shared} if shared else {}
            for own, value in zip(rest, different):
                own |= {name: value} if value else {}
        elif all(name in config for config in configs) and all(value == values[0] for value in values):
            common[name] = values[0]
        else:
            for own, config in zip(rest, configs):
                own |= {name: config[name]} if name in config else {}
    return common, rest


def read_results(workdir: Path) -> tuple[list[Run], list[Broken]]:
    """Reads every ``result.json`` and ``failure.json`` below ``workdir``.

    Of phases of one name, run with several settings in one work directory, the one that finished last is kept: two
    settings in one cell would look like two seeds.

    Returns:
        The runs in the order of their paths, and the files (or phase folders without one) that are of no use.
    """
    runs: list[Run] = []
    broken: list[Broken] = []
    phases = workdir / "phases"
    folders = sorted(path for path in phases.iterdir() if path.is_dir()) if phases.is_dir() else []
    for folder in folders:
        result = _try_to_read(folder / RESULT_FILE, broken)
        failure = _try_to_read(folder / FAILURE_FILE, broken)
        if result:
            runs.append(replace(result, later_error=failure.error if failure else ""))
        elif failure:
            runs.append(failure)
        elif not (folder / RESULT_FILE).exists():
            broken.append(Broken(folder, "no result.json: not finished"))
    newest = {
        run.name: run
        for run in sorted(runs, key=lambda run: (not run.error, str(run.environment.get("finished") or "")))
    }
    for run in runs:
        if newest[run.name] is not run:
            other = newest[run.name].path.parent.name
            broken.append(Broken(run.path, f"{run.name} was run with other settings too ({other})"))
    return [run for run in runs if newest[run.name] is run], broken


def _try_to_read(path: Path, broken: list[Broken]) -> Run | None:
    try:
        return read_run(path)
    except FileNotFoundError:
        return None
    except RecordError as error:
        broken.append(Broken(path, error.what))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        broken.append(Broken(path, f"{type(error).__name__}: {error}"))
    return None


def read_run(path: Path) -> Run:
    """Reads one ``result.json`` or ``failure.json``.

    Raises:
        FileNotFoundError: there is none.
        RecordError: it is damaged, or of another version.
        ValueError, TypeError, KeyError, AttributeError: it does not hold what a result holds.
    """
    record = read_record(path, FORMAT)
    phase, error = record["phase"], record.get("error")
    environment = dict(record.get("environment") or {})
    selection = dict(record.get("selection") or {})
    source = str(phase.get("source_language") or "en")
    history = _as_points(selection.get("history"))
    main = (record.get("main_metric") or {}).items()
    return Run(
        path=path,
        key=str(phase["key"]),
        name=str(phase.get("name") or phase["key"]),
        stage=str(phase["stage"]),
        intermediate=str(phase.get("intermediate") or BASELINE),
        target=_optional(phase.get("target_training"), str),
        source_language=source,
        intermediate_seed=_optional(phase.get("intermediate_seed"), int),
        target_seed=_optional(phase.get("target_seed"), int),
        parent=_optional(phase.get("parent"), str),
        scores=tuple(_walk_scores(record.get("scores") or {})),
        main_metric={task: tuple(str(metric) for metric in metrics) for task, metrics in main if metrics},
        reported_split={task: str(split) for task, split in (record.get("reported_split") or {}).items()},
        names={
            task: (str(one.get("title") or ""), str(one.get("group") or ""))
            for task, one in (record.get("tasks") or {}).items()
        },
        tuned={task: frozenset(found) - {source} for task, found in (record.get("thresholds") or {}).items()},
        zero_shot=selection.get("zero_shot") is not False,
        collapsed=bool(selection.get("collapsed")),
        notes=tuple(str(note) for note in selection.get("notes") or ()),
        best_step=selection.get("best_step"),
        source_dev=_source_dev(selection, history),
        history=history,
        curve=_as_points(record.get("curve")),
        raw_items={task: dict(items) for task, items in (record.get("items") or {}).items()},
        throughput=dict(record.get("throughput") or {}),
        environment=environment | {"versions": dict(environment.get("versions") or {})},
        config=dict(record.get("config") or {}),
        data={
            task: {split: dict(one) for split, one in splits.items()}
            for task, splits in (record.get("data") or {}).items()
        },
        error=f"{error.get('type', 'Error')}: {error.get('message', '')}" if error else "",
    )


def _walk_scores(scores: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, float]]:
    """Null and what is no number become NaN, so that one bad value costs one cell and not the file."""
    for task, by_split in scores.items():
        for split, by_metric in by_split.items():
            for metric, by_language in by_metric.items():
                for language, value in by_language.items():
                    yield task, split, metric, language, _as_float(value)


def _source_dev(selection: Mapping[str, Any], history: Sequence[tuple[float, float]]) -> float | None:
    """The score that was kept; of the selected step where there is only the history."""
    recorded = _as_float(dict(selection.get("source_dev") or {}).get("score"))
    if math.isfinite(recorded):
        return recorded
    if not selection.get("zero_shot", True):
        return None
    at_best = [score for step, score in history if step == selection.get("best_step")]
    return max(at_best or [score for _, score in history], default=None)


def _optional(value: object, kind: type[T]) -> T | None:
    if value is None or isinstance(value, kind):
        return value
    raise TypeError(f"{value!r} is not {kind.__name__}")


def _as_points(pairs: Sequence[Sequence[object]] | None) -> tuple[tuple[float, float], ...]:
    points = ((_as_float(step), _as_float(value)) for step, value in pairs or ())
    return tuple(point for point in points if all(map(math.isfinite, point)))


def _as_float(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _decode_items(raw: Mapping[str, Any]) -> Items | None:
    try:
        if raw["dtype"] not in _ITEM_TYPES or len(raw["shape"]) != (1 if raw["statistic"] == "mean" else 2):
            return None
        data = zlib.decompress(base64.b64decode(raw["data"]))
        values = np.frombuffer(data, np.dtype(raw["dtype"]).newbyteorder("<")).reshape(raw["shape"])
        return Items(
            str(raw["statistic"]), values, bool(raw.get("aligned", False)), str(raw.get("ids") or "")
        )
    except (KeyError, TypeError, ValueError, zlib.error, binascii.Error):
        return None
