"""Reading ``result.json`` files: one record a phase, tolerant of what is broken or half there."""

import base64
import binascii
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stilts_jax.errors import RecordError
from stilts_jax.files import read_record

RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"
FORMAT = 2
BASELINE = "none"
_ITEM_TYPES = ("float32", "int32", "uint8")


@dataclass(frozen=True)
class Items:
    """What one run scored on each item of one language.

    Attributes:
        statistic: ``mean``: values are [n] in 0..1; otherwise [n, 3] counts (right, predicted, gold).
        values: [n] or [n, 3]
        aligned: whether item i is the same item in every language.
        ids: a digest of the items' ids in their order; empty in results of before they were kept.
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
    """One finished or failed phase. Fields are those of ``result.json``; ``path`` is where it was read.

    Attributes:
        error: why the phase failed; empty where it has scores.
        later_error: why a later attempt of a phase with scores failed.
        tuned: the tasks with thresholds that were tuned on dev sets of target languages.
    """

    path: Path
    key: str
    name: str
    stage: str
    intermediate: str
    target_training: str | None
    source_language: str
    intermediate_seed: int | None
    target_seed: int | None
    parent: str | None
    scores: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
    main_metric: Mapping[str, tuple[str, ...]]
    reported_split: Mapping[str, str]
    selection: Mapping[str, Any]
    history: tuple[tuple[float, float], ...]
    raw_items: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(repr=False)
    curve: tuple[tuple[float, float], ...] = field(repr=False)
    throughput: Mapping[str, Any]
    environment: Mapping[str, Any]
    config: Mapping[str, Any] = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)
    error: str
    later_error: str = ""
    tuned: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int | None, int | None]:
        """(intermediate seed, target seed)"""
        return self.intermediate_seed, self.target_seed

    @property
    def collapsed(self) -> bool:
        """Whether training ended at chance level."""
        return bool(self.selection.get("collapsed"))

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on how the checkpoint was selected."""
        return tuple(self.selection["notes"])

    @property
    def source_dev_score(self) -> float | None:
        """The score on the dev set of the language that was trained on; of the selected step where that is all."""
        recorded = self.selection["source_dev"]["score"]
        if math.isfinite(recorded):
            return recorded
        if not self.selection.get("zero_shot", True):
            return None
        at_best = [score for step, score in self.history if step == self.selection.get("best_step")]
        return max(at_best or [score for _, score in self.history], default=None)

    def tasks(self) -> tuple[str, ...]:
        """The tasks that this phase was to score."""
        return tuple(dict.fromkeys([*self.main_metric, *self.reported_split, *self.scores]))

    def split(self, task: str) -> str:
        """The split that tables show of ``task``."""
        return self.reported_split.get(task, "test")

    def metrics(self, task: str) -> tuple[str, ...]:
        """The metrics whose mean is the value of ``task``."""
        return self.main_metric.get(task, ("accuracy",))

    def language_scores(self, task: str, split: str | None = None) -> dict[str, tuple[float, ...]]:
        """Returns the main metrics of each language that has all of them, in percent."""
        by_metric = self.scores.get(task, {}).get(split or self.split(task), {})
        metrics = self.metrics(task)
        languages = by_metric.get(metrics[0], {})
        found = {}
        for language in languages:
            values = tuple(by_metric.get(metric, {}).get(language, math.nan) for metric in metrics)
            if all(math.isfinite(value) for value in values):
                found[language] = values
        return found

    def items(self, task: str) -> dict[str, Items]:
        """Decodes the items of ``task`` by language; what can't be decoded is left out."""
        decoded = {}
        for language, raw in self.raw_items.get(task, {}).items():
            items = _decode_items(raw)
            if items is not None:
                decoded[language] = items
        return decoded


@dataclass(frozen=True)
class Broken:
    """A file that is no usable result, and why."""

    path: Path
    reason: str


