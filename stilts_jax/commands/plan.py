"""Say whether a phase fits some chips and how fast it can be there at best, without having them.

Compiles the real training and evaluation step for TOPOLOGY: a TPU slice by name (v5e:4x4, v6e:16x16, v5p:2x2x1,
v4:8x8x4; needs the extra `tpu`), GPUs (h200:8, h100:1; needs the extra `cuda`), or cpu:N. If it does not fit, the
nearest setting that does is proposed, compiled too. --task says what is trained; the batch and length are its own.
With --data_root the chip-hours of the config's whole grid are counted. --sweep makes a table of weak scaling.
"""

import json
import tempfile
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from os.path import expanduser, isdir
from pathlib import Path
from typing import TYPE_CHECKING

from stilts_jax.checked import split_names, stem
from stilts_jax.chips import GIB, parse_topology
from stilts_jax.commands.options import Add, open_phases, read_settings
from stilts_jax.errors import EXIT_ERROR, EXIT_OK, ConfigError, nearest
from stilts_jax.progress import Progress
from stilts_jax.settings import LENGTH, ROWS, Settings

if TYPE_CHECKING:
    from stilts_jax.model import EncoderConfig
    from stilts_jax.plan import Plan, Setup

ROWS_A_CHIP = 8
USUAL_SHARE = 0.4  # of the bound that well-tuned training of encoders reaches


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
    settings, progress = read_settings(arguments), arguments.progress
    encoders, topologies = [arguments.encoder or settings.encoder], [arguments.topology]
    if arguments.sweep:
        if arguments.json or arguments.data_root:
            what = "A sweep prints a table of single steps."
            fix = "leave them out, or plan one encoder and topology"
            raise ConfigError(what, where="--sweep with --json or --data_root", fix=fix)
        encoders, topologies = [*split_names(encoders[0])], [*split_names(topologies[0])]
        if not encoders or not topologies:
            what, fix = "A sweep needs an encoder and a topology.", "name them, joined by +"
            raise ConfigError(what, where="--encoder, --topology", fix=fix)
    pairs = [(name, find_shape(name), topology) for name in encoders for topology in topologies]
    setups = ((name, make_setup(settings, arguments, topology, shape)) for name, shape, topology in pairs)
    if arguments.sweep:
        for line in sweep_command(setups, progress):
            print(line, flush=True)
        return EXIT_OK
    ((encoder, setup),) = setups
    work = count_work(settings, arguments, encoder, setup) if arguments.data_root else 0
    text, fits = plan_command(setup, work, arguments.json, progress)
    print(text)
    return EXIT_OK if fits else EXIT_ERROR


def count_work(settings: Settings, arguments: Namespace, encoder: str, setup: "Setup") -> float:
    """Returns the FLOP of the config's whole grid on the encoder of ``setup``."""
    from stilts_jax.experiment.models import read_shape
    from stilts_jax.experiment.needs import estimate
    from stilts_jax.model import SHAPES

    # The name of a shape has no tokenizer: tokens are then those of the config's encoder.
    whole = settings if encoder in SHAPES else replace(settings, encoder=encoder)
    with tempfile.TemporaryDirectory() as folder:
        work = sum(cost.flops for cost in estimate(*open_phases(whole, arguments, workdir=Path(folder))))
    return work * setup.encoder.training_flops() / read_shape(whole.encoder, whole).training_flops()


def make_setup(settings: Settings, arguments: Namespace, topology: str, shape: "EncoderConfig") -> "Setup":
    """Returns the training step that the settings describe: of ``--task``, or of the first task they name."""
    from stilts_jax.automatic import Device, fit_memory
    from stilts_jax.experiment.models import head_config, optimizer_config, with_dropout
    from stilts_jax.experiment.phases import HUB, NONE, hyperparameters_of, list_phases
    from stilts_jax.plan import Setup, cut_mesh
    from stilts_jax.sharding import mesh_shape
    from stilts_jax.tasks import get_task

    experiment, data, chips = settings.experiment, settings.data, parse_topology(topology)
    if arguments.task:
        get_task(arguments.task)  # a wrong name is not the config's
    named = (*split_names(experiment.targets), *split_names(experiment.intermediates))
    names = [name.partition("/")[0] for name in named if name != NONE and not name.startswith(HUB)]
    first = next((name for name in names if get_task(name).is_trained), "".join(names[:1]))
    only = replace(experiment, targets=arguments.task or first, intermediates=NONE)
    phase = list_phases(replace(settings, experiment=only), is_part=True)[-1]
    if not phase.train:
        what, fix = f"{only.targets} is scored without training.", "name a task that is trained"
        raise ConfigError(what, where="--task", fix=fix)
    task = get_task(phase.train[0])
    if task.labels_file:  # its labels come with the data: about as many as those of VQA v2
        task = replace(task, labels=tuple(map(str, range(3129))))
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
    tasks = [(task.kind, rows, seen)]
    accumulation, remat = fit_memory(device, shape, settings.compute, sizes, tasks, given)
    model = with_dropout(shape, settings), head_config(task, settings, sight)
    how = replace(settings.compute, remat=remat), optimizer_config(settings, chosen, 1000)
    rate = settings.mixture.mlm_rate
    return Setup(*model, *how, rows, length, topology, mesh, accumulation, mlm_rate=rate)


