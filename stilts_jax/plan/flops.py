"""How much a step multiplies, by formula and by counting, and how long that takes at least."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from stilts_jax.plan.chips import Topology
from stilts_jax.plan.hlo import Collective
from stilts_jax.plan.records import Memory, Setup


def model_flops(setup: Setup) -> float:
    """Multiply-adds, times two, that training on a batch needs: forward, and twice that backward.

    Embedding look-ups and heads that only read one position count as nothing, as usual.
    """
    shape = setup.encoder
    width, length = shape.hidden_size, setup.length
    dense = 2 * (4 * width * width + 2 * width * shape.intermediate_size)
    attention = 2 * 2 * length * width
    tokens = sequences(setup) * length
    forward = tokens * shape.num_layers * (dense + attention)
    if setup.head.kind == "mlm":
        forward += sequences(setup) * masked_positions(length) * 2 * width * (width + shape.vocab_size)
    return 3.0 * forward


def sequences(setup: Setup) -> int:
    """Sequences that the encoder sees in a step: several a row for choices and pairs."""
    return setup.rows * {"choice": CHOICES, "embed": 2}.get(setup.head.kind, 1)


CHOICES = 4  # of a multiple-choice task


def masked_positions(length: int) -> int:
    """Masked positions in a row of masked language modelling."""
    return math.ceil(0.15 * length)


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
            continue
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(count_flops(inner) for inner in _inner_jaxprs(equation.params.values()))
    return total


def _inner_jaxprs(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
            yield value
        elif isinstance(value, tuple | list):
            yield from _inner_jaxprs(value)


def bound_seconds(
    topology: Topology,
    setup: Setup,
    executed: float,
    memory: Memory | None,
    collectives: Iterable[Collective],
) -> Mapping[str, float]:
    """Returns lower bounds of a step's seconds by what limits it; empty for a chip of unknown speed.

    Memory: parameters and moments are read and written once, and the layers' weights are read in every pass.
    Links: all that collectives send, at the speed of all links together. Network: between hosts of GPUs, a share
    of what larger groups move; between slices of TPUs, whose exchange the program's text does not show as a
    collective, the sum of every device's own part of the gradient.
    """
    chip = topology.chip
    if not chip.flops:
        return {}
    shape = setup.encoder
    layer = 4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size
    width = 2 if setup.compute.dtype == "bfloat16" else 4
    passes = (3 if setup.compute.remat != "none" else 2) * setup.accumulation
    tensor = max(1, setup.mesh.tensor)
    weights = passes * width * shape.num_layers * layer / tensor
    state = 2 * memory.arguments if memory else 0
    if topology.platform == "cuda":
        inside = topology.shape[-1]
        crossing = sum(item.bytes * inside / item.group for item in collectives if item.group > inside)
    else:
        parts = max(1, setup.mesh.fsdp * setup.mesh.tensor)
        gradient = width * (shape.num_layers * layer + shape.vocab_size * shape.hidden_size) / parts
        crossing = 2 * gradient * (topology.slices - 1) / topology.slices
    return {
        "compute": executed / topology.count / chip.flops,
        "memory": (state + weights) / chip.memory_bandwidth,
        "links": sum(item.bytes for item in collectives) / chip.link_bandwidth,
        "network": crossing / chip.network_bandwidth,
    }
