"""``result.json`` and ``failure.json``: what a phase scored, and why its last attempt failed.

A failure never replaces scores. A report reads nothing else, and needs no JAX for it.
"""

import base64
import contextlib
import importlib.metadata
import platform
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stilts_jax.checked import split_names, stem
from stilts_jax.errors import RecordError
from stilts_jax.evaluation.metrics import MAIN_VALUES, Items
from stilts_jax.experiment.phases import Phase, find_instead
from stilts_jax.files import hash_record, read_record, write_record
from stilts_jax.progress import SILENT, Progress, counted
from stilts_jax.settings import Settings
from stilts_jax.tasks import get_task

if TYPE_CHECKING:
    from stilts_jax.experiment.context import Context

FORMAT = 2
RESULT = "result.json"
FAILURE = "failure.json"
_PACKAGES = ("stilts-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")
_BY_TASK = ("scores", "main_metric", "reported_split", "items", "thresholds")  # of ``PhaseScores``
_RATES = ("examples_per_second", "real_tokens_per_second", "padding_share", "seconds", "steps")


@dataclass
class PhaseScores:
    """What a phase scored, in the form of ``result.json``."""

    scores: dict[str, Any] = field(default_factory=dict)  # {task: {split: {metric: {language: percent}}}}
    main_metric: dict[str, list[str]] = field(default_factory=dict)  # metrics that make the table's cell
    reported_split: dict[str, str] = field(default_factory=dict)
    # {task: {language: what ``encode_items`` makes of the reported split's}}
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # {task: {split: {fingerprint, languages, examples}}}
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)  # by task and language, from dev
    kept: Collection[str] = ()  # tasks whose scores in an earlier result stand
    notes: list[str] = field(default_factory=list)  # what a reader must know about how scores came about
    predictions: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # of the reported split
    # Of the phase's own training task and language: intermediates may be chosen by it without a look at another one.
    source_dev: dict[str, Any] | None = None

    def summary(self) -> str:
        """One line for the log: each task's main metric, averaged over languages."""
        parts = []
        for task, split in self.reported_split.items():
            for metric in self.main_metric[task]:
                if values := self.scores[task].get(split, {}).get(metric):
                    mean = sum(values.values()) / len(values)
                    parts.append(f"{task} {split} {metric} {mean:.1f} ({counted(len(values), 'language')})")
        # All gold may be blank.
        return "; ".join(parts) or ("nothing was scored" if self.reported_split else "trained")


def describe_phase(phase: Phase, context: "Context") -> dict[str, Any]:
    """Returns the entries that a result and a failure begin with; tasks by ``Task.name``, as everywhere in them.

    ``tasks`` is what a report must know of each task that the phase names: ``reference`` (what ``get_task`` takes),
    ``title`` (empty where the name serves), ``group``, ``kind``, ``metric``.
    """
    tasks = {}
    for reference in dict.fromkeys((*phase.train, *phase.evaluate)):
        task = get_task(reference)
        words = {name: getattr(task, name) for name in ("title", "group", "kind", "metric")}
        tasks[task.name] = {"reference": reference, **words}
    trained = get_task(phase.train[0]) if phase.train else None
    own = ("name", "stage", "intermediate", "intermediate_seed", "target_seed")
    record = {
        "key": context.key(phase),
        **{name: getattr(phase, name) for name in own},
        "evaluates": [get_task(name).name for name in phase.evaluate],
        "target_training": trained.name if trained and phase.stage == "target" else None,
        "source_language": trained.source_language if trained else "en",
        "parent": context.key(phase.parent) if phase.parent else None,
    }
    return {"format": FORMAT, "phase": record, "tasks": tasks}


def find_kept(result: Mapping[str, Any] | None, phase: Phase, context: "Context") -> list[str]:
    """Returns the tasks of an earlier result that are not asked for, or were scored so in all languages asked for."""
    asked = context.evaluation_record(phase)
    alike = _scored_alike(result, asked, phase, context)
    wanted = {name: one["data"] for name, one in asked["tasks"].items()}
    return [name for name, data in alike.items() if wanted.get(name, {}).items() <= data.items()]


def find_lost(result: Mapping[str, Any] | None, phase: Phase, context: "Context") -> list[str]:
    """Returns the tasks of an earlier result of the same model whose scores a new one will not have."""
    asked, there = context.evaluation_record(phase), (result or {}).get("evaluation") or {"tasks": {}}
    alike = _scored_alike(result, asked, phase, context)
    wanted = {name: one["data"] for name, one in asked["tasks"].items()}
    scored = {name: one["data"] for name, one in there["tasks"].items() if name not in alike}
    return sorted(name for name, data in scored.items() if data.keys() - wanted.get(name, {}).keys())


