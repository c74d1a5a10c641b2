"""Damages single files of a finished toy work directory and of its encoder, and runs commands on what is left.

Each damage must end in one of three ways: the scores are the same again, an error names what is wrong, or the report
leaves the file out and says so. Counted and listed are tracebacks, hangs, and silent acceptances: an exit code of 0
with other scores.

    python tests/long/fuzz_workdir.py --count 200 --demo W      # W: a finished `stilts demo --size=test`
"""

import argparse
import csv
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.long.damage import DAMAGES, Workdir, run

NAMES = ("phase", "task", "split", "metric", "language")


def read_scores(path):
    """Returns the report's scores by everything that names one."""
    if not path.is_file():
        return {}
    with path.open() as file:
        return {tuple(row[name] for name in NAMES): row["value"] for row in csv.DictReader(file)}


def try_report(workdir, scratch, expected):
    code, text = run("report", str(workdir.path), f"--out={scratch / 'report'}")
    found = read_scores(scratch / "report/scores.csv")
    return code, text, code == 0 and not found.items() <= expected["report"].items()


def try_grid(workdir, scratch, expected):
    code, text = workdir.grid()
    return code, text, code == 0 and workdir.scores() != expected["grid"]


def try_eval(workdir, scratch, expected):
    (phase,) = workdir.path.glob("phases/none+udpos.s0-*")
    options = ("--config=toy:size=test", f"--data_root={workdir.data}", f"--out={scratch / 'eval'}")
    code, text = run("eval", str(phase), "--task=udpos", *options)
    found = json.loads((scratch / "eval/scores.json").read_text())["scores"] if code == 0 else None
    return code, text, code == 0 and found != expected["eval"]


def choose(draw, files):
    """Draws a kind of file first: there are many more pieces of checkpoints than records."""
    kinds = {}
    for name, path in files.items():
        parts = Path(name).parts
        kind = parts[2] if parts[0] == "phases" else parts[0] + path.suffix
        kinds.setdefault(kind if "final" not in parts else "/".join(parts[4:6]), []).append(name)
    return draw.choice(kinds[draw.choice(sorted(kinds))])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    commands = {"grid": try_grid, "report": try_report, "eval": try_eval}
    counts = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = Workdir(folder / "whole", options.demo / "world/data", options.demo / "encoder")
        code, text = whole.grid()
        if code:
            raise SystemExit(text)
        expected = {"grid": whole.scores(), "report": {}, "eval": None}
        try_report(whole, folder, expected)
        expected["report"] = read_scores(folder / "report/scores.csv")
        try_eval(whole, folder, expected)
        expected["eval"] = json.loads((folder / "eval/scores.json").read_text())["scores"]
        for number in range(options.count):
            seed = options.seed * 100_000 + number
            draw, scratch = random.Random(seed), folder / "scratch"
            workdir = whole.copy(scratch)
            command = draw.choice(("grid", "grid", "report", "eval"))
            if command == "grid" and draw.random() < 0.7:  # so that models and checkpoints are needed
                (phase,) = workdir.path.glob("phases/none+udpos.s0-*")
                for name in draw.choice((("result.json",), ("result.json", "trained.json"))):
                    (phase / name).unlink()
            files = workdir.files()
            if command != "report":  # what they read
                files = {
                    name: path for name, path in files.items() if "phases" not in name or "none+udpos" in name
                }
            victim, damage = choose(draw, files), draw.choice(DAMAGES)
            damage(files[victim], draw)
            code, text, silent = commands[command](workdir, scratch, expected)
            verdict = {-1: "TRACEBACK", -2: "HANG"}.get(code, "SILENT" if silent else f"exit {code}")
            counts[verdict] += 1
            print(f"seed {seed}: {damage.__name__} {victim}, {command}: {verdict}", flush=True)
            if verdict.isupper() or code > 0:
                start = max(text.find("Traceback"), 0) if verdict == "TRACEBACK" else 0
                lines = text[max(start - 400, 0) :].strip().splitlines()
                shown = lines[:40] if start else lines[-25 if verdict.isupper() else -5 :]
                print("    " + "\n    ".join(shown))
            shutil.rmtree(scratch)
    print(f"{options.count} damages: {dict(counts)}")


if __name__ == "__main__":
    main()
