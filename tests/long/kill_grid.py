"""Kills a whole grid with SIGKILL at random moments, starts it again each time, and compares with one left in peace.

The grid is the demo's of size ``test``: an intermediate task and none, tagging, question answering and retrieval,
with checkpoints every few steps. Compared are every phase's scores, per-item values, curve and selection, its metrics
file byte for byte, and the digests of all its final parameters.

    python tests/long/kill_grid.py --points 20
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

COMPARED = (
    "phase",
    "evaluation_key",
    "scores",
    "items",
    "selection",
    "curve",
    "config",
    "data",
    "thresholds",
)
SAVE_OFTEN = (
    "--config.train.checkpoint_every=4",
    "--config.train.log_every=1",
    "--config.train.eval_every=8",
)


def start(folder, workdir):
    command = [sys.executable, "-m", "stilts_jax.main", "grid", "--config=toy:size=test", *SAVE_OFTEN]
    command += [f"--data_root={folder / 'demo/world/data'}", f"--config.encoder={folder / 'demo/encoder'}"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}"], stdout=subprocess.DEVNULL, stderr=(folder / "log").open("ab")
    )


def collect(workdir):
    """Returns what must be equal, by phase."""
    found = {}
    for path in sorted(workdir.glob("phases/*/result.json")):
        result = json.loads(path.read_text())
        parts = {name: result[name] for name in COMPARED}
        metrics = path.parent / "metrics.jsonl"
        parts["metrics"] = metrics.read_text() if metrics.is_file() else ""
        parts["final"] = [
            json.loads(one.read_text())["payload"]["leaves"]
            for one in path.parent.glob("final/*/record/metadata")
        ]
        found[path.parent.name] = parts
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--longest", type=float, default=30.0, help="seconds until the latest kill of a launch"
    )
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
        demo = [
            sys.executable,
            "-m",
            "stilts_jax.main",
            "demo",
            "--size=test",
            f"--workdir={folder / 'demo'}",
        ]
        subprocess.run(demo, check=True, capture_output=True)
        if start(folder, folder / "peaceful").wait():
            raise SystemExit((folder / "log").read_text())
        peaceful = collect(folder / "peaceful")
        kills, launches, workdir = 0, 0, folder / "killed0"
        while True:
            launches += 1
            process = start(folder, workdir)
            try:
                code = process.wait(draw.uniform(2.0, options.longest) if kills < options.points else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                continue
            if code:
                raise SystemExit((folder / "log").read_text())
            compare(peaceful, collect(workdir))
            if kills >= options.points:
                break
            workdir = folder / f"killed{launches}"  # it came to its end: the next grid gets the other kills
    print(f"{kills} kills in {launches} launches: {len(peaceful)} phases, all equal byte for byte")


def compare(peaceful, killed):
    if set(peaceful) != set(killed):
        raise SystemExit(f"phases differ: {sorted(set(peaceful) ^ set(killed))}")
    for phase, parts in peaceful.items():
        for part, value in parts.items():
            if killed[phase][part] != value:
                raise SystemExit(f"{phase}: {part} differs")


if __name__ == "__main__":
    main()
