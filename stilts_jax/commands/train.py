"""Run one phase, or the few that it needs: an intermediate or a target task.

Takes configs/intermediate.py, configs/target.py or any other config. The same as `stilts grid`, with a profile on
request. Killed and typed again, it goes on where it stopped.
"""

from argparse import Namespace

from stilts_jax.commands.options import Add, add_experiment, open_phases, read_settings
from stilts_jax.files import local_path


def add_arguments(add: Add) -> None:
    add_experiment(add)
    told = "write a profile of ten steps, for TensorBoard or Perfetto"
    add("--trace", told, type=local_path, metavar="DIR")


def run(arguments: Namespace) -> int:
    from stilts_jax.experiment.grid import run_grid

    return run_grid(*open_phases(read_settings(arguments), arguments))
