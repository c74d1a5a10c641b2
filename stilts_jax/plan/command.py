"""Plans in processes of their own, looks for a setting that fits, and writes down what came out."""

import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from stilts_jax.chips import GIB, Topology
from stilts_jax.errors import ConfigError, StiltsError
from stilts_jax.plan.compile import Plan, Setup, environment
from stilts_jax.progress import Progress
from stilts_jax.sharding import MeshConfig, mesh_shape

# Of the proposals so many are compiled: from the cheapest on, and of the rest those that save most.
_TRIED, _TRIED_LAST = 6, 2
USUAL_SHARE = 0.4  # of the bound that well-tuned training of encoders reaches


def plan_training(setup: Setup) -> Plan:
    """Compiles the training and evaluation steps of ``setup`` without its chips; see ``Plan``."""
    paths = filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            [sys.executable, "-c", "from stilts_jax.plan.compile import main; main()", str(answer)],
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


def find_fitting(setup: Setup, progress: Progress) -> Plan | None:
    """Returns the plan of the nearest setup that fits, by what changes cost; the last one tried changes results."""
    lighter = replace(setup, compute=replace(setup.compute, remat="full"))
    cut = replace(setup, mesh=cut_mesh(setup.mesh, setup.chips, setup.rows))
    least = replace(lighter, mesh=cut.mesh)

    def halved(base: Setup) -> list[Setup]:
        devices = math.prod(mesh_shape(base.mesh, setup.chips.count)[:2])
        parts = [setup.accumulation * 2 * 4**power for power in range(8)]
        return [replace(base, accumulation=part) for part in parts if setup.rows % (part * devices) == 0]

    candidates = [lighter, cut, *halved(setup), least, *halved(lighter), *halved(least)]
    # In bfloat16 both results and checkpoints change.
    moments = replace(setup.optimizer, moment_dtype="bfloat16")
    candidates.append(replace([least, *halved(least)][-1], optimizer=moments))
    new = dict.fromkeys(candidate.completed() for candidate in candidates)
    tried = [candidate for candidate in new if candidate != setup.completed()]
    for candidate in [*tried[:_TRIED], *tried[_TRIED:][-_TRIED_LAST:]]:
        progress.say(f"trying {candidate.describe()}")
        try:
            plan = plan_training(candidate)
        except StiltsError as error:
            progress.say(f"  {error.what}")
            continue
        if plan.fits:
            return plan
    return None


def cut_mesh(mesh: MeshConfig, chips: Topology, rows: int) -> MeshConfig:
    """Returns the mesh with the least state on a device: fsdp as far as it divides the rows, tensor beyond."""
    slices, inside = chips.slices, chips.count // chips.slices
    fitting = [size for size in range(1, inside + 1) if inside % size == rows % (size * slices) == 0]
    fsdp = max(fitting, default=inside)
    return replace(mesh, data=slices, fsdp=fsdp, tensor=inside // fsdp)


def plan_command(setup: Setup, work: float, as_json: bool, progress: Progress) -> tuple[str, bool]:
    """Returns the text of a plan (or two) for a grid of ``work`` FLOP (0: not asked), and whether the setup fits."""
    progress.say(f"compiling for {setup.topology}")
    plan = plan_training(setup.completed())
    other = None if plan.fits else find_fitting(plan.setup, progress)
    if as_json:
        record = {"plan": _record(plan), "proposal": other and _record(other), "work": work}
        return json.dumps(record, indent=2), plan.fits
    text = describe(plan, work)
    if not plan.fits:
        found = f"This does:\n\n{describe(other, work)}" if other else "Nothing that was tried fits."
        text += f"\nIt does not fit. {found}"
    return text, plan.fits


def sweep_command(setups: Iterable[tuple[str, Setup]], progress: Progress) -> Iterator[str]:
    """Plans the training step of each of some named setups; yields a Markdown table, line by line as they are found."""
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


def describe(plan: Plan, work: float) -> str:
    setup, measured = plan.setup, (plan.train, plan.evaluate)
    topology, shape = setup.chips, setup.encoder
    rows: list[tuple[str, Sequence[int | None]]] = [
        ("parameters", (plan.parameters, plan.parameters)),
        ("optimizer", (plan.optimizer, 0)),
        ("batch", (plan.batch, plan.batch)),
        *((name, [step.get(name) for step in measured]) for name in plan.train or plan.evaluate),
        ("total", [sum(step.values()) if step else None for step in measured]),
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
    size = f"{shape.num_layers} x {shape.hidden_size}, {plan.num_parameters / 1e9:.2f} billion parameters"
    head = f"{size}, on {topology.count} x {topology.chip.name} ({topology.name})\n"
    head += f"{setup.head.kind}, batch {setup.rows} x {setup.length}, {setup.describe()}\n\n"
    head += "GiB on a device            training  evaluation"
    needed, executed = plan.model_flops / 1e12, plan.executed_flops / 1e12
    flops = f"{needed:.4g} TFLOP per step, {executed:.4g} with recomputation"
    lines += ["", f"{flops}; a device sends at least {plan.sent / 1e9:.3g} GB"]
    if plan.bound:
        bounds = ", ".join(f"{name} {seconds:.3g}" for name, seconds in plan.seconds.items())
        peak = topology.count * topology.chip.flops
        share = f"at most {plan.model_flops / plan.bound / peak:.0%} of the peak"
        lines.append(f"a step takes at least {plan.bound:.3g} s, limited by {plan.limit} ({bounds}): {share}")
    if plan.bound and work:
        steps = work / plan.model_flops
        hours = steps * plan.bound * topology.count / 3600
        usual = f"expect {hours / USUAL_SHARE:.3g}, assuming {USUAL_SHARE:.0%} of the bound"
        taken = f"at least {hours:.3g} chip-hours; {usual}"
        lines.append(f"the grid's {work:.3g} FLOP are {steps:.0f} such steps: {taken}")
    return "\n".join([head, *lines, ""])


def _gibibytes(size: int | None) -> str:
    return "  too much" if size is None else f"{size / GIB:10.3f}"


def _record(plan: Plan) -> dict:
    derived = {"fits": plan.fits, "bound": plan.bound, "limit": plan.limit}
    totals = {"train_total": sum(plan.train.values()), "evaluate_total": sum(plan.evaluate.values())}
    return asdict(plan) | derived | totals
