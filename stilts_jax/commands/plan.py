"""Say whether a phase fits some chips and how fast it can be there at best, without having them.

Compiles the real training and evaluation step for TOPOLOGY: a TPU slice by name (v5e:4x4, v6e:16x16, v5p:2x2x1,
v4:8x8x4; needs the extra `tpu`), GPUs (h200:8, h100:1; needs the extra `cuda`), or cpu:N. If it does not fit, the
nearest setting that does is proposed, compiled too. --task says what is trained; the batch and length are its own.
With --data_root the chip-hours of the config's whole grid are counted. --sweep makes a table of weak scaling.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stilts_jax.errors import EXIT_ERROR, EXIT_OK, ConfigError, nearest
from stilts_jax.files import local_path
from stilts_jax.settings import LENGTH, ROWS

if TYPE_CHECKING:
    from stilts_jax.model import EncoderConfig
    from stilts_jax.plan.setup import Setup
    from stilts_jax.settings import Remat, Settings

ROWS_A_CHIP = 8
# Hub names whose shape is known without their files.
KNOWN = {
    "xlm-roberta-base": "base",
    "xlm-roberta-large": "large",
    "xlm-roberta-xl": "xl",
    "xlm-roberta-xxl": "xxl",
}


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
        type=ROWS,
        help=f"rows of a step's batch over all devices; of a sweep: a chip ({ROWS_A_CHIP})",
    )
    parser.add_argument("--length", type=LENGTH, help="tokens a row")
    parser.add_argument(
        "--data_root", type=local_path, help="the data, to count what the config's whole grid takes"
    )
    parser.add_argument(
        "--sweep", action="store_true", help="plan each encoder on each topology, as many rows a chip on all"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.commands.options import read_settings
    from stilts_jax.plan.command import plan_command, sweep_command
    from stilts_jax.progress import Progress
    from stilts_jax.settings import split_names

    settings = read_settings(arguments)
    topologies = split_names(arguments.topology)
    encoders = split_names(arguments.encoder or settings.encoder)
    setup = make_setup(
        settings,
        topology=topologies[0] if arguments.sweep else arguments.topology,
        shape=find_shape(encoders[0] if arguments.sweep else arguments.encoder or settings.encoder),
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
    from stilts_jax.experiment.needs import check_data
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
        check_data(phases, context)
        estimator = Estimator(context)
        return sum(estimator.estimate(phase).flops for phase in phases)


def make_setup(
    settings: "Settings",
    *,
    topology: str,
    shape: "EncoderConfig",
    task_name: str | None,
    rows: int | None,
    length: int | None,
) -> "Setup":
    """Returns the training step that the settings describe: of ``task_name``, or of the first task they name."""
    from stilts_jax.experiment.models import head_config, optimizer_config
    from stilts_jax.experiment.phases import hyperparameters_of
    from stilts_jax.plan.setup import Setup
    from stilts_jax.settings import split_names
    from stilts_jax.tasks import get_task

    experiment = settings.experiment
    named = [*split_names(experiment.targets), *split_names(experiment.intermediates)]
    task = get_task(task_name or next(name for name in named if name != "none").partition("/")[0])
    chosen = hyperparameters_of(task, settings)
    trained = get_task(task.train_on[-1]) if task.train_on else task
    rows, length, compute = rows or chosen.batch_size, length or chosen.max_length, settings.compute
    data = settings.data
    grid = (data.picture_size // data.picture_patch) ** 2
    pictures = (1, grid, 3 * data.picture_patch**2) if trained.pictures else (0, 0, 0)
    if compute.remat == "auto":
        compute = replace(
            compute,
            remat=_choose_remat(
                topology, shape, rows * (length + pictures[1]), length + pictures[1], compute.dtype
            ),
        )
    return Setup(
        encoder=shape,
        head=head_config(trained, settings, pictures),
        compute=compute,
        optimizer=optimizer_config(settings, chosen, 1000),
        rows=rows,
        length=length,
        topology=topology,
        mesh=settings.mesh,
        accumulation=settings.train.accumulation or 1,
    )


def _choose_remat(name: str, shape: "EncoderConfig", tokens: int, length: int, dtype: str) -> "Remat":
    """Returns what a run on the chips would choose, with its rows shared by all of them and its state by none."""
    from stilts_jax.automatic import Device, rematerialisation
    from stilts_jax.chips import parse_topology

    topology = parse_topology(name)
    device = Device(topology.chip.kind, topology.count, topology.chip.memory)
    width = 2 if dtype == "bfloat16" else 4
    layers = shape.num_layers * (4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size)
    parameters = layers + shape.vocab_size * shape.hidden_size
    tokens = -(-tokens // topology.count)
    return rematerialisation(device, shape, parameters=parameters, tokens=tokens, length=length, width=width)


def find_shape(encoder: str) -> "EncoderConfig":
    """Returns the shape of a name, a hub name or a folder."""
    from stilts_jax.experiment.start import RANDOM, read_shape
    from stilts_jax.model import SHAPES

    known = {**{name: name for name in SHAPES}, **KNOWN}
    short = encoder.rpartition("/")[2]
    folder = Path(encoder.removeprefix(RANDOM))
    if folder.is_dir():
        return read_shape(folder)
    if short not in known:
        raise ConfigError(f"There is no shape {encoder!r}.", where="--encoder", fix=nearest(short, known))
    return SHAPES[known[short]]
