"""Times training and prediction in turns with PyTorch and KerasHub, and mining, attention and the input pipeline.

Usage: python tests/benchmarks/speed.py --lengths=mnli --max_length=128 --data_root=D --encoder=E --peer=torch

--lengths=nli, tagging or qa draws rows with the lengths of such tasks; the name of a task times its own rows. Without
--config, float32 on a CPU, else bfloat16; --config.x.y=z overrides an option. Contenders take turns, so that a busy
machine disturbs all of them alike.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from attention import check_attention
from filling import measure as measure_input
from measured import Contender, compare, memory_used
from mining import benchmark_mining
from peer import PeerProcess, PeerSettings, list_peers, plan_rounds
from tables import format_record

from stilts_jax.bench import (
    Prediction,
    Round,
    Training,
    Workload,
    find_workload,
    measure_matmul,
    open_model,
)
from stilts_jax.commands.bench import read_settings
from stilts_jax.errors import StiltsError
from stilts_jax.model import Model, choose_backend
from stilts_jax.progress import Progress
from stilts_jax.settings import Settings
from stilts_jax.sharding import Mesh, make_mesh

WHAT = ("train", "predict", "mining", "input", "attention")
PEERS = ("torch", "keras")


def read_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Returns the options, and the overrides of single settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE[:key=value,...]")
    parser.add_argument("--shape", default="e5-small", help="tiny, e5-small, base, large, xl or xxl")
    parser.add_argument("--lengths", default="nli", help="nli, tagging, qa, or a task of the data root")
    parser.add_argument("--data_root", type=Path)
    parser.add_argument("--encoder", help="a folder or hub name; only its tokenizer is read")
    parser.add_argument("--what", default="train,predict", help=f"{', '.join(WHAT)}, joined by commas")
    parser.add_argument("--peer", default="", help=f"{', '.join(PEERS)}, joined by commas")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_length", type=int, default=0, help="0: the task's own")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each contender takes")
    parser.add_argument("--rows", type=int, default=512, help="rows that a turn of prediction predicts")
    parser.add_argument("--mining", default="20000x1024x4", metavar="COUNTxWIDTHxK")
    parser.add_argument("--mining_precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", action="store_true", help="print a record instead of tables")
    options, rest = parser.parse_known_args(arguments)
    overrides = dict(one.removeprefix("--config.").split("=", 1) for one in rest if "=" in one)
    unknown = [one for one in rest if not one.startswith("--config.") or "=" not in one]
    unknown += [name for name in options.what.split(",") if name not in WHAT]
    unknown += [name for name in filter(None, options.peer.split(",")) if name not in PEERS]
    if unknown:
        parser.error(f"not understood: {' '.join(unknown)}")
    return options, overrides


def run(options: argparse.Namespace, overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    """Times what the options name; returns plain records."""
    what = options.what.split(",")
    settings = read_settings(argparse.Namespace(config=options.config, overrides=overrides))
    mesh = make_mesh(settings.mesh)
    workload = find_workload(
        options.lengths, options.shape, options.data_root, options.encoder, options.max_length, settings
    )
    model = open_model(options.shape, workload, settings)
    matmul = measure_matmul(model.compute.dtype)
    device = {"kind": jax.devices()[0].device_kind, "count": jax.device_count(), "matmul": matmul}
    record: dict[str, Any] = {
        "shape": options.shape,
        "dtype": model.compute.dtype,
        "batch_size": options.batch_size,
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "device": device,
        "workload": workload.describe(),
    }
    backend = choose_backend(
        model.compute,
        jax.default_backend(),
        seq_len=min(workload.max_length, int(workload.lengths.max())),
        head_dim=model.encoder.head_dim,
        dropout=model.encoder.attention_dropout,
        packed=False,
        gaps=False,
    )
    record["attention_backend"] = f"training: {backend.name} ({backend.reason})"
    for part in ("train", "predict"):
        if part in what:
            record[part] = _bench_steps(
                options,
                settings,
                workload,
                model,
                mesh,
                matmul * device["count"],
                progress,
                training=part == "train",
            )
    if "attention" in what:
        record["attention"] = check_attention(
            model.encoder, model.compute, workload.lengths, options.batch_size
        )
    if "mining" in what:
        count, width, k = map(int, options.mining.split("x"))
        record["mining"] = benchmark_mining(
            count, width, k, precision=options.mining_precision, progress=progress
        )
    if "input" in what:
        record["input"] = measure_input(options.data_root, options.encoder, progress)
    record["memory"] = memory_used()
    return record


def _bench_steps(
    options: argparse.Namespace,
    settings: Settings,
    workload: Workload,
    model: Model,
    mesh: Mesh,
    matmul: float,
    progress: Progress,
    *,
    training: bool,
) -> dict[str, Any]:
    label = "training" if training else "prediction"
    with ExitStack() as stack:
        ours: Training | Prediction
        if training:
            ours = Training(workload, model, settings, mesh, options.batch_size, progress, stack)
        else:
            ours = Prediction(workload, model, settings, mesh, options.rows)
        progress.say(f"{label}: compiling")
        times = ours.warm_up()
        if training:
            progress.say(
                f"training: {times['shapes']} shapes in {times['compile']:.1f} s, "
                f"{times['cached']} of them from the compilation cache; "
                f"first step {times['to_first_step']:.1f} s after the command"
            )
        numbers = range(1, options.rounds + 1)
        turns: list[tuple[Contender, Callable[[int], Round]]] = [
            (Contender("stilts_jax", ours.settings), ours.take_round)
        ]
        gpu = jax.default_backend() == "gpu"
        peers = list_peers(options.peer.split(","), training=training, gpu=gpu)
        processes: dict[PeerSettings, PeerProcess] = {}  # each has a model, moments and gradients in memory
        for one in peers:
            batches = plan_rounds(
                one,
                [ours.rows_of(number) for number in numbers],
                workload.lengths,
                options.batch_size,
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
            told = Contender(one.name, f"{peer.describe(one)}, batches of {options.batch_size}")
            turns.append((told, partial(_take_numbered, peer, batches, told)))
        _take_turns(turns, numbers, label, progress)
        turns[0][0].memory = memory_used()
    contenders = [one for one, _ in turns]
    return ({"times": times} if times else {}) | {
        "contenders": [one.summarise(model.encoder, matmul, training=training) for one in contenders],
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


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark and prints what it found."""
    options, overrides = read_options(arguments)
    if options.peer:  # two libraries share the device
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    try:
        record = run(options, overrides, Progress())
    except StiltsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    record["command"] = " ".join(["python", "tests/benchmarks/speed.py", *arguments])
    print(json.dumps(record, indent=1) if options.json else format_record(record))
    return 0


if __name__ == "__main__":
    from stilts_jax.host_memory import keep_freed_memory

    keep_freed_memory()  # before anything imports JAX
    from stilts_jax.distributed import initialize

    initialize()
    sys.exit(main(sys.argv[1:]))
