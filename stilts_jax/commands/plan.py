"""Say whether a phase fits some chips and how fast it can be there at best, without having them.

Compiles the real training and evaluation step for TOPOLOGY: a TPU slice by name (v5e:4x4, v6e:16x16, v5p:2x2x1,
v4:8x8x4; needs the extra `tpu`), GPUs (h200:8, h100:1; needs the extra `cuda`), or cpu:N. If it does not fit, the
nearest setting that does is proposed, compiled too. --task says what is trained; the batch and length are its own.
With --data_root the chip-hours of the config's whole grid are counted. --sweep makes a table of weak scaling.
"""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stilts_jax.errors import EXIT_ERROR, EXIT_OK

if TYPE_CHECKING:
    from stilts_jax.experiment.settings import Settings

ROWS_A_CHIP = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("--config", default="target", metavar="FILE[:key=value,...]")
    parser.add_argument(
        "--topology",
        required=True,
        help="v5e:4x4, v6e:16x16, h200:8, cpu:8, ...; several, joined by +, to sweep",
    )
    parser.add_argument(
        "--encoder",
        help="a shape (tiny, e5-small, base, large, xl, xxl) instead of the config's; several, joined by +, to sweep",
    )
    parser.add_argument("--task", help="the task that is trained; the config's first by default")
    parser.add_argument(
        "--rows",
        type=int,
        help=f"rows of a step's batch over all devices; of a sweep: a chip ({ROWS_A_CHIP})",
    )
    parser.add_argument("--length", type=int, help="tokens a row")
    parser.add_argument(
        "--data_root", type=Path, help="the data, to count what the config's whole grid takes"
    )
    parser.add_argument(
        "--sweep", action="store_true", help="plan each encoder on each topology, as many rows a chip on all"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.commands.options import read_settings
    from stilts_jax.experiment.planning import find_shape, make_setup
    from stilts_jax.experiment.settings import split_names
    from stilts_jax.plan.command import plan_command, sweep_command
    from stilts_jax.progress import Progress

    settings = read_settings(arguments)
    topologies = split_names(arguments.topology)
    encoders = split_names(arguments.encoder or settings.encoder)
    setup = make_setup(
        settings,
        topology=topologies[0] if arguments.sweep else arguments.topology,
        shape=encoders[0] if arguments.sweep else arguments.encoder,
        task_name=arguments.task,
        rows=arguments.rows,
        length=arguments.length,
    )
    if arguments.sweep:
        shapes = {name: find_shape(name) for name in encoders}
        rows = arguments.rows or ROWS_A_CHIP
        for line in sweep_command(
            setup, shapes=shapes, topologies=topologies, rows_a_chip=rows, progress=Progress()
        ):
            print(line, flush=True)
        return EXIT_OK
    work = _count_work(arguments, settings) if arguments.data_root else 0
    text, fits = plan_command(setup, work=work, as_json=arguments.json, progress=Progress())
    print(text)
    return EXIT_OK if fits else EXIT_ERROR


def _count_work(arguments: argparse.Namespace, settings: "Settings") -> float:
    """Returns the FLOP of all phases of the grid, training and scoring."""
    from stilts_jax.commands.options import open_context
    from stilts_jax.experiment.estimate import Estimator
    from stilts_jax.experiment.phases import list_phases
    from stilts_jax.tasks import get_task

    phases = list_phases(settings, get_task)
    with tempfile.TemporaryDirectory() as folder:
        context = open_context(
            settings,
            data_root=arguments.data_root,
            workdir=Path(folder),
            command=arguments.command_line,
        )
        context.check(phases)
        estimator = Estimator(context)
        return sum(estimator.estimate(phase).flops for phase in phases)
