"""Kills a training run with SIGKILL at random points, starts it again each time, and compares with a run in peace.

The run has a mixture of two heads (one with a softmax over the vocabulary), accumulation, dropout, evaluation,
and a checkpoint every four steps. Killed means: so many milliseconds after a batch, a score or a checkpoint was
begun, so also in the middle of writing. Compared are all final parameters by digest, the scores and the
metrics file, byte for byte.

    python tests/long/kill_training.py --points 20
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path


def launch(directory, cache, *options):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles twice as fast
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, __file__, "once", str(directory), *map(str, options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def run_once():
    """One run, in a process of its own, that may kill itself."""
    from stilts_jax.checkpoint import Checkpoints, digest_leaves
    from stilts_jax.errors import StiltsError
    from tests.train import tiny_world

    parser = argparse.ArgumentParser()
    parser.add_argument("once")
    parser.add_argument("directory")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--kill", type=int, default=0, help="before this batch, score or checkpoint")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds from there to the SIGKILL")
    options = parser.parse_args()
    events = itertools.count(1)

    def watch():
        if next(events) == options.kill:
            threading.Timer(options.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    save = Checkpoints.save
    Checkpoints.save = lambda *args, **kwargs: (watch(), save(*args, **kwargs))[1]
    try:
        result = tiny_world.run(options.directory, steps=options.steps, watch=watch)
    except StiltsError as error:
        print(error)
        raise SystemExit(error.exit_code) from error
    found = {"digests": digest_leaves(result.params), "history": result.history, "step": result.step}
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peaceful = launch(folder / "peaceful", folder / "cache")
        if peaceful.returncode:
            raise SystemExit(peaceful.stderr)
        kills, launches, directory = 0, 0, folder / "killed0"
        while True:
            wanted = kills < options.points
            kill = ["--kill", draw.randint(1, 12), "--delay", draw.random() * 0.05] if wanted else []
            ended = launch(directory, folder / "cache", *kill)
            launches += 1
            if ended.returncode == -signal.SIGKILL:
                kills += 1
                continue
            if ended.returncode:
                raise SystemExit(f"launch {launches} failed:\n{ended.stderr}")
            compare(peaceful, ended, folder / "peaceful", directory)
            if kills >= options.points:
                break
            directory = folder / f"killed{launches}"  # it came to its end: the next run gets the other kills
    print(f"{kills} kills in {launches} launches: parameters, scores and metrics.jsonl equal byte for byte")


def compare(one, other, one_folder, other_folder):
    if one.stdout != other.stdout:
        raise SystemExit(f"results differ:\n{one.stdout}\n{other.stdout}")
    if (one_folder / "metrics.jsonl").read_bytes() != (other_folder / "metrics.jsonl").read_bytes():
        raise SystemExit(f"metrics differ: {one_folder} {other_folder}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    run_once() if sys.argv[1:2] == ["once"] else main()
