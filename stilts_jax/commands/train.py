"""Run one phase, or the few that it needs: an intermediate or a target task.

Takes configs/intermediate.py, configs/target.py or any other config. The same as `stilts grid`, with a profile on
request. Killed and typed again, it goes on where it stopped.
"""

import argparse

from stilts_jax.commands import options
from stilts_jax.files import local_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_experiment(parser)
    told = "write a profile of ten steps, for TensorBoard or Perfetto"
    options.adder(parser)("--trace", told, type=local_path, metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    from stilts_jax.experiment.grid import run_grid

    settings = options.read_settings(arguments)
    return run_grid(*options.open_phases(settings, arguments, trace=arguments.trace))
