"""Writes ``result.json`` files of made-up scores: reports are tested without training."""

import csv
import hashlib
from pathlib import Path

import numpy as np

from stilts_jax.evaluation.benchmarks import BENCHMARKS
from stilts_jax.evaluation.metrics import Items
from stilts_jax.experiment import results
from stilts_jax.files import write_record as write_with_digest
from stilts_jax.report import ReportPaths, write_report

_XTREME = BENCHMARKS["xtreme"]
LANGUAGES = {name.replace("bucc2018", "bucc"): list(task.languages) for name, task in _XTREME.items()}
METRICS = dict.fromkeys(("udpos", "panx", "bucc"), ("f1",))
METRICS |= dict.fromkeys(("xquad", "mlqa", "tydiqa"), ("f1", "em"))
TRAININGS = {
    **{"mnli": ("xnli",), "pawsx": ("pawsx",), "udpos": ("udpos",), "panx": ("panx",)},
    **{"squad_v1": ("xquad", "mlqa"), "tydiqa": ("tydiqa",), None: ("bucc", "tatoeba")},
}
ALIGNED = ("xnli", "pawsx", "xquad", "tatoeba")


def items(values: np.ndarray, ids="same", statistic="mean", named=False) -> dict:
    """Returns the items of one language, as an experiment writes them; where they are ``named``, by their places."""
    names = np.arange(len(values), dtype=np.uint32) if named else None
    return results.encode_items(Items(statistic, values, ids, names))


def make_record(
    intermediate: str,
    training: str | None,
    tasks: dict[str, dict[str, dict[str, float]]],
    *,
    seeds: tuple[int | None, int | None] = (0, 0),
    stage: str = "target",
    **changes: object,
) -> dict:
    """Returns a result: ``tasks`` is ``{task: {metric: {language: score}}}`` on the test split."""
    name = f"{intermediate}.s{seeds[0]}"
    if stage != "intermediate":
        name += f"+{training or 'retrieval'}.s{seeds[1]}"
    dev = {"task": training, "split": "dev", "language": "en", "score": 72.0} if training else None
    environment = {"device": "made up", "device_count": 1, "versions": {"jax": "0.10.2", "python": "3.11.2"}}
    environment |= {"command": "stilts grid --config=configs/xstilts.py --workdir=W"}
    environment |= {"started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:05:00Z"}
    rates = {"examples_per_second": 120.0, "real_tokens_per_second": 9000.0, "padding_share": 0.07}
    key = hashlib.sha256(name.encode()).hexdigest()[:16]
    phase = {"key": key, "name": name, "stage": stage, "intermediate": intermediate, "parent": None}
    phase |= {"target_training": training, "source_language": "en"}
    selection = {"zero_shot": True, "notes": [], "best_step": 1000, "source_dev": dev, "collapsed": False}
    config = {"encoder": "made-up", "title": "Made-up scores", "seeds": list(seeds), "train": {"epochs": 2}}
    return {
        "format": results.FORMAT,
        "phase": phase | {"intermediate_seed": seeds[0], "target_seed": seeds[1]},
        "scores": {task: {"test": metrics} for task, metrics in tasks.items()},
        "main_metric": {task: list(metrics) for task, metrics in tasks.items()},
        "reported_split": dict.fromkeys(tasks, "test"),
        "selection": selection,
        "items": {},
        "curve": [[step, 0.2 + 2 * 0.97 ** (step / 10)] for step in range(0, 1000, 20)],
        "throughput": rates | {"seconds": 300.0, "steps": 1000},
        "environment": environment,
        "config": config,
        "data": {task: {"test": {"fingerprint": "0123456789abcdef", "examples": 1000}} for task in tasks},
        "error": None,
        **changes,
    }


def write_record(workdir: Path, record: dict) -> Path:
    """Writes ``record`` where a phase would have."""
    folder = workdir / "phases" / record["phase"]["name"].replace("/", "_").replace(":", "_")
    path = folder / ("failure.json" if record["error"] else "result.json")
    write_with_digest(path, record)
    return path


def write(workdir: Path, row: str, seeds: tuple, scores: dict, training: str | None = "mnli", **changes):
    """Writes the result of a target phase, or of retrieval."""
    stage = "target" if training else "retrieval"
    write_record(workdir, make_record(row, training, scores, seeds=seeds, stage=stage, **changes))


