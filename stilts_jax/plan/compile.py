"""Compiles the real training and evaluation steps for chips that are not here.

A process that compiles for other chips must be told so before JAX starts (``environment``), and a compiler that fails
takes its process along. So ``plan_setup`` runs in a process of its own: ``command.py`` starts ``python -m
stilts_jax.plan.compile`` with a setup on its standard input.
"""

import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from stilts_jax.chips import GIB, Topology
from stilts_jax.errors import ConfigError
from stilts_jax.model.heads import abstract_params, init_params
from stilts_jax.plan.setup import CHOICES, HEAD, Plan, Setup, bound_seconds, bytes_sent, model_flops
from stilts_jax.sharding import batch_sharding, bytes_per_device, make_mesh, sharding_notes, state_shardings
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import make_optimizer
from stilts_jax.train.step import TrainState, eval_step, select_head, train_step

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


def environment(topology: Topology) -> dict[str, str]:
    """Returns the environment variables that a compiling process needs from its start."""
    if topology.platform == "cpu":
        flags = f"--xla_force_host_platform_device_count={topology.count}"
        return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    # The compiler for TPUs runs on threads of 64 KiB stacks; XXL on v6e overflows them (libtpu 0.0.42).
    arguments = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} --fibers_default_thread_stack_size=1048576"
    return {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",  # no look-up of the machine this would run on
        "LIBTPU_INIT_ARGS": arguments.strip(),
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two plans at once: neither has a chip to itself
        "CUDA_VISIBLE_DEVICES": "-1",  # no device here is touched
    }


