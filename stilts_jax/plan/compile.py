"""Compiles the real training and evaluation steps for chips that are not here, and says what follows from the shapes.

A process that compiles for other chips must be told so before JAX starts (``environment``), and a compiler that fails
takes its process along. So ``plan_setup`` runs in a process of its own, which ``command.py`` starts: it calls ``main``
with a pickled setup on its standard input.
"""

import math
import os
import pickle
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stilts_jax import sharding
from stilts_jax.automatic import SEQUENCES
from stilts_jax.chips import GIB, Topology, parse_topology
from stilts_jax.errors import ConfigError
from stilts_jax.model import Compute, EncoderConfig, HeadConfig, Model, init_params
from stilts_jax.model.heads import select_head
from stilts_jax.settings import MeshConfig
from stilts_jax.sharding import AXES, bytes_per_device
from stilts_jax.train.losses import FRACTIONS, LOSSES, make_loss
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import TrainState, eval_step, train_step

HEAD = "task"  # the one head that a planned model has
# How the compiler for GPUs describes an H200 and an H100 to itself.
_GPU = """gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: 1.98 device_memory_size: {memory}
  shared_memory_per_block_optin: 232448 cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 19 }}
runtime_version {{ major: 13 }}
device_description_str: "NVIDIA {name}"
"""


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
    evaluation: bool = True  # the evaluation step is compiled too; it needs less than the training step
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
    stages: Mapping[str, int] = field(default_factory=dict)

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
    width, total = setup.encoder.hidden_size, setup.tokens * setup.encoder.training_flops(setup.length)
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


def environment(topology: Topology) -> dict[str, str]:
    """Returns the environment variables that a compiling process needs from its start."""
    if topology.platform == "cpu":
        flags = f"--xla_force_host_platform_device_count={topology.count}"
        return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    return {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",  # no look-up of the machine this would run on
        # The compiler for TPUs runs on threads of 64 KiB stacks; XXL on v6e overflows them (libtpu 0.0.42).
        "LIBTPU_INIT_ARGS": f"{given} --fibers_default_thread_stack_size=1048576".strip(),
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two plans at once: neither has a chip to itself
        "CUDA_VISIBLE_DEVICES": "-1",  # no device here is touched
    }


def topology_devices(topology: Topology) -> list[Any]:
    if topology.platform == "cpu":
        return jax.devices("cpu")
    arrangement, chip = "x".join(map(str, topology.shape)), topology.chip
    options: dict[str, Any] = {"topology_name": f"{chip.name}:{arrangement}", "num_slices": topology.slices}
    if topology.platform == "cuda":
        cache = (60 if chip.name == "h200" else 50) * 2**20
        known = {"bandwidth": int(chip.memory_bandwidth), "memory": chip.memory, "cache": cache}
        config = _GPU.format(name=chip.name.upper(), **known)
        options = {"topology": f"1x{arrangement}", "target_config": config}
    elif chip.name == "v4":  # else a chip counts as two devices
        options |= {"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1)}
    try:
        return list(topologies.get_topology_desc(platform=topology.platform, **options).devices)
    except Exception as error:  # whatever a missing or other library raises
        what = f"There is no compiler for {topology.name} here, or it knows no such arrangement."
        fix = f"pip install 'stilts-jax[{topology.platform}]' (no device needed); cpu:{topology.count} needs nothing"
        raise ConfigError(what, where=f"topology: {error}"[:500], fix=fix) from error


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
            evaluate = jax.jit(partial(eval_step, loss_fn=loss), out_shardings=everywhere)
            traced["evaluate"] = evaluate.trace(parts, batch)
        train = jax.jit(step, donate_argnums=0, out_shardings=(places, everywhere))
        traced["train"] = train.trace(state, batch)
    executed, sent = count_flops(traced["train"].jaxpr), bytes_sent(setup, state.params, mesh)
    # Gradients lie as parameters do, in float32 or more; without room for them there is nothing to compile.
    least, failure = bytes_per_device(state) + bytes_per_device(parts), ""
    if topology.chip.memory and least > topology.chip.memory:
        failure = f"parameters, moments and gradients alone take {least / GIB:.1f} GiB on a device"
        del traced["train"]
    # Compilers keep no more than one or two threads busy for most of their time: all at once.
    with ThreadPoolExecutor() as pool:
        jobs = {name: pool.submit(_compile, one, topology, name != "train") for name, one in traced.items()}
    memory = {name: job.result()[0] for name, job in jobs.items()}
    failures = [jobs[name].result()[1] for name in ("train", "evaluate") if name in jobs]
    train_memory = memory.get("train", {})
    return Plan(
        setup,
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        parameters=bytes_per_device(state.params),
        optimizer=bytes_per_device(state.moments),
        batch=bytes_per_device(batch),
        train=train_memory,
        evaluate=memory.get("evaluate", {}),
        failure=next(filter(None, [failure, *failures]), ""),
        sent=sent,
        model_flops=model_flops(setup),
        executed_flops=executed,
        seconds=bound_seconds(setup, executed, train_memory.get("arguments", 0), sent),
        notes=tuple(sharding.sharding_notes(state.params, mesh)),
        stages={
            "initialise": sum(memory["initialise"].values()),
            "load": bytes_per_device(state),  # a tensor at a time into its shards; then the moments
            "step": sum(train_memory.values()),
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
    with open(sys.argv[1], "wb") as file:
        pickle.dump(answer, file)
    os._exit(0)  # libraries for absent devices are slow, and at times loud, to shut down