def read_results(workdir: Path) -> tuple[list[Run], list[Broken]]:
    """Reads every ``result.json`` and ``failure.json`` below ``workdir``.

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
    kept, superseded = _drop_superseded(runs)
    return kept, broken + superseded


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


def _drop_superseded(runs: Sequence[Run]) -> tuple[list[Run], list[Broken]]:
    """Of phases of one name, run with several settings in one work directory, keeps the one that finished last.

    Two settings in one cell would look like two seeds.
    """
    newest: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (not run.error, str(run.environment.get("finished") or ""))):
        newest[run.name] = run
    old = [run for run in runs if newest[run.name] is not run]
    return [run for run in runs if newest[run.name] is run], [
        Broken(run.path, f"{run.name} was run with other settings too ({newest[run.name].path.parent.name})")
        for run in old
    ]


def read_run(path: Path) -> Run:
    """Reads one ``result.json`` or ``failure.json``.

    Raises:
        FileNotFoundError: there is none.
        RecordError: it is damaged, or of another version.
        ValueError, TypeError, KeyError, AttributeError: it does not hold what a result holds.
    """
    record = read_record(path, FORMAT)
    phase = record["phase"]
    error = record.get("error")
    environment = dict(record.get("environment") or {})
    selection = dict(record.get("selection") or {})
    source_dev = dict(selection.get("source_dev") or {})
    return Run(
        path=path,
        key=str(phase["key"]),
        name=str(phase.get("name") or phase["key"]),
        stage=str(phase["stage"]),
        intermediate=str(phase.get("intermediate") or BASELINE),
        target_training=_optional(phase.get("target_training"), str),
        source_language=str(phase.get("source_language") or "en"),
        intermediate_seed=_optional(phase.get("intermediate_seed"), int),
        target_seed=_optional(phase.get("target_seed"), int),
        parent=_optional(phase.get("parent"), str),
        scores=_checked_scores(record.get("scores") or {}),
        main_metric={
            task: tuple(str(metric) for metric in metrics)
            for task, metrics in (record.get("main_metric") or {}).items()
            if metrics
        },
        reported_split={task: str(split) for task, split in (record.get("reported_split") or {}).items()},
        selection=selection
        | {
            "notes": [str(note) for note in selection.get("notes") or ()],
            "source_dev": source_dev | {"score": _as_float(source_dev.get("score"))},
        },
        history=_as_points(selection.get("history")),
        raw_items={task: dict(items) for task, items in (record.get("items") or {}).items()},
        curve=_as_points(record.get("curve")),
        throughput=dict(record.get("throughput") or {}),
        environment=environment | {"versions": dict(environment.get("versions") or {})},
        config=dict(record.get("config") or {}),
        data={
            task: {split: dict(one) for split, one in splits.items()}
            for task, splits in (record.get("data") or {}).items()
        },
        error=f"{error.get('type', 'Error')}: {error.get('message', '')}" if error else "",
        tuned=tuple(
            task
            for task, found in (record.get("thresholds") or {}).items()
            if set(found) - {str(phase.get("source_language") or "en")}
        ),
    )


def _checked_scores(scores: dict) -> dict:
    """Turns null and non-numbers into NaN, so that one bad value costs one cell and not the file."""
    return {
        task: {
            split: {
                metric: {language: _as_float(value) for language, value in by_language.items()}
                for metric, by_language in by_metric.items()
            }
            for split, by_metric in by_split.items()
        }
        for task, by_split in scores.items()
    }


T = TypeVar("T")


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
        if raw["dtype"] not in _ITEM_TYPES:
            return None
        dtype = np.dtype(raw["dtype"]).newbyteorder("<")
        shape = tuple(int(size) for size in raw["shape"])
        values = np.frombuffer(zlib.decompress(base64.b64decode(raw["data"])), dtype).reshape(shape)
        if len(shape) != (1 if raw["statistic"] == "mean" else 2):
            return None
        ids = str(raw.get("ids") or "")
        return Items(str(raw["statistic"]), values, bool(raw.get("aligned", False)), ids)
    except (KeyError, TypeError, ValueError, zlib.error, binascii.Error):
        return None