def find_shape(encoder: str) -> "EncoderConfig":
    """Returns the shape of a name, a hub name (XLM-R's without their files) or a folder."""
    from stilts_jax.experiment.models import RANDOM, read_shape
    from stilts_jax.model import SHAPES

    is_folder, short = isdir(expanduser(encoder.removeprefix(RANDOM))), encoder.rpartition("/")[2]
    known = SHAPES | {f"xlm-roberta-{name}": SHAPES[name] for name in ("base", "large", "xl", "xxl")}
    if not is_folder and (encoder in known or (short in known and short not in SHAPES)):
        return known[short]
    if is_folder or "/" in encoder:
        return read_shape(encoder)
    raise ConfigError(f"There is no shape {encoder!r}.", where="--encoder", fix=nearest(encoder, known))


def plan_command(setup: "Setup", work: float, as_json: bool, progress: Progress) -> tuple[str, bool]:
    """Returns the text of a plan (or two) for a grid of ``work`` FLOP (0: not asked), and whether the setup fits."""
    from stilts_jax.plan import find_fitting, plan_training

    progress.say(f"compiling for {setup.topology}")
    plan = plan_training(setup.completed())
    other = None if plan.fits else find_fitting(plan.setup, progress)
    if as_json:
        record = {"plan": _record(plan), "proposal": other and _record(other), "work": work}
        return json.dumps(record, indent=2), plan.fits
    if plan.fits:
        return describe(plan, work), True
    found = f"This does:\n\n{describe(other, work)}" if other else "Nothing that was tried fits."
    return f"{describe(plan, work)}\nIt does not fit. {found}", False


def sweep_command(setups: Iterable[tuple[str, "Setup"]], progress: Progress) -> Iterator[str]:
    """Plans the training step of each of some named setups; yields a Markdown table, line by line as they are found."""
    from stilts_jax.plan import plan_training

    yield "| encoder | chips | mesh | rows a chip | GiB a chip | GB sent a step | bound s | limited by |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, setup in setups:
        progress.say(f"{name} on {setup.topology}")
        plan = plan_training(replace(setup, evaluation=False).completed())
        mesh, count, found = plan.setup.mesh, setup.chips.count, ["does not fit", "–", "–", "–"]
        if plan.fits:
            memory = sum(plan.train.values()) / GIB
            found = [f"{memory:.2f}", f"{plan.sent / 1e9:.1f}", f"{plan.bound:.3g}", plan.limit]
        place = f"{setup.topology} ({count}) | {mesh.data} x {mesh.fsdp} x {mesh.tensor}"
        yield f"| {name} | {place} | {plan.setup.rows / count:g} | {' | '.join(found)} |"


def describe(plan: "Plan", work: float) -> str:
    setup, measured, chips = plan.setup, (plan.train, plan.evaluate), plan.setup.chips
    shape, billions = setup.encoder, plan.num_parameters / 1e9
    size = f"{shape.num_layers} x {shape.hidden_size}, {billions:.2f} billion"
    lines = [
        f"{size} parameters, on {chips.count} x {chips.chip.name} ({chips.name})",
        f"{setup.head.kind}, batch {setup.rows} x {setup.length}, {setup.describe()}",
        "",
        "GiB on a device            training  evaluation",
        _row("parameters", plan.parameters, plan.parameters),
        _row("optimizer", plan.optimizer, 0),
        _row("batch", plan.batch, plan.batch),
        *(_row(name, *(step.get(name) for step in measured)) for name in plan.train or plan.evaluate),
        _row("total", *(sum(step.values()) if step else None for step in measured)),
    ]
    if memory := chips.chip.memory:
        verdict = "fits" if plan.fits else f"does not fit ({plan.failure or 'too much in all'})"
        lines.append(f"{_row('the chip has', memory)}            {verdict}")
    lines += [
        "",
        "GiB on a device, stage by stage",
        *(_row(name, size or None) for name, size in plan.stages.items()),
    ]
    if setup.filler:
        lines.append(f"  note: {setup.filler} filler rows, so that the devices share them evenly")
    lines += [f"  note: {note}" for note in plan.notes]
    needed, executed = plan.model_flops / 1e12, plan.executed_flops / 1e12
    flops = (
        f"{needed:.4g} TFLOP per step by the formula, {executed:.4g} in the products outside of fused kernels"
    )
    lines += ["", f"{flops}; a device sends at least {plan.sent / 1e9:.3g} GB"]
    if plan.bound:
        bounds = ", ".join(f"{name} {seconds:.3g}" for name, seconds in plan.seconds.items())
        # The last layer may compute less than the formula counts.
        useful = min(plan.model_flops, plan.executed_flops)
        share = f"at most {useful / plan.bound / (chips.count * chips.chip.flops):.0%} of the peak"
        lines.append(f"a step takes at least {plan.bound:.3g} s, limited by {plan.limit} ({bounds}): {share}")
    if plan.bound and work:
        steps = work / plan.model_flops
        hours = steps * plan.bound * chips.count / 3600
        usual = f"expect {hours / USUAL_SHARE:.3g}, assuming {USUAL_SHARE:.0%} of the bound"
        taken = f"at least {hours:.3g} chip-hours; {usual}"
        lines.append(f"the grid's {work:.3g} FLOP are {steps:.0f} such steps: {taken}")
    return "\n".join([*lines, ""])


def _row(name: str, *sizes: int | None) -> str:
    shown = ("  too much" if size is None else f"{size / GIB:10.3f}" for size in sizes)
    return f"  {name:<22}{''.join(shown)}"


def _record(plan: "Plan") -> dict:
    derived = {"fits": plan.fits, "bound": plan.bound, "limit": plan.limit}
    totals = {"train_total": sum(plan.train.values()), "evaluate_total": sum(plan.evaluate.values())}
    return asdict(plan) | derived | totals
