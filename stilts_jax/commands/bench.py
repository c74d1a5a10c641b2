"""Measure how fast training and prediction are on this machine, beside PyTorch if asked to.

Needs no data: --lengths=nli, tagging or qa draws rows with the lengths of such tasks; the name of a task times its
own rows (with --data_root, and --encoder for the tokenizer). Weights are drawn; only their shape counts. --peer=torch
times transformers' PyTorch model in turns with ours. Without --config, float32 on a CPU, else bfloat16.
"""

import argparse
import os
import sys
from pathlib import Path

from stilts_jax.errors import EXIT_OK, ConfigError, nearest

_DEFAULT = "train,predict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("--config", metavar="FILE[:key=value,...]", help="--config.x.y=z alone works too")
    parser.add_argument("--shape", default="e5-small", help="tiny, e5-small, base, large, xl or xxl")
    parser.add_argument("--lengths", default="nli", help="nli, tagging, qa, or a task of the data root")
    parser.add_argument("--data_root", type=Path, help="the folder that holds the data")
    parser.add_argument("--encoder", help="a folder or hub name; only its tokenizer is read")
    parser.add_argument(
        "--what",
        default=_DEFAULT,
        help=f"train, predict, mining, input, attention, joined by commas; {_DEFAULT} by default",
    )
    parser.add_argument("--peer", choices=("torch",), help="what to run beside it")
    parser.add_argument("--batch_size", type=int, default=32, help="rows a step, the peer's too")
    parser.add_argument(
        "--max_length", type=int, default=0, help="tokens that rows are cut to; 0: the task's own"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns that each contender takes")
    parser.add_argument("--rows", type=int, default=512, help="rows that a turn of prediction predicts")
    parser.add_argument("--mining", default="20000x1024x4", metavar="COUNTxWIDTHxK")
    parser.add_argument("--mining_precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", action="store_true", help="print a record instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    import json

    if arguments.peer:  # two libraries share the device
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    import jax

    from stilts_jax.bench.run import WHAT, Plan, run_bench
    from stilts_jax.bench.tables import format_record
    from stilts_jax.config import load_config, to_settings
    from stilts_jax.experiment.runtime import start_runtime
    from stilts_jax.model import SHAPES
    from stilts_jax.progress import Progress

    what = tuple(arguments.what.split(","))
    for name in what:
        if name not in WHAT:
            raise ConfigError(f"{name!r} can't be timed.", where="--what", fix=nearest(name, WHAT))
    if arguments.shape not in SHAPES:
        raise ConfigError(
            f"There is no shape {arguments.shape!r}.", where="--shape", fix=nearest(arguments.shape, SHAPES)
        )
    count, _, rest = arguments.mining.partition("x")
    width, _, k = rest.partition("x")
    if not (count.isdigit() and width.isdigit() and k.isdigit()):
        raise ConfigError(
            f"{arguments.mining!r} names no search.", where="--mining", fix="such as 20000x1024x4"
        )
    overrides = arguments.overrides
    if not arguments.config:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        overrides = {"compute.dtype": dtype} | overrides
    settings = to_settings(load_config(arguments.config or "base", overrides))
    start_runtime(settings.compute)
    plan = Plan(
        what=what,
        shape=arguments.shape,
        lengths=arguments.lengths,
        data_root=arguments.data_root,
        encoder=arguments.encoder,
        batch_size=arguments.batch_size,
        max_length=arguments.max_length,
        rounds=arguments.rounds,
        rows=arguments.rows,
        mining=(int(count), int(width), int(k)),
        mining_precision=arguments.mining_precision,
        peer=bool(arguments.peer),
    )
    record = run_bench(plan, settings, Progress(sys.stderr)) | {"command": arguments.command_line}
    print(json.dumps(record, indent=1) if arguments.json else format_record(record))
    return EXIT_OK
