"""Say whether a phase fits some chips and how fast it can be there at best, without having them.

Compiles the real training and evaluation step for TOPOLOGY: a TPU slice by name (v5e:4x4, v6e:16x16, v5p:2x2x1,
v4:8x8x4; needs the extra `tpu`), GPUs (h200:8, h100:1; needs the extra `cuda`), or cpu:N. If it does not fit, the
nearest setting that does is proposed, compiled too. --task says what is trained; the batch and length are its own.
With --data_root the chip-hours of the config's whole grid are counted. --sweep makes a table of weak scaling.
"""

import tempfile
from argparse import Namespace
from dataclasses import replace
from os.path import expanduser, isdir
from pathlib import Path
from typing import TYPE_CHECKING

from stilts_jax.checked import split_names, stem
from stilts_jax.commands.options import Add, open_phases, read_settings
from stilts_jax.errors import EXIT_ERROR, EXIT_OK, ConfigError, nearest
from stilts_jax.settings import LENGTH, ROWS, Settings

if TYPE_CHECKING:
    from stilts_jax.model import EncoderConfig
    from stilts_jax.plan.compile import Setup

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
    from stilts_jax.plan.command import plan_command, sweep_command

    settings, progress = read_settings(arguments), arguments.progress
    encoders, topologies = [arguments.encoder or settings.encoder], [arguments.topology]
    if arguments.sweep:
        if arguments.json or arguments.data_root:
            where, fix = (
                "--sweep with --json or --data_root",
                "leave them out, or plan one encoder and topology",
            )
            raise ConfigError("A sweep prints a table of single steps.", where=where, fix=fix)
        encoders, topologies = [*split_names(encoders[0])], [*split_names(topologies[0])]
    pairs = [(name, find_shape(name), topology) for name in encoders for topology in topologies]
    setups = ((name, make_setup(settings, arguments, topology, shape)) for name, shape, topology in pairs)
    if arguments.sweep:
        for line in sweep_command(setups, progress):
            print(line, flush=True)
        return EXIT_OK
    ((encoder, setup),) = setups
    work: float = 0
    if arguments.data_root:
        from stilts_jax.experiment.models import read_shape
        from stilts_jax.experiment.needs import estimate
        from stilts_jax.model import SHAPES

        # The name of a shape has no tokenizer: tokens are then those of the config's encoder.
        whole = settings if encoder in SHAPES else replace(settings, encoder=encoder)
        with tempfile.TemporaryDirectory() as folder:
            work = sum(cost.flops for cost in estimate(*open_phases(whole, arguments, workdir=Path(folder))))
        work *= setup.encoder.training_flops() / read_shape(whole.encoder, whole).training_flops()
    text, fits = plan_command(setup, work, arguments.json, progress)
    print(text)
    return EXIT_OK if fits else EXIT_ERROR


def make_setup(settings: Settings, arguments: Namespace, topology: str, shape: "EncoderConfig") -> "Setup":
    """Returns the training step that the settings describe: of ``--task``, or of the first task they name."""
    from stilts_jax.automatic import Device, fit_memory
    from stilts_jax.chips import parse_topology
    from stilts_jax.experiment.models import head_config, optimizer_config, with_dropout
    from stilts_jax.experiment.phases import HUB, NONE, hyperparameters_of, list_phases
    from stilts_jax.plan.command import cut_mesh
    from stilts_jax.plan.compile import Setup
    from stilts_jax.sharding import mesh_shape
    from stilts_jax.tasks import get_task

    experiment, data, chips = settings.experiment, settings.data, parse_topology(topology)
    named = (*split_names(experiment.targets), *split_names(experiment.intermediates))
    names = [name.partition("/")[0] for name in named if name != NONE and not name.startswith(HUB)]
    first = next((name for name in names if get_task(name).is_trained), "".join(names[:1]))
    only = replace(experiment, targets=arguments.task or first, intermediates=NONE)
    phase = list_phases(replace(settings, experiment=only), is_part=True)[-1]
    if not phase.train:
        what, fix = f"{only.targets} is scored without training.", "name a task that is trained"
        raise ConfigError(what, where="--task", fix=fix)
    task = get_task(phase.train[0])
    chosen = hyperparameters_of(task, settings, phase)
    rows, length = arguments.rows or chosen.batch_size, arguments.length or chosen.max_length
    if length > shape.max_length:
        what = f"Rows of {length} tokens are too long: the encoder takes {shape.max_length} tokens."
        raise ConfigError(what, where="--length", fix=f"take --length={shape.max_length} or less")
    mesh = settings.mesh
    if arguments.sweep:
        rows = (arguments.rows or ROWS_A_CHIP) * chips.count
        mesh = cut_mesh(mesh, chips, rows)
    patches = (data.picture_size // data.picture_patch) ** 2
    sight: dict[str, int] = {}
    if task.pictures:
        if data.pictures:
            what = "How many numbers another encoder makes of a picture is known when its features are there."
            raise ConfigError(what, where="config.data.pictures", fix="plan with the pictures themselves")
        several = 2 if stem(task.name) in ("nlvr2", "marvl") else 1  # that is told by their rows only
        sight = {"patches": patches, "patch_width": 3 * data.picture_patch**2, "pictures": several}
    seen = length + sight.get("pictures", 0) * patches
    device = Device(chips.chip.kind, chips.count, chips.chip.memory)
    # What a run on the chips would choose.
    sizes, given = mesh_shape(mesh, chips.count), settings.train.accumulation
    accumulation, remat = fit_memory(device, shape, settings.compute, sizes, [(task.kind, rows, seen)], given)
    model = with_dropout(shape, settings), head_config(task, settings, sight)
    how = replace(settings.compute, remat=remat), optimizer_config(settings, chosen, 1000)
    rate = settings.mixture.mlm_rate
    return Setup(*model, *how, rows, length, topology, mesh, accumulation, mlm_rate=rate)


def find_shape(encoder: str) -> "EncoderConfig":
    """Returns the shape of a name, a hub name (XLM-R's without their files) or a folder."""
    from stilts_jax.experiment.models import RANDOM, read_shape
    from stilts_jax.model import SHAPES

    known = SHAPES | {f"xlm-roberta-{name}": SHAPES[name] for name in ("base", "large", "xl", "xxl")}
    short, is_folder = encoder.rpartition("/")[2], isdir(expanduser(encoder.removeprefix(RANDOM)))
    if short in known and not is_folder:
        return known[short]
    if is_folder or "/" in encoder:
        return read_shape(encoder)
    raise ConfigError(f"There is no shape {encoder!r}.", where="--encoder", fix=nearest(encoder, known))
