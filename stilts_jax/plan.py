"""Whether a setup fits its chips, and how fast it can be at best: its real steps, compiled for chips that are not here.

A process that compiles for other chips must be told so before JAX starts, and a compiler that fails takes its process
along. So ``plan_training`` starts a process for each plan; what that runs is ``main``.
"""

import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stilts_jax import sharding
from stilts_jax.automatic import SEQUENCES
from stilts_jax.chips import GIB, Topology, environment, parse_topology, topology_devices
from stilts_jax.errors import ConfigError, StiltsError
from stilts_jax.model import Compute, EncoderConfig, HeadConfig, Model, init_params
from stilts_jax.model.heads import select_head
from stilts_jax.progress import Progress
from stilts_jax.settings import MeshConfig
from stilts_jax.sharding import AXES, bytes_per_device
from stilts_jax.train.losses import FRACTIONS, LOSSES, make_loss
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import TrainState, eval_step, train_step

HEAD = "task"  # the one head that a planned model has
# Of the proposals so many are compiled: from the cheapest on, and of the rest those that save most.
_TRIED, _TRIED_LAST = 6, 2


@dataclass(frozen=True)
class Setup:
    """One training step on one arrangement of chips: all that its compilation depends on."""

    encoder: EncoderConfig
    head: HeadConfig
    compute: Compute
    optimizer: OptimizerConfig
    rows: int  # of a step's batch, over all devices and microbatches
    length: int  # tokens a row
    topology: str  # see ``parse_topology``
    mesh: MeshConfig
    accumulation: int = 1
    evaluation: bool = True  # the evaluation step, which needs less than the training step, is compiled too
    filler: int = 0  # how many of the rows only fill up the devices
    mlm_rate: float = 0.15  # share of a row's tokens that masked language modelling predicts

    def completed(self) -> "Setup":
        """Returns the setup as the loop would run it: sizes of all axes, and rows that the devices can share."""
        mesh = MeshConfig(*sharding.mesh_shape(self.mesh, self.chips.count), zero1=self.mesh.zero1)
        filler = -self.rows % (mesh.data * mesh.fsdp * self.accumulation)
        return replace(self, mesh=mesh, rows=self.rows + filler, filler=self.filler + filler)

    @property
    def model(self) -> Model:
        """The model with its one head, compiled for the chips and not for what is here."""
        platform: Any = {"cuda": "gpu"}.get(self.chips.platform, self.chips.platform)
        return Model(self.encoder, ((HEAD, self.head),), replace(self.compute, platform=platform))

    @property
    def chips(self) -> Topology:
        return parse_topology(self.topology)

    @property
    def tokens(self) -> int:
        """Tokens that the encoder sees in a step: choices and pairs are several sequences per row."""
        seen = self.head.pictures * self.head.patches
        return self.rows * (SEQUENCES.get(self.head.kind, 1) * self.length + seen)

    @property
    def masked(self) -> int:
        """Masked positions of a row in masked language modelling, as many as its batches have."""
        return max(1, round(self.mlm_rate * self.length))

    @property
    def passes(self) -> int:
        """How often a step reads the layers' weights: "full" rematerialisation alone multiplies by them once more."""
        return 3 if self.compute.remat == "full" else 2

    @property
    def width(self) -> int:
        """Bytes of an activation."""
        return 2 if self.compute.dtype == "bfloat16" else 4

    def describe(self) -> str:
        mesh = " ".join(f"{name}={getattr(self.mesh, name)}" for name in AXES) + ", zero1" * self.mesh.zero1
        cost = f"remat {self.compute.remat}, accumulation {self.accumulation}"
        return f"mesh {mesh}, {cost}, first moment {self.optimizer.moment_dtype}"


@dataclass(frozen=True)
class Plan:
    """What a setup needs, and how fast it can be at best; memory is bytes on one device."""

    setup: Setup
    num_parameters: int  # of encoder and head
    parameters: int
    optimizer: int  # the moments
    batch: int
    train: Mapping[str, int]  # what the compiled step takes, by part; empty where memory did not suffice
    evaluate: Mapping[str, int]
    failure: str  # the compiler's words about that
    sent: float  # bytes that a device sends in a step, by the shapes of its shards
    model_flops: float  # multiply-adds (times two) that the method needs for a step, without recomputation
    executed_flops: float  # those of all matrix products that the step runs, with recomputation
    seconds: Mapping[str, float]  # a step takes at least so long by compute, memory, links, network
    notes: tuple[str, ...]  # parameters that could not be cut as the rules say
    # Bytes at each stage of a state's life; of the compiled ones (initialise, step) with what is needed meanwhile.
    stages: Mapping[str, int]

    @property
    def bound(self) -> float:
        """Seconds that a step takes at least; 0 if the chip's speed is not known."""
        return max(self.seconds.values(), default=0.0)

    @property
    def limit(self) -> str:
        return max(self.seconds, key=lambda name: self.seconds[name], default="")

    @property
    def fits(self) -> bool:
        """Whether the steps fit the setup's chip; a CPU's memory is not judged."""
        available = self.setup.chips.chip.memory or math.inf
        needed = (self.train, self.evaluate) if self.setup.evaluation else (self.train,)
        return all(memory and sum(memory.values()) <= available for memory in needed)