def topology_devices(topology: Topology) -> list[Any]:
    """Returns the chips, as far as a compiler needs them."""
    if topology.platform == "cpu":
        return jax.devices("cpu")
    arrangement, chip = "x".join(map(str, topology.shape)), topology.chip
    try:
        if topology.platform == "cuda":
            cache = (60 if chip.name == "h200" else 50) * 2**20
            target = _GPU.format(
                bandwidth=int(chip.memory_bandwidth), memory=chip.memory, cache=cache, name=chip.name.upper()
            )
            found = topologies.get_topology_desc(
                platform="cuda", target_config=target, topology=f"1x{arrangement}"
            )
        else:
            name, v4 = f"{chip.name}:{arrangement}", {}
            if chip.name == "v4":  # else a chip counts as two devices
                v4 = {"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1)}
            found = topologies.get_topology_desc(
                platform="tpu", topology_name=name, num_slices=topology.slices, **v4
            )
    except Exception as error:  # whatever a missing or other library raises
        extra = "cuda" if topology.platform == "cuda" else "tpu"
        raise ConfigError(
            f"There is no compiler for {topology.name} here, or it knows no such arrangement.",
            where=f"topology: {error}"[:500],
            fix=f"pip install 'stilts-jax[{extra}]' (no device needed); cpu:{topology.count} needs nothing",
        ) from error
    return list(found.devices)


def plan_setup(setup: Setup) -> Plan:
    """Compiles both steps of a setup in this process and says what they need."""
    topology = setup.chips
    mesh = make_mesh(setup.mesh, topology_devices(topology))
    optimizer, loss = make_optimizer(setup.optimizer), make_loss(setup.model, HEAD, setup.optimizer.freeze)
    params = abstract_params(setup.model)
    create = lambda: TrainState.create(init_params(setup.model, jax.random.key(0)), optimizer)  # noqa: E731
    state = jax.eval_shape(create)
    places, everywhere = state_shardings(state, mesh, zero1=setup.mesh.zero1), NamedSharding(mesh, P())
    state, batch = _place(state, places), _place(abstract_batch(setup), batch_sharding(mesh))
    parts = select_head(state.params, HEAD)
    step = partial(train_step, loss_fn=loss, tx=optimizer, key=jax.random.key(0), skip_non_finite=True)
    train = jax.jit(
        partial(step, accumulation=setup.accumulation), donate_argnums=0, out_shardings=(places, everywhere)
    )
    traced = {"initialise": jax.jit(create, out_shardings=places).trace()}
    with jax.set_mesh(mesh):
        if setup.evaluation:
            evaluate = jax.jit(partial(eval_step, loss_fn=loss), out_shardings=everywhere)
            traced["evaluate"] = evaluate.trace(parts, batch)
        traced["train"] = train.trace(state, batch)
    executed, sent = count_flops(traced["train"].jaxpr), bytes_sent(setup, params, mesh)
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
    return Plan(
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        parameters=bytes_per_device(state.params),
        optimizer=bytes_per_device(state.moments),
        batch=bytes_per_device(batch),
        train=memory.get("train", {}),
        evaluate=memory.get("evaluate", {}),
        failure=next(filter(None, [failure, *failures]), ""),
        sent=sent,
        model_flops=model_flops(setup),
        executed_flops=executed,
        seconds=bound_seconds(setup, executed, memory.get("train", {}).get("arguments", 0), sent),
        notes=tuple(sharding_notes(params, mesh)),
        stages={
            "initialise": sum(memory["initialise"].values()),
            "load": bytes_per_device(state),  # a tensor at a time into its shards; then the moments
            "step": sum(memory.get("train", {}).values()),
            "restore": bytes_per_device(state),
            # A layer at a time goes to the host.
            "export": bytes_per_device(parts) + max(map(bytes_per_device, jax.tree.leaves(parts))),
        },
    )


def abstract_batch(setup: Setup) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch for the head's kind of task."""
    row: tuple[int, ...] = (setup.rows,)
    tokens, choices, masked = (*row, setup.length), (*row, CHOICES), (*row, setup.masked)
    columns: dict[str, dict[str, tuple[int, ...]]] = {
        "classify": {"label": row},
        "choice": {"tokens": (*choices, setup.length), "choice_mask": choices, "label": row},
        "tag": {"tags": tokens},
        "span": {"start": row, "end": row},
        "embed": {"pair_tokens": tokens},
        "mlm": {"segments": tokens, "positions": tokens}
        | dict.fromkeys(("masked_positions", "masked_targets", "masked_weights"), masked),
    }
    shapes: dict[str, tuple[int, ...]] = {"tokens": tokens, "weight": row} | columns[setup.head.kind]
    if (head := setup.head).patches:
        pictures = (*row, head.pictures)
        shapes |= {"visual": (*pictures, head.patches, head.patch_width), "visual_mask": pictures}
    types = dict.fromkeys(("weight", "choice_mask", "masked_weights"), jnp.float32)
    types |= {"visual": jnp.uint8, "visual_mask": jnp.bool_}
    return {name: jax.ShapeDtypeStruct(shape, types.get(name, jnp.int32)) for name, shape in shapes.items()}


def _place(tree: Any, shardings: Any) -> Any:
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


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
    memory = {
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "unaliased outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
    }
    return memory, ""


def count_flops(jaxpr: Any) -> float:
    """Multiply-adds, times two, of all matrix products in a (closed) jaxpr, a loop as often as it runs.

    The compiler's own count takes the body of a loop over layers once.
    """
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            products = math.prod(equation.outvars[0].aval.shape)
            total += 2.0 * products * math.prod(left[axis] for axis in contracted)
        else:
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            inner = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
            total += times * sum(count_flops(one) for one in inner if _is_jaxpr(one))
    return total


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def main() -> None:
    """Plans the setup on standard input; the plan, or the error's parts, go to the file that is named."""
    answer: dict[str, Any]
    try:
        answer = {"plan": asdict(plan_setup(Setup.from_json(json.load(sys.stdin))))}
    except ConfigError as error:
        answer = {"error": [error.what, error.where, error.fix]}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(answer, file)
    sys.stdout.flush()
    os._exit(0)  # libraries for absent devices are slow, and at times loud, to shut down


if __name__ == "__main__":
    main()