def _scored_alike(
    result: Mapping[str, Any] | None, asked: Mapping[str, Any], phase: Phase, context: "Context"
) -> dict[str, dict]:
    """By task the data that an earlier result of the same model was scored on, where what is asked is scored so too."""
    there = (result or {}).get("evaluation")
    if not result or not there or result["phase"]["key"] != context.key(phase):
        return {}
    # Retrieval alone reads how it is done, and its pools stay whole.
    embeds = [get_task(name).kind == "embed" for name in phase.evaluate]
    unread = {"tasks", *["retrieval"] * (not any(embeds)), *["limit"] * all(embeds)}
    if any(there.get(one) != asked.get(one) for one in (there.keys() | asked.keys()) - unread):
        return {}
    alike = {}
    for name, scored in there["tasks"].items():
        data, own = scored["data"], asked["tasks"].get(name, scored)["data"]
        # The same gold and dev sets where both have one.
        if {**scored, "data": own} == asked["tasks"].get(name, scored) and {**data, **own} == {**own, **data}:
            alike[name] = data
    return alike


def write_result(
    phase: Phase,
    context: "Context",
    trained: dict[str, Any] | None,
    scores: PhaseScores,
    started: datetime,
    is_new: bool,
) -> None:
    """Writes ``result.json`` of a phase that began at ``started``; the failure of an earlier attempt goes.

    Unless the model ``is_new``, earlier scores of other tasks and in other languages stay.
    """
    import jax

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a checkout that is not installed
            versions[name] = importlib.metadata.version(name)
    made, settings, folder = trained or {}, context.settings, context.folder(phase)
    work, read = made.get("work", {}), made.get("data", {})
    seen = make_seen_notes(phase, settings, scores.kept)
    result = {
        **describe_phase(phase, context),
        "evaluation": context.evaluation_record(phase),
        **{name: getattr(scores, name) for name in _BY_TASK},
        "selection": {
            "zero_shot": not seen,
            "notes": [*scores.notes, *seen, *_notes(phase, settings, len(made.get("skipped", ())))],
            "metric": "mean of the main metrics",
            "history": made.get("history", []),
            "best_step": made.get("step"),
            "collapsed": made.get("collapsed", False),
            "chance": made.get("chance"),
            "source_dev": scores.source_dev,
        },
        "curve": made.get("curve", []),
        "throughput": {name: work.get(name, 0) for name in _RATES},
        "environment": {
            "device": jax.devices()[0].device_kind,
            "device_count": jax.device_count(),
            "versions": versions,
            "command": context.command,
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "attention": made.get("attention"),
        },
        "config": context.training_record(phase)
        | {"title": settings.title, "encoder": phase.encoder, "scored_rows": settings.evaluation.limit},
        # A task may be trained and scored: its splits are of both.
        "data": {name: read.get(name, {}) | scores.data.get(name, {}) for name in read | scores.data},
        "error": None,
    }
    if not is_new and (before := read_result(folder)):
        alike = _scored_alike(before, result["evaluation"], phase, context)
        _keep_languages(before, result, alike.keys() - {*scores.kept})
        _keep(before, result, scores.kept)
    write_record(folder / RESULT, result | {"evaluation_key": hash_record(result["evaluation"])})
    clear_failure(folder)


def _keep_languages(before: Mapping[str, Any], result: dict[str, Any], alike: Collection[str]) -> None:
    """Takes over what tasks were scored before in languages that were not asked for now."""
    for task in alike & result["scores"].keys():
        own = result["evaluation"]["tasks"][task]
        own["data"] = {**before["evaluation"]["tasks"][task]["data"], **own["data"]}
        for split, metrics in before["scores"][task].items():
            there = result["scores"][task].setdefault(split, {})
            there.update({metric: {**values, **there.get(metric, {})} for metric, values in metrics.items()})
        for name in ("items", "thresholds"):
            if task in before[name]:
                result[name][task] = {**before[name][task], **result[name].get(task, {})}
        for split, one in before["data"].get(task, {}).items():
            now = result["data"][task].setdefault(split, one)
            earlier = one.get("languages", ()) if now != one else ()
            if more := [code for code in earlier if code not in now["languages"]]:
                counts = one["examples"], now["examples"]  # unknown where some languages are in both
                count = sum(counts) if len(more) == len(earlier) and None not in counts else None
                both = hash_record(sorted([one["fingerprint"], now["fingerprint"]]))
                now = {"fingerprint": both, "languages": more + now["languages"], "examples": count}
                result["data"][task][split] = now


def _keep(before: Mapping[str, Any], result: dict[str, Any], kept: Collection[str]) -> None:
    """Takes the scores of some tasks over from an earlier result of the same model."""
    for old, new in (
        (before["evaluation"]["tasks"], result["evaluation"]["tasks"]),
        *((before[name], result[name]) for name in ("tasks", "data", *_BY_TASK)),
    ):
        new.update({task: value for task, value in old.items() if task in kept})
    evaluates = result["phase"]["evaluates"]
    others = set(kept) - set(evaluates)  # of which this command's own notes say nothing
    evaluates += [task for task in before["phase"]["evaluates"] if task in others]
    for note in before["selection"]["notes"]:
        about = set(re.split(r"[,\s]+", note.partition(":")[0])) & before["tasks"].keys()
        general = not about and others and not note.startswith("few-shot")
        if (about & set(kept) or general) and note not in result["selection"]["notes"]:
            result["selection"]["notes"].append(note)