def write_right(workdir: Path, row: str, seeds: tuple, right: dict, training="mnli", ids="same", **changes):
    """Writes accuracies with their items: ``right`` says by task and language of each item whether it is right."""
    scores, encoded = {}, {}
    for task, by_language in right.items():
        scores[task] = {"accuracy": {code: 100 * float(one.mean()) for code, one in by_language.items()}}
        encoded[task] = {code: items(one.astype(np.uint8), ids) for code, one in by_language.items()}
    write(workdir, row, seeds, scores, training, items=encoded, **changes)


def xnli(**scores: float) -> dict:
    return {"xnli": {"accuracy": scores}}


def table(workdir: Path | ReportPaths, name: str) -> list[dict[str, str]]:
    """Returns the rows of a table of a report; of a work directory the report is written first."""
    paths = workdir if isinstance(workdir, ReportPaths) else write_report(workdir)
    return list(csv.DictReader((paths.tables / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


def write_grid(
    workdir: Path,
    *,
    intermediates: list[str],
    trainings: list[str | None],
    seeds: int = 1,
    languages: int = 40,
    count: int = 500,
) -> None:
    """Writes a grid whose rows differ by a gain of each intermediate and noise of each seed."""
    generator = np.random.default_rng(0)
    bases: dict[tuple[str, str], float] = {}
    for row, intermediate in enumerate(intermediates):
        for first in [None] if intermediate == "none" else range(seeds):
            luck = generator.normal(0, 0.3)
            for training in trainings:
                for second in [None] if training is None else range(seeds):
                    scores: dict = {}
                    per_item: dict = {}
                    for task in TRAININGS[training]:
                        gain = row and (luck + (15 if training is None else generator.normal(1, 0.5)))
                        names = LANGUAGES[task]
                        names = list(dict.fromkeys(["en", *names])) if "en" in names else names
                        for code in names[:languages]:
                            base = 88.0 if code == "en" else generator.uniform(45, 75)
                            base = bases.setdefault((task, code), base)
                            values = draw(generator, task, base + gain, count)
                            statistic = "mean" if values.ndim == 1 else "chunk_f1"
                            statistic = "binary_f1" if task == "bucc" else statistic
                            encoded = items(values, "same" * (task in ALIGNED), statistic)
                            per_item.setdefault(task, {})[code] = encoded
                            metrics = METRICS.get(task, ("accuracy",))
                            for metric, shift in zip(metrics, (8.0, -8.0) if len(metrics) > 1 else (0,)):
                                by_language = scores.setdefault(task, {}).setdefault(metric, {})
                                by_language[code] = score(values) + shift
                    stage = "retrieval" if training is None else "target"
                    options = {"seeds": (first, second), "stage": stage, "items": per_item}
                    record = make_record(intermediate, training, scores, **options)
                    if training:  # English dev scores say something of the others, and not all
                        record["selection"]["source_dev"]["score"] = 80.0 + gain + generator.normal(0, 0.5)
                    write_record(workdir, record)
            if intermediate != "none":
                own = make_record(intermediate, None, {}, seeds=(first, None), stage="intermediate")
                write_record(workdir, own)


def draw(generator: np.random.Generator, task: str, percent: float, count: int) -> np.ndarray:
    """Returns the outcomes of ``count`` items of which about ``percent`` are right."""
    chance = min(max(percent / 100, 0.02), 0.98)
    if task == "bucc":
        right = generator.random(count) < chance
        beside = np.tile([0, 1, 0], (int(generator.poisson(count * (1 - chance))), 1))
        return np.concatenate([np.stack([right, right, np.ones(count)], 1), beside]).astype(np.uint8)
    if task in METRICS and len(METRICS[task]) == 1:
        gold = generator.integers(1, 5, count)
        right = generator.binomial(gold, chance)
        return np.stack([right, gold, gold], axis=1).astype(np.uint8)
    if task in METRICS:
        return generator.binomial(4, chance, count).astype(np.float32) / 4
    return (generator.random(count) < chance).astype(np.uint8)


def score(values: np.ndarray) -> float:
    if values.ndim == 1:
        return 100.0 * float(values.mean())
    right, predicted, gold = values.sum(axis=0, dtype=np.int64)
    return 200.0 * float(right) / float(predicted + gold)
