"""Measure how fast training and prediction are on this machine, at the options that a run would take.

Needs no data: --lengths=nli, tagging or qa draws rows with the lengths of such tasks; the name of a task times its
own rows (with --data_root, and --encoder for the tokenizer). Weights are drawn; only their shape counts. Without
--config, float32 on a CPU (where bfloat16, in which a run computes unless its config says otherwise, is slow), else
bfloat16.
"""

from argparse import Namespace
from typing import TYPE_CHECKING

from stilts_jax.checked import Range
from stilts_jax.commands import options
from stilts_jax.commands.options import Add
from stilts_jax.settings import LENGTH

if TYPE_CHECKING:
    from stilts_jax.settings import Settings


def add_arguments(add: Add) -> None:
    add("--config", "--config.x.y=z alone works too")
    add("--shape", "tiny, e5-small, base, large, xl or xxl", default="e5-small")
    add("--lengths", "nli, tagging, qa, or a task of the data root", default="nli")
    add("--data_root")
    add("--encoder", "a folder or hub name; only its tokenizer is read")
    add("--batch_size", "rows per training step")
    lengths = Range(0, LENGTH.high)
    add("--max_length", "tokens that rows are cut to; 0: the task's own", type=lengths, default=0)
    add("--rounds", "how often each is timed", type=Range(1, 10**6), default=5)
    add("--rows", "rows that a round of prediction predicts", type=Range(1, 10**8), default=512)
    add("--json")


def run(arguments: Namespace) -> int:
    import json

    from stilts_jax.bench.run import describe, open_model, run_bench
    from stilts_jax.bench.workload import find_workload

    settings = read_settings(arguments)
    places = arguments.data_root, arguments.encoder, arguments.max_length
    workload = find_workload(arguments.lengths, arguments.shape, *places, settings)
    record = run_bench(
        workload,
        open_model(arguments.shape, workload, settings),
        settings,
        batch_size=arguments.batch_size,
        rounds=arguments.rounds,
        rows=arguments.rows,
        progress=arguments.progress,
    )
    print(json.dumps(record, indent=1) if arguments.json else describe(record))
    return 0


def read_settings(arguments: Namespace) -> "Settings":
    """Returns the settings behind ``--config``, in float32 on a CPU and bfloat16 elsewhere if none is named."""
    import jax

    from stilts_jax.distributed import initialize
    from stilts_jax.experiment.context import start_runtime

    initialize()  # before JAX is asked for devices
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    settings = options.read_settings(arguments, lambda: {"compute.dtype": dtype})
    start_runtime(settings.compute)
    return settings
