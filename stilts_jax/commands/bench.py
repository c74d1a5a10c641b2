"""Measure how fast training and prediction are on this machine, at the options that a run would take.

Needs no data: --lengths=nli, tagging or qa draws rows with the lengths of such tasks; the name of a task times its
own rows (with --data_root, and --encoder for the tokenizer). Weights are drawn; only their shape counts. Without
--config, float32 on a CPU (where bfloat16, in which a run computes unless its config says otherwise, is slow), else
bfloat16.
"""

import json
from argparse import Namespace
from contextlib import ExitStack
from typing import Any

from stilts_jax.checked import Range
from stilts_jax.commands import options
from stilts_jax.settings import Settings


def add_arguments(add: options.Add) -> None:
    add("--config", "--config.x.y=z alone works too")
    add("--shape", "tiny, e5-small, base, large, xl or xxl", default="e5-small")
    add("--lengths", "nli, tagging, qa, or a task of the data root", default="nli")
    add("--data_root")
    add("--encoder", "a folder or hub name; only its tokenizer is read")
    # As in a run, the config's own numbers hold unless others are named here.
    add("--batch_size", "rows per training step; 32, or what the config says", default=None)
    add("--max_length", "tokens that rows are cut to; the task's own, or what the config says")
    add("--rounds", "how often each is timed", type=Range(1, 10**6), default=5)
    add("--rows", "rows that a round of prediction predicts", type=Range(1, 10**8), default=512)
    add("--json")


def run(arguments: Namespace) -> None:
    import jax

    from stilts_jax import bench
    from stilts_jax.sharding import make_mesh

    settings, progress = read_settings(arguments), arguments.progress
    mesh, dtype = make_mesh(settings.mesh), settings.compute.dtype
    batch_size = arguments.batch_size or settings.train.batch_size or 32
    length = arguments.max_length or settings.train.max_length or 0
    places = arguments.data_root, arguments.encoder, length
    workload = bench.find_workload(arguments.lengths, arguments.shape, *places, settings)
    model, matmul = bench.open_model(arguments.shape, workload, settings), bench.measure_matmul(dtype)
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    record: dict[str, Any] = {"device": device, "dtype": dtype, "workload": workload.describe()}
    record["matmul"] = matmul
    with ExitStack() as stack:
        training = bench.Training(workload, model, settings, mesh, batch_size, progress, stack)
        prediction = bench.Prediction(workload, model, settings, mesh, arguments.rows)
        for name, work in (("train", training), ("predict", prediction)):
            progress.say(f"{name}: compiling")
            times, done = work.warm_up(), []
            with progress.track(name, arguments.rounds, "rounds") as bar:
                for number in range(1, arguments.rounds + 1):
                    done.append(work.take_round(number))
                    bar.advance()
            peak = matmul * jax.device_count()
            numbers = bench.summarise(done, model.encoder, peak, training=name == "train")
            record[name] = {"settings": work.settings, **numbers, **times}
    print(json.dumps(record, indent=1) if arguments.json else _describe(record))


def _describe(record: dict[str, Any]) -> str:
    matmul = f"matrix products reach {record['matmul'] / 1e9:.0f} GFLOP/s a device"
    lines = [record["workload"], f"{record['device']}, {record['dtype']}; {matmul}"]
    lines += ["           examples/s      (spread)   real tokens/s  padding  utilisation  padded"]
    row = "{examples_per_second:12.4g}  {spread:>14} {real_tokens_per_second:13.4g} {padding_share:8.1%} "
    row += "{utilisation:12.1%} {utilisation_padded:7.1%}"
    for name in ("train", "predict"):
        low, high = record[name]["spread"]
        lines.append(f"{name:8} " + row.format_map(record[name] | {"spread": f"({low:.4g}-{high:.4g})"}))
    lines += [f"{name}: {record[name]['settings']}" for name in ("train", "predict")]
    told = "{shapes} shapes compiled in {compile:.1f} s ({cached} from the cache on disk); "
    told += "first step {to_first_step:.1f} s after the command"
    return "\n".join([*lines, told.format_map(record["train"])])


def read_settings(arguments: Namespace) -> Settings:
    """Returns the settings behind ``--config``, in float32 on a CPU and bfloat16 elsewhere if none is named."""
    import jax

    from stilts_jax.distributed import initialize
    from stilts_jax.experiment.context import start_runtime

    initialize()  # before JAX is asked for devices
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    settings = options.read_settings(arguments, lambda: {"compute.dtype": dtype})
    start_runtime(settings.compute)
    return settings
