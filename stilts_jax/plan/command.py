"""Plans in processes of their own, looks for a setting that fits, and writes down what came out."""

import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import stilts_jax
from stilts_jax.chips import GIB, Topology, parse_topology
from stilts_jax.errors import ConfigError, StiltsError
from stilts_jax.plan.compile import environment
from stilts_jax.plan.setup import Plan, Setup
from stilts_jax.progress import SILENT, Progress
from stilts_jax.sharding import MeshConfig, mesh_shape

# Of the proposals so many are compiled: from the cheapest on, and of the rest those that save most.
_TRIED, _TRIED_LAST = 6, 2
USUAL_SHARE = 0.4  # of the bound that well-tuned training of encoders reaches


def plan_training(setup: Setup) -> Plan:
    """Compiles the training and evaluation steps of ``setup`` without its chips; see ``Plan``."""
    paths = [str(Path(stilts_jax.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            [sys.executable, "-m", "stilts_jax.plan.compile", str(answer)],
            input=pickle.dumps(setup),
            env={**os.environ, **environment(setup.chips), "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if not answer.exists():
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            where = f"{setup.topology}, {setup.describe()}: {last[:500]}"
            fix = "try another mesh or attention; cpu:N compiles almost anything"
            raise StiltsError("The compiler failed.", where=where, fix=fix)
        found = pickle.loads(answer.read_bytes())
    if isinstance(found, ConfigError):
        raise found
    return found


def find_fitting(setup: Setup, progress: Progress = SILENT) -> Plan | None:
    """Returns the plan of the nearest setup that fits: with the fewest changes, the cheapest first."""
    candidates = _alternatives(setup)
    for candidate in [*candidates[:_TRIED], *candidates[_TRIED:][-_TRIED_LAST:]]:
        progress.say(f"trying {candidate.describe()}")
        try:
            plan = plan_training(candidate)
        except StiltsError as error:
            progress.say(f"  {error.what}")
            continue
        if plan.fits:
            return plan
    return None


def _alternatives(setup: Setup) -> list[Setup]:
    """Returns setups that need less memory, by what they cost: results stay the same until the last."""
    lighter = replace(setup, compute=replace(setup.compute, remat="full"))
    cut = cut_mesh(setup.mesh, setup.chips, setup.rows)
    least = replace(lighter, mesh=cut)

    def halved(base: Setup) -> list[Setup]:
        devices = math.prod(mesh_shape(base.mesh, setup.chips.count)[:2])
        parts = [setup.accumulation * 2 * 4**power for power in range(8)]
        return [replace(base, accumulation=part) for part in parts if setup.rows % (part * devices) == 0]

    # In bfloat16 both results and checkpoints change.
    moments = replace(setup.optimizer, moment_dtype="bfloat16")
    last = replace([least, *halved(least)][-1], optimizer=moments)
    candidates = [lighter, replace(setup, mesh=cut), *halved(setup), least, *halved(lighter), *halved(least)]
    new = dict.fromkeys(candidate.completed() for candidate in (*candidates, last))
    new.pop(setup.completed(), None)
    return list(new)


def cut_mesh(mesh: MeshConfig, chips: Topology, rows: int) -> MeshConfig:
    """Returns the mesh with the least state on a device: fsdp as far as it divides the rows, tensor beyond."""
    slices, inside = chips.slices, chips.count // chips.slices
    fitting = [size for size in range(1, inside + 1) if inside % size == rows % (size * slices) == 0]
    fsdp = max(fitting, default=inside)
    return replace(mesh, data=slices, fsdp=fsdp, tensor=inside // fsdp)


def plan_command(
    setup: Setup, *, work: float = 0, as_json: bool = False, progress: Progress = SILENT
) -> tuple[str, bool]:
    """Plans a setup and, if it does not fit, the nearest one that does, for a grid of ``work`` FLOP (0: not asked for).

    Returns what to print, and whether the setup itself fits.
    """
    setup = setup.completed()
    progress.say(f"compiling for {setup.topology}")
    plan = plan_training(setup)
    other = None if plan.fits else find_fitting(setup, progress)
    if as_json:
        record = {"plan": _record(plan), "proposal": other and _record(other), "work": work}
        return json.dumps(record, indent=2), plan.fits
    text = describe(plan, work)
    if not plan.fits:
        text += "\nIt does not fit. "
        text += f"This does:\n\n{describe(other, work)}" if other else "Nothing that was tried fits."
    return text, plan.fits


def sweep_command(
    make_setup: Callable[[str, Topology], Setup],
    *,
    encoders: Sequence[str],
    topologies: Sequence[str],
    progress: Progress = SILENT,
) -> Iterator[str]:
    """Plans weak scaling: encoders by name on growing numbers of chips, as many rows a chip on all.

    ``make_setup`` returns the step of an encoder on a topology. Yields the lines of a Markdown table as they are found:
    a row for each encoder and topology.
    """
    yield "| encoder | chips | mesh | rows a chip | GiB a chip | GB sent a step | bound s | limited by |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in encoders:
        for topology in map(parse_topology, topologies):
            progress.say(f"{name} on {topology.name}")
            plan = plan_training(replace(make_setup(name, topology), evaluation=False).completed())
            mesh = plan.setup.mesh
            found = ["does not fit", "–", "–", "–"]
            if plan.train:
                memory = sum(plan.train.values()) / GIB
                found = [f"{memory:.2f}", f"{plan.sent / 1e9:.1f}", f"{plan.bound:.3g}", plan.limit]
            place = f"{topology.name} ({topology.count}) | {mesh.data} x {mesh.fsdp} x {mesh.tensor}"
            yield f"| {name} | {place} | {plan.setup.rows / topology.count:g} | {' | '.join(found)} |"


def describe(plan: Plan, work: float = 0) -> str:
    """Returns a plan as a person reads it."""
    setup, steps = plan.setup, (plan.train, plan.evaluate)
    topology, shape = setup.chips, setup.encoder
    rows: list[tuple[str, Sequence[int | None]]] = [
        ("parameters", (plan.parameters, plan.parameters)),
        ("optimizer", (plan.optimizer, 0)),
        ("batch", (plan.batch, plan.batch)),
        *((name, [step.get(name) for step in steps]) for name in plan.train or plan.evaluate),
        ("total", [sum(step.values()) if step else None for step in steps]),
    ]
    lines = [f"  {name:<22}{''.join(map(_gibibytes, values))}" for name, values in rows]
    if memory := topology.chip.memory:
        verdict = "fits" if plan.fits else f"does not fit ({plan.failure or 'too much in all'})"
        lines.append(f"  {'the chip has':<22}{_gibibytes(memory)}            {verdict}")
    if plan.stages:
        lines += ["", "GiB on a device, stage by stage"]
        lines += [f"  {name:<22}{_gibibytes(size or None)}" for name, size in plan.stages.items()]
    filler = [f"{setup.filler} filler rows, so that the devices share them evenly"] if setup.filler else []
    lines += [f"  note: {note}" for note in (*filler, *plan.notes)]
    return "\n".join(
        [
            f"{shape.num_layers} x {shape.hidden_size}, {plan.num_parameters / 1e9:.2f} billion parameters, on "
            f"{topology.count} x {topology.chip.name} ({topology.name})",
            f"{setup.head.kind}, batch {setup.rows} x {setup.length}, {setup.describe()}",
            "",
            "GiB on a device            training  evaluation",
            *lines,
            "",
            *_speed(plan, work),
            "",
        ]
    )


def _gibibytes(size: int | None) -> str:
    return "  too much" if size is None else f"{size / GIB:10.3f}"


def _speed(plan: Plan, work: float) -> Iterator[str]:
    count, chip = plan.setup.chips.count, plan.setup.chips.chip
    yield (
        f"{plan.model_flops / 1e12:.4g} TFLOP per step, {plan.executed_flops / 1e12:.4g} with recomputation; "
        f"a device sends at least {plan.sent / 1e9:.3g} GB"
    )
    if not plan.bound:
        return
    bounds = ", ".join(f"{name} {seconds:.3g}" for name, seconds in plan.seconds.items())
    share = plan.model_flops / count / chip.flops / plan.bound
    yield (
        f"a step takes at least {plan.bound:.3g} s, limited by {plan.limit} ({bounds}): "
        f"at most {share:.0%} of the peak"
    )
    if work:
        steps = work / plan.model_flops
        hours = steps * plan.bound * count / 3600
        yield (
            f"the grid's {work:.3g} FLOP are {steps:.0f} such steps: at least {hours:.3g} chip-hours; expect "
            f"{hours / USUAL_SHARE:.3g}, assuming {USUAL_SHARE:.0%} of the bound"
        )


def _record(plan: Plan) -> dict:
    derived = {"fits": plan.fits, "bound": plan.bound, "limit": plan.limit}
    totals = {"train_total": sum(plan.train.values()), "evaluate_total": sum(plan.evaluate.values())}
    return asdict(plan) | derived | totals
