"""Score folders of predictions in XTREME's official formats.

PREDICTIONS holds TASK/test-LL.tsv (or .json, .jsonl); GOLD holds the same layout with labels, or the releases'
own files. Needs no accelerator. What is absent is listed as missing, and the averages that need it stay empty.
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("--benchmark", choices=("xtreme", "xtreme-r"), default="xtreme")
    parser.add_argument("--predictions", type=Path, required=True)
    parser.add_argument("--gold", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="write the scores as JSON; else they are printed")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    import json

    from stilts_jax.evaluation.scoring import score_predictions
    from stilts_jax.files import write_json

    scores = score_predictions(arguments.benchmark, arguments.predictions, arguments.gold)
    if arguments.out is None:
        json.dump(scores, sys.stdout, indent=1)
        print()
        return 0
    write_json(arguments.out, scores)
    for name, task in scores["tasks"].items():
        value = "-" if task["score"] is None else f"{task['score']:.2f}"
        print(f"{name:10} {value:>7}")
    overall = scores["overall"]
    print(f"{'overall':10} {'-' if overall is None else f'{overall:.2f}':>7}")
    if scores["missing"]:
        print(f"missing: {len(scores['missing'])} files, listed in {arguments.out}")
    return 0
