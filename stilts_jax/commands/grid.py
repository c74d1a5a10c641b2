"""Run a grid of intermediate and target phases: every row against every target, over seeds.

Killed and typed again, it goes on where it stopped. Finished phases are kept; a failed one is recorded with its
error, does not stop what does not depend on it, and is tried again by the next run of the command. The exit code
is 1 if a phase failed, 75 if SIGTERM and 130 if Ctrl-C stopped the run after saving. A second Ctrl-C aborts at once.
"""

import re
import shlex
from argparse import ArgumentTypeError, Namespace

from stilts_jax.commands.options import Add, add_experiment, open_phases, read_settings


def add_arguments(add: Add) -> None:
    add_experiment(add)
    told = "print phases, steps, tokens, FLOPs, disk and device-hours; run nothing (training data are tokenized, "
    add("--dry_run", f"{told}and kept for the run)", action="store_true")
    told = "run the rows and targets whose data are there, and name the others"
    add("--available", told, action="store_true")
    told = "run the share of one of N machines that share the work directory: whole rows, or targets of a "
    told += "row where there are more machines than rows"
    add("--part", told, type=_read_part, default=(1, 1), metavar="I/N")


def run(arguments: Namespace) -> int:
    from stilts_jax.experiment.grid import run_grid
    from stilts_jax.experiment.needs import estimate_text
    from stilts_jax.experiment.phases import select_part
    from stilts_jax.experiment.results import read_result

    phases, context = open_phases(read_settings(arguments), arguments)
    mine = select_part(phases, *arguments.part)
    if not mine:
        told = "part {}/{} has nothing to do".format(*arguments.part)
        context.progress.say(f"{told}: the {len(phases)} phases are shared by other parts")
    if arguments.dry_run:
        print(estimate_text(mine, context))
        return 0
    code = run_grid(phases, context, mine=mine)
    targets = (phase for phase in phases if phase.stage != "intermediate")
    if context.is_main and any(read_result(context.folder(phase)) for phase in targets):
        from stilts_jax.report import summary_text  # takes two seconds to import

        print(summary_text(arguments.workdir))
        print(f"\nThe whole report: {shlex.join(['stilts', 'report', str(arguments.workdir)])}")
    return code


def _read_part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ArgumentTypeError(f"{text!r} is no part: write 1/4, 2/4, 3/4 or 4/4")
    return int(match[1]), int(match[2])