def model_flops(setup: Setup) -> float:
    """Multiply-adds, times two, of both passes; look-ups and heads that read one position count as nothing."""
    length = setup.length + setup.head.pictures * setup.head.patches
    width, total = setup.encoder.hidden_size, setup.tokens * setup.encoder.training_flops(length)
    masked = setup.rows * setup.masked if setup.head.kind == "mlm" else 0
    return total + 6.0 * masked * width * (width + setup.encoder.vocab_size)


def bytes_sent(setup: Setup, params: Any, mesh: Mesh) -> float:
    """Returns the bytes that one device sends in a step at least, by the best ring algorithms.

    Under ``fsdp`` the forward and the backward pass gather each parameter, and its gradient is summed and cut; under
    ``data`` the gradient is summed over copies; under ``tensor`` each layer sums its activations twice per pass. What
    a compiler adds to that is not counted.
    """
    data, fsdp, tensor = (mesh.shape[axis] for axis in AXES)
    total, places = 0.0, jax.tree.leaves(sharding.shardings(params, mesh))
    for (path, leaf), place in zip(sharding.parameter_paths(params), places):
        shard = math.prod(place.shard_shape(leaf.shape))
        whole = leaf.size / (tensor if "tensor" in jax.tree.leaves(tuple(place.spec)) else 1)
        if not path.endswith("embeddings/word"):  # devices exchange the rows that they look up, as below
            total += 3 * setup.accumulation * setup.width * (whole - shard)
        total += 2 * setup.width * shard * (data - 1) / data
    hidden = setup.width * setup.tokens / (data * fsdp) * setup.encoder.hidden_size
    sums = 2 * setup.passes * setup.encoder.num_layers * hidden * 2 * (tensor - 1) / tensor
    return total + sums + 2 * hidden * (fsdp - 1) / fsdp


def bound_seconds(setup: Setup, executed: float, arguments: int, sent: float) -> Mapping[str, float]:
    """Returns lower bounds of a step's seconds by what limits it; empty for a chip of unknown speed.

    Memory: parameters and moments (``arguments``) are read and written once, and the layers' weights are read in every
    pass. Links: all that is sent, at the speed of all links together. Network: every device's own part of the gradient
    is summed over slices of TPUs, or over hosts of GPUs.
    """
    topology, shape, chip, mesh = setup.chips, setup.encoder, setup.chips.chip, setup.mesh
    if not chip.flops:
        return {}
    layers = shape.training_flops() / 6  # a weight is multiplied and added, once forwards, twice backwards
    groups = topology.shape[0] if topology.platform == "cuda" else topology.slices
    gradient = setup.width * (layers + shape.vocab_size * shape.hidden_size) / (mesh.fsdp * mesh.tensor)
    weights = setup.passes * setup.accumulation * setup.width * layers / mesh.tensor
    return {
        "compute": executed / topology.count / chip.flops,
        "memory": (2 * arguments + weights) / chip.memory_bandwidth,
        "links": sent / chip.link_bandwidth,
        "network": 2 * gradient * (groups - 1) / groups / chip.network_bandwidth,
    }


