"""Run one phase, or the few that it needs: an intermediate or a target task.

Takes configs/intermediate.py, configs/target.py or any other config. The same as `stilts grid`, with a profile on
request. Killed and typed again, it goes on where it stopped.
"""

import argparse

from stilts_jax.files import local_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    from stilts_jax.commands.options import add_config_arguments

    add_config_arguments(parser)
    parser.add_argument(
        "--trace",
        type=local_path,
        metavar="DIR",
        help="write a profile of ten steps, for TensorBoard or Perfetto",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.commands.options import context_of, read_settings
    from stilts_jax.experiment.grid import run_grid
    from stilts_jax.experiment.needs import check_data
    from stilts_jax.experiment.phases import list_phases
    from stilts_jax.tasks import get_task

    settings = read_settings(arguments)
    phases = list_phases(settings, get_task)
    context = context_of(arguments, settings)
    check_data(phases, context)
    return run_grid(phases, context)
