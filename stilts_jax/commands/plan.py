"""Say whether a phase fits some chips and how fast it can be there at best, without having them.

Compiles the real training and evaluation step for TOPOLOGY: a TPU slice by name (v5e:4x4, v6e:16x16, v5p:2x2x1,
v4:8x8x4; needs the extra `tpu`), GPUs (h200:8, h100:1; needs the extra `cuda`), or cpu:N. If it does not fit, the
nearest setting that does is proposed, compiled too. --task says what is trained; the batch and length are its own.
With --data_root the chip-hours of the config's whole grid are counted. --sweep makes a table of weak scaling.
"""

import tempfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stilts_jax.checked import split_names
from stilts_jax.commands.options import Add, open_phases, read_settings
from stilts_jax.errors import EXIT_ERROR, EXIT_OK, ConfigError, nearest
from stilts_jax.settings import LENGTH, ROWS

if TYPE_CHECKING:
    from stilts_jax.chips import Topology
    from stilts_jax.model import EncoderConfig
    from stilts_jax.plan.setup import Setup
    from stilts_jax.settings import Settings

ROWS_A_CHIP = 8


def add_arguments(add: Add) -> None:
    add("--config", default="target")
    add("--topology", "v5e:4x4, v6e:16x16, h200:8, cpu:8, ...; several, joined by +, to sweep", required=True)
    told = "a shape (tiny, e5-small, base, large, xl, xxl) instead of the config's; several, joined by +, to sweep"
    add("--encoder", told)
    add("--task", "the task that is trained; the config's first by default")
    told = f"rows of a step's batch over all devices; of a sweep: a chip ({ROWS_A_CHIP})"
    add("--rows", told, type=ROWS)
    add("--length", "tokens a row", type=LENGTH)
    add("--data_root", "the data, to count what the config's whole grid takes")
    add("--sweep", "plan each encoder on each topology, as many rows a chip on all", action="store_true")
    add("--json", "print JSON")


def run(arguments: Namespace) -> int:
    from stilts_jax.plan.command import cut_mesh, plan_command, sweep_command

    settings, progress = read_settings(arguments), arguments.progress
    encoders, topologies = [arguments.encoder or settings.encoder], [arguments.topology]
    if arguments.sweep:
        encoders, topologies = map(list, map(split_names, (*encoders, *topologies)))
    shapes = {name: find_shape(name) for name in encoders}
    if arguments.sweep:

        def make(encoder: str, topology: "Topology") -> "Setup":
            rows = (arguments.rows or ROWS_A_CHIP) * topology.count
            cut = replace(settings, mesh=cut_mesh(settings.mesh, topology, rows))
            return make_setup(cut, arguments, topology.name, shapes[encoder], rows)

        for line in sweep_command(make, encoders=encoders, topologies=topologies, progress=progress):
            print(line, flush=True)
        return EXIT_OK
    setup = make_setup(settings, arguments, topologies[0], shapes[encoders[0]], arguments.rows)
    work: float = 0
    if arguments.data_root:
        from stilts_jax.experiment.needs import estimate

        whole = replace(settings, encoder=encoders[0])
        with tempfile.TemporaryDirectory() as folder:
            work = sum(cost.flops for cost in estimate(*open_phases(whole, arguments, workdir=Path(folder))))
    text, fits = plan_command(setup, work=work, as_json=arguments.json, progress=progress)
    print(text)
    return EXIT_OK if fits else EXIT_ERROR


def make_setup(
    settings: "Settings", arguments: Namespace, topology: str, shape: "EncoderConfig", rows: int | None
) -> "Setup":
    """Returns the training step that the settings describe: of ``--task``, or of the first task they name."""
    from stilts_jax.automatic import Device, fit_memory
    from stilts_jax.chips import parse_topology
    from stilts_jax.experiment.models import head_config, optimizer_config, with_dropout
    from stilts_jax.experiment.phases import NONE, hyperparameters_of
    from stilts_jax.plan.setup import Setup
    from stilts_jax.sharding import mesh_shape
    from stilts_jax.tasks import get_task

    experiment, data, compute = settings.experiment, settings.data, settings.compute
    named = [*split_names(experiment.targets), *split_names(experiment.intermediates)]
    task = get_task(arguments.task or next(name for name in named if name != NONE).partition("/")[0])
    chosen = hyperparameters_of(task, settings)
    trained = get_task(task.train_on[-1]) if task.train_on else task
    rows, length = rows or chosen.batch_size, arguments.length or chosen.max_length
    patches = (data.picture_size // data.picture_patch) ** 2
    sight: dict[str, int] = {}
    if trained.pictures:
        if data.pictures:
            what = "How many numbers another encoder makes of a picture is known when its features are there."
            raise ConfigError(what, where="config.data.pictures", fix="plan with the pictures themselves")
        # Tasks that compare two pictures; only their rows say so.
        several = 2 if trained.name.partition(".")[0] in ("nlvr2", "marvl") else 1
        sight = {"patches": patches, "patch_width": 3 * data.picture_patch**2, "pictures": several}
    grid = sight.get("pictures", 0) * patches
    chips = parse_topology(topology)
    device = Device(chips.chip.kind, chips.count, chips.chip.memory)
    mesh = mesh_shape(settings.mesh, chips.count)
    # What a run on the chips would choose.
    accumulation, remat = fit_memory(
        device, shape, compute, mesh, [(task.kind, rows, length + grid)], settings.train.accumulation
    )
    return Setup(
        encoder=with_dropout(shape, settings),
        head=head_config(trained, settings, sight),
        compute=replace(compute, remat=remat),
        optimizer=optimizer_config(settings, chosen, 1000),
        rows=rows,
        length=length,
        topology=topology,
        mesh=settings.mesh,
        accumulation=accumulation,
    )


def find_shape(encoder: str) -> "EncoderConfig":
    """Returns the shape of a name, a hub name or a folder."""
    from stilts_jax.experiment.models import RANDOM, read_shape
    from stilts_jax.model import SHAPES

    if Path(encoder.removeprefix(RANDOM)).is_dir():
        return read_shape(encoder)
    # The hub's names are known without their files.
    known = SHAPES | {f"xlm-roberta-{name}": SHAPES[name] for name in ("base", "large", "xl", "xxl")}
    short = encoder.rpartition("/")[2]
    if short not in known:
        raise ConfigError(f"There is no shape {encoder!r}.", where="--encoder", fix=nearest(short, known))
    return known[short]
