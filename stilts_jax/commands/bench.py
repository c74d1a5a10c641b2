"""Measure how fast training and prediction are on this machine, at the options that a run would take.

Needs no data: --lengths=nli, tagging or qa draws rows with the lengths of such tasks; the name of a task times its
own rows (with --data_root, and --encoder for the tokenizer). Weights are drawn; only their shape counts. Without
--config, float32 on a CPU, else bfloat16.
"""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stilts_jax.errors import EXIT_OK
from stilts_jax.files import local_path
from stilts_jax.settings import LENGTH, ROWS, Range

if TYPE_CHECKING:
    from stilts_jax.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("--config", metavar="FILE[:key=value,...]", help="--config.x.y=z alone works too")
    parser.add_argument("--shape", default="e5-small", help="tiny, e5-small, base, large, xl or xxl")
    parser.add_argument("--lengths", default="nli", help="nli, tagging, qa, or a task of the data root")
    parser.add_argument("--data_root", type=local_path, help="the folder that holds the data")
    parser.add_argument("--encoder", help="a folder or hub name; only its tokenizer is read")
    parser.add_argument("--batch_size", type=ROWS, default=32, help="rows per training step")
    parser.add_argument(
        "--max_length",
        type=Range(0, LENGTH.high),
        default=0,
        help="tokens that rows are cut to; 0: the task's own",
    )
    parser.add_argument("--rounds", type=Range(1, 10**6), default=5, help="how often each is timed")
    parser.add_argument(
        "--rows", type=Range(1, 10**8), default=512, help="rows that a round of prediction predicts"
    )
    parser.add_argument("--json", action="store_true", help="print a record instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    import json

    from stilts_jax.bench.run import describe, open_model, run_bench
    from stilts_jax.bench.workload import find_workload
    from stilts_jax.progress import Progress

    settings = read_settings(arguments.config, arguments.overrides)
    workload = find_workload(
        arguments.lengths, arguments.shape, arguments.data_root, arguments.encoder, arguments.max_length
    )
    record = run_bench(
        workload,
        open_model(arguments.shape, workload, settings),
        settings,
        batch_size=arguments.batch_size,
        rounds=arguments.rounds,
        rows=arguments.rows,
        progress=Progress(),
    )
    print(json.dumps(record, indent=1) if arguments.json else describe(record))
    return EXIT_OK


def read_settings(config: str | None, overrides: Mapping[str, str]) -> "Settings":
    """Returns the settings behind ``--config``, in float32 on a CPU and bfloat16 elsewhere if none is named."""
    import jax

    from stilts_jax.config import load_config, to_settings
    from stilts_jax.experiment.runtime import start_runtime

    if not config:
        overrides = {
            "compute.dtype": "float32" if jax.default_backend() == "cpu" else "bfloat16",
            **overrides,
        }
    settings = to_settings(load_config(config or "base", overrides))
    start_runtime(settings.compute)
    return settings
