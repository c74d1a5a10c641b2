"""Run a grid of intermediate and target phases: every row against every target, over seeds.

Killed and typed again, it goes on where it stopped. Finished phases are kept; a failed one is recorded with its
error, does not stop what does not depend on it, and is tried again by the next run of the command. The exit code
is 1 if a phase failed, 75 if SIGTERM and 130 if Ctrl-C stopped the run after saving. A second Ctrl-C aborts at once.
"""

import argparse
import re

from stilts_jax.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    from stilts_jax.commands.options import add_config_arguments

    add_config_arguments(parser)
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print phases, steps, tokens, FLOPs, disk and device-hours; run nothing (training data are tokenized, "
        "and kept for the run)",
    )
    parser.add_argument(
        "--available",
        action="store_true",
        help="run the rows and targets whose data are there, and name the others",
    )
    parser.add_argument(
        "--part",
        default="1/1",
        metavar="I/N",
        help="run the share of one of N machines that share the work directory: whole rows, or targets of a row "
        "where there are more machines than rows",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.commands.options import context_of, read_settings
    from stilts_jax.experiment.needs import check_data, keep_available
    from stilts_jax.experiment.phases import list_phases, select_part
    from stilts_jax.tasks import get_task

    settings = read_settings(arguments)
    phases = list_phases(settings, get_task)
    part, parts = _read_part(arguments.part)
    context = context_of(arguments, settings)
    if arguments.available:
        context = keep_available(context)
        phases = list_phases(context.settings, get_task)
    check_data(phases, context)
    if arguments.dry_run:
        from stilts_jax.experiment.estimate import estimate_text

        print(estimate_text(phases, context))
        return 0
    from stilts_jax.experiment.grid import run_grid
    from stilts_jax.experiment.results import read_result
    from stilts_jax.report import summary_text

    code = run_grid(phases, context, mine=select_part(phases, part, parts))
    targets = (phase for phase in phases if phase.stage != "intermediate")
    if context.is_main and any(read_result(context.folder(phase)) for phase in targets):
        print(summary_text(arguments.workdir))
        print(f"\nThe whole report: stilts report {arguments.workdir}")
    return code


def _read_part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"{text!r} is no part.", where="--part", fix="write 1/4, 2/4, 3/4 or 4/4")
    return int(match[1]), int(match[2])