def plan_setup(setup: Setup) -> Plan:
    """Compiles both steps of a setup in this process and says what they need."""
    topology = setup.chips
    mesh = sharding.make_mesh(setup.mesh, topology_devices(topology))
    optimizer, loss = make_optimizer(setup.optimizer), make_loss(setup.model, HEAD, setup.optimizer.freeze)

    def create() -> TrainState:
        return TrainState.create(init_params(setup.model, jax.random.key(0)), optimizer)

    places = sharding.state_shardings(jax.eval_shape(create), mesh, zero1=setup.mesh.zero1)
    everywhere, batch = NamedSharding(mesh, P()), abstract_batch(setup, sharding.batch_sharding(mesh))
    traced = {"initialise": jax.jit(create, out_shardings=places).trace()}
    state = traced["initialise"].out_info
    parts = select_head(state.params, HEAD)
    given: Any = {"loss_fn": loss, "accumulation": setup.accumulation, "skip_non_finite": True}
    step = partial(train_step, tx=optimizer, key=jax.random.key(0), **given)
    with jax.set_mesh(mesh):
        if setup.evaluation:
            scoring = jax.jit(partial(eval_step, loss_fn=loss), out_shardings=everywhere)
            traced["evaluate"] = scoring.trace(parts, batch)
        training = jax.jit(step, donate_argnums=0, out_shardings=(places, everywhere))
        traced["train"] = training.trace(state, batch)
    executed, sent = count_flops(traced["train"].jaxpr), bytes_sent(setup, state.params, mesh)
    # Gradients lie as parameters do, in float32 or more; without room for them there is nothing to compile.
    least, failure = bytes_per_device(state) + bytes_per_device(parts), ""
    if topology.chip.memory and least > topology.chip.memory:
        failure = f"parameters, moments and gradients alone take {least / GIB:.1f} GiB on a device"
        del traced["train"]
    # Compilers keep no more than one or two threads busy for most of their time: all at once.
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: _compile(traced[name], topology, name != "train"), traced)
        compiled = dict(zip(traced, found))
    (train, words), (evaluate, more) = (compiled.get(name, ({}, "")) for name in ("train", "evaluate"))
    return Plan(
        setup,
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        parameters=bytes_per_device(state.params),
        optimizer=bytes_per_device(state.moments),
        batch=bytes_per_device(batch),
        train=train,
        evaluate=evaluate,
        failure=failure or words or more,
        sent=sent,
        model_flops=model_flops(setup),
        executed_flops=executed,
        seconds=bound_seconds(setup, executed, train.get("arguments", 0), sent),
        notes=tuple(sharding.sharding_notes(state.params, mesh)),
        stages={
            "initialise": sum(compiled["initialise"][0].values()),
            "load": bytes_per_device(state),  # a tensor at a time into its shards; then the moments
            "step": sum(train.values()),
            "restore": bytes_per_device(state),
            # A layer at a time goes to the host.
            "export": bytes_per_device(parts) + max(map(bytes_per_device, jax.tree.leaves(parts))),
        },
    )


def abstract_batch(setup: Setup, place: NamedSharding | None = None) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch for the head's kind of task."""
    head, sizes = setup.head, {"B": setup.rows, "C": SEQUENCES["choice"], **dict.fromkeys("TU", setup.length)}
    sizes |= {"M": setup.masked, "K": head.pictures, "P": head.patches, "F": head.patch_width}
    columns = LOSSES[head.kind][1] | {"weight": "B"}
    columns |= {"visual": "BKPF", "visual_mask": "BK"} if head.patches else {}
    shapes = {name: tuple(sizes[letter] for letter in letters) for name, letters in columns.items()}
    types = dict.fromkeys(FRACTIONS, jnp.float32) | {"visual": jnp.uint8, "visual_mask": jnp.bool_}
    lay = partial(jax.ShapeDtypeStruct, sharding=place)
    return {name: lay(shape, types.get(name, jnp.int32)) for name, shape in shapes.items()}


def _compile(traced: Any, topology: Topology, hasty: bool) -> tuple[dict[str, int], str]:
    """Returns bytes by part, or nothing and the compiler's words where memory does not suffice.

    ``hasty`` takes a third of the time on TPUs; memory comes out larger by a quarter, so not too small.
    """
    options = {"exec_time_optimization_effort": -1.0} if hasty and topology.platform == "tpu" else None
    lowered = traced.lower(lowering_platforms=("cuda",)) if topology.platform == "cuda" else traced.lower()
    try:
        found = lowered.compile(compiler_options=options).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {}, str(error).splitlines()[0][:300]
    memory = {"arguments": found.argument_size_in_bytes, "temporaries": found.temp_size_in_bytes}
    return memory | {"unaliased outputs": found.output_size_in_bytes - found.alias_size_in_bytes}, ""


def count_flops(jaxpr: Any) -> float:
    """Multiply-adds, times two, of all products in a jaxpr, a loop (which compilers count once) as often as it runs."""
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            products = math.prod(equation.outvars[0].aval.shape)
            total += 2.0 * products * math.prod(left[axis] for axis in contracted)
        elif equation.primitive.name == "cond":  # one of its branches runs
            total += max(map(count_flops, equation.params["branches"]))
        else:
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += times * sum(map(count_flops, jaxprs_in_params(equation.params)))
    return total


def main() -> None:
    """Plans the setup on standard input; the plan, or the error, goes to the file that is named."""
    answer: Plan | ConfigError
    try:
        answer = plan_setup(pickle.load(sys.stdin.buffer))
    except ConfigError as error:
        answer = error
    Path(sys.argv[1]).write_bytes(pickle.dumps(answer))
    os._exit(0)  # libraries for absent devices are slow, and at times loud, to shut down


def plan_training(setup: Setup) -> Plan:
    """Compiles the training and evaluation steps of ``setup`` without its chips; see ``Plan``."""
    paths = filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        done = subprocess.run(
            [sys.executable, "-c", "from stilts_jax.plan import main; main()", str(answer)],
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
        data, fsdp, _ = sharding.mesh_shape(base.mesh, setup.chips.count)
        parts = [setup.accumulation * 2 * 4**power for power in range(8)]
        return [replace(base, accumulation=part) for part in parts if setup.rows % (part * data * fsdp) == 0]

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
