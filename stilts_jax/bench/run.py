"""What ``stilts bench`` runs: contenders take turns, so that a busy machine disturbs all of them alike."""

import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stilts_jax.bench.attention import check_attention
from stilts_jax.bench.device import Device, measure_device, memory_used
from stilts_jax.bench.filling import measure as measure_input
from stilts_jax.bench.measured import Contender, Round, compare
from stilts_jax.bench.mining import benchmark_mining
from stilts_jax.bench.ours import TASK, OurPrediction, OurTraining
from stilts_jax.bench.peer import PeerProcess, PeerSettings, list_peers, plan_rounds
from stilts_jax.bench.workload import Workload, find_workload
from stilts_jax.errors import ConfigError
from stilts_jax.evaluation.retrieval import Precision
from stilts_jax.experiment.models import make_compute
from stilts_jax.experiment.settings import Settings
from stilts_jax.model import SHAPES, Model, choose_backend
from stilts_jax.progress import Progress
from stilts_jax.sharding import Mesh, MeshConfig, make_mesh

WHAT = ("train", "predict", "mining", "input", "attention")


@dataclass(frozen=True)
class Plan:
    """What to time.

    Attributes:
        lengths: a law of lengths or a prepared task.
        max_length: what rows are cut to; 0: the law's or task's own.
        rounds: turns of each contender.
        rows: that one turn of prediction predicts.
        mining: vectors a side, their width, and k.
    """

    what: tuple[str, ...]
    shape: str
    lengths: str
    data_root: Path | None
    encoder: str | None
    batch_size: int
    max_length: int
    rounds: int
    rows: int
    mining: tuple[int, int, int]
    mining_precision: Precision
    peer: bool


def run_bench(plan: Plan, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Times what ``plan`` says; returns plain records."""
    encoder = SHAPES[plan.shape]
    compute = make_compute(settings)
    mesh = make_mesh(MeshConfig(settings.mesh.data, settings.mesh.fsdp, settings.mesh.tensor))
    record: dict[str, Any] = {
        "shape": plan.shape,
        "dtype": compute.dtype,
        "batch_size": plan.batch_size,
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }
    device = measure_device(compute.dtype)
    record["device"] = asdict(device)
    if {"train", "predict", "attention"} & set(plan.what):
        workload = find_workload(
            plan.lengths, encoder.vocab_size, plan.data_root, plan.encoder, plan.max_length
        )
        if workload.vocab_size > encoder.vocab_size:
            raise ConfigError(
                f"The tokenizer has {workload.vocab_size} pieces, the shape {encoder.vocab_size} rows.",
                where=f"--encoder={plan.encoder} --shape={plan.shape}",
                fix="take a shape with that vocabulary",
            )
        record["workload"] = workload.describe()
        progress.say(record["workload"])
        model = Model(encoder, ((TASK, workload.head),), compute)
        longest = min(workload.max_length, int(workload.lengths.max()))
        backend = choose_backend(
            compute,
            jax.default_backend(),
            seq_len=longest,
            head_dim=encoder.head_dim,
            dropout=encoder.attention_dropout,
            packed=False,
        )
        record["attention_backend"] = f"training: {backend.name} ({backend.reason})"
    for part in ("train", "predict"):
        if part in plan.what:
            record[part] = _bench_steps(
                plan, settings, workload, model, mesh, device, progress, training=part == "train"
            )
    if "attention" in plan.what:
        record["attention"] = check_attention(encoder, compute, workload.lengths, plan.batch_size)
    if "mining" in plan.what:
        record["mining"] = benchmark_mining(
            *plan.mining, precision=plan.mining_precision, traffic=device.traffic, progress=progress
        )
    if "input" in plan.what:
        if plan.data_root is None or plan.encoder is None:
            raise ConfigError(
                "The input pipeline is timed on real text.",
                where="--what=input",
                fix="name the data with --data_root and the tokenizer with --encoder",
            )
        record["input"] = measure_input(plan.data_root, plan.encoder, progress)
    record["memory"] = memory_used()
    return record


def _bench_steps(
    plan: Plan,
    settings: Settings,
    workload: Workload,
    model: Model,
    mesh: Mesh,
    device: Device,
    progress: Progress,
    *,
    training: bool,
) -> dict[str, Any]:
    label = "training" if training else "prediction"
    with ExitStack() as stack:
        ours: OurTraining | OurPrediction
        if training:
            ours = stack.enter_context(
                OurTraining(workload, model, settings, mesh, plan.batch_size, progress)
            )
        else:
            ours = OurPrediction(workload, model, settings, mesh, plan.rows)
        progress.say(f"{label}: compiling")
        times = ours.warm_up()
        if training:
            progress.say(
                f"training: {times['shapes']} shapes in {times['compile']:.1f} s, "
                f"{times['cached']} of them from the compilation cache; "
                f"first step {times['to_first_step']:.1f} s after the command"
            )
        numbers = range(1, plan.rounds + 1)
        turns: list[tuple[Contender, Callable[[int], Round]]] = [
            (Contender("stilts_jax", ours.settings, memory=memory_used()), ours.take_round)
        ]
        peers = list_peers(training=training, gpu=jax.default_backend() == "gpu") if plan.peer else []
        processes: dict[PeerSettings, PeerProcess] = {}  # each has a model, moments and gradients in memory
        for one in peers:
            batches = plan_rounds(
                one,
                [ours.rows_of(number) for number in numbers],
                workload.lengths,
                plan.batch_size,
                training=training,
            )
            progress.say(f"{label}: warming up {one.name}")
            if one.model not in processes:
                processes[one.model] = stack.enter_context(
                    PeerProcess(one.model, workload, model.encoder, model.compute.dtype, training=training)
                )
            peer = processes[one.model]
            # Compiled graphs want to see the shortest and the longest batch too.
            by_length = sorted(batches[0], key=lambda part: workload.lengths[part].max())
            peer.take_round([by_length[0], by_length[-1]])
            told = Contender(one.name, f"{peer.describe(one)}, batches of {plan.batch_size}")
            turns.append((told, partial(_take_numbered, peer, batches, told)))
        _take_turns(turns, numbers, label, progress)
    contenders = [one for one, _ in turns]
    return ({"times": times} if times else {}) | {
        "contenders": [one.summarise(model.encoder, device, training=training) for one in contenders],
        "ratios": [compare(contenders[0], peer) for peer in contenders[1:]],
    }


def _take_numbered(
    peer: PeerProcess, batches: Sequence[Sequence[np.ndarray]], told: Contender, number: int
) -> Round:
    done = peer.take_round(batches[number - 1])
    told.memory = peer.memory_used()
    return done


def _take_turns(
    turns: Sequence[tuple[Contender, Callable[[int], Round]]], numbers: range, label: str, progress: Progress
) -> None:
    with progress.track(label, len(numbers) * len(turns), "turns") as bar:
        for number in numbers:
            # Who comes first changes, so that nobody always follows the same neighbour.
            for contender, take_round in turns if number % 2 else reversed(turns):
                contender.rounds.append(take_round(number))
                bar.advance(1)