def make_seen_notes(phase: Phase, settings: Settings, kept: Collection[str] = ()) -> list[str]:
    """Why the scores of a phase are no zero-shot transfer; nothing where they are."""
    family = phase.line() if settings.experiment.select_on != "en" else ()
    chosen = "the best step was chosen on dev sets of the target languages"
    notes = [f"{one.name}: {chosen}" for one in family if one.train and one.stage == "target"]
    source = get_task(phase.train[-1]).source_language if phase.train else ""
    scored = (*(get_task(name).name for name in phase.evaluate), *kept)
    own = [name.partition("@")[2] == source for name in scored]
    if phase.stage == "target" and own and all(own):
        notes.append("few-shot: trained in the language that it is scored in")
    return notes


def _notes(phase: Phase, settings: Settings, skipped: int) -> list[str]:
    experiment, first = settings.experiment, settings.evaluation.limit
    # Pools stay whole, whatever the limit.
    limited = [task.name for task in map(get_task, phase.evaluate) if task.kind != "embed" and first]
    instead, evaluated = find_instead(settings), [get_task(name).name for name in phase.evaluate]
    moved = ", ".join(f"{name}={instead[name]}" for name in evaluated if name in instead)
    trained = {stem(get_task(one).name) for before in phase.line() for one in before.train}
    sweep = "all layers were scored: choosing one of them by these scores is not zero-shot"
    notes = {
        sweep: settings.model.sweep_layers and phase.stage == "retrieval",
        f"{counted(skipped, 'training step')} left out, whose loss was not finite": skipped,
        f"trained on the first {counted(settings.data.limit, 'example')} only": settings.data.limit
        and trained,
        f"{', '.join(limited)}: scored on the first {counted(first, 'example')} of each language only": limited,
        f"targets trained on something else than usual: {moved}": moved,
        "Belebele's passages are SIB-200's sentences too, which were trained on": "sib200" in trained
        and "belebele" in evaluated,
        "X-CSQA's questions are CommonsenseQA's too, which were trained on": "commonsenseqa" in trained
        and "xcsqa" in evaluated,
        "only some of the languages were asked for": split_names(experiment.languages),
    }
    return [note for note, holds in notes.items() if holds]


def write_failure(phase: Phase, context: "Context", error: BaseException) -> None:
    """Writes ``failure.json`` beside whatever was scored before: the error, and what would have been scored."""
    tasks = [get_task(name) for name in phase.evaluate]
    own = phase.stage == "intermediate"
    failure = {
        **describe_phase(phase, context),
        "scores": {},
        "main_metric": {task.name: list(MAIN_VALUES[task.metric]) for task in tasks},
        "reported_split": {task.name: task.selection if own else task.reported for task in tasks},
        "environment": {"finished": datetime.now(UTC).isoformat(timespec="seconds")},
        "error": {"type": type(error).__name__, "message": str(error)},
    }
    write_record(context.folder(phase) / FAILURE, failure)


def encode_items(items: Items) -> dict[str, Any]:
    """Returns per-item scores in the compact form that ``decode_items`` reads."""
    form = {"dtype": items.values.dtype.name, "shape": list(items.values.shape), "data": _pack(items.values)}
    names = {} if items.names is None else {"names": _pack(items.names)}
    return {"statistic": items.statistic, **form, "ids": items.ids, **names}


def _pack(values: np.ndarray) -> str:
    data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(zlib.compress(data, 6)).decode()


def _unpack(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.dtype(dtype).newbyteorder("<"))


def decode_items(raw: Mapping[str, Any]) -> Items | None:
    """Returns what ``encode_items`` was given; None where that can't be told any more."""
    try:
        values = _unpack(raw["data"], raw["dtype"]).reshape(raw["shape"])
        names = _unpack(raw["names"], "uint32") if "names" in raw else None
        dimensions, named = 1 if raw["statistic"] == "mean" else 2, values if names is None else names
        if values.ndim != dimensions or len(values) != len(named):
            return None
        return Items(raw["statistic"], values, str(raw.get("ids") or ""), names)
    except (KeyError, TypeError, ValueError, zlib.error):
        return None


def read_result(
    folder: Path, progress: Progress = SILENT, name: str = RESULT, version: int = FORMAT
) -> dict[str, Any] | None:
    """Returns a record of a phase's folder; None if there is none, or none to be trusted, which is said."""
    try:
        return read_record(folder / name, version)
    except FileNotFoundError:
        return None
    except RecordError as error:
        progress.say(f"warning: {error.what} It is not used ({folder / name})")
        return None


def clear_failure(folder: Path) -> None:
    """Removes ``failure.json``: the phase is about to be tried again, or it came through."""
    with contextlib.suppress(OSError):  # a read-only disk keeps it: a stale remark in the report
        (folder / FAILURE).unlink(missing_ok=True)
