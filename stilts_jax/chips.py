"""What chips can do at best, how many of them a topology's name means, and how to compile for them elsewhere."""

import math
import os
import re
from dataclasses import dataclass, replace
from typing import Any

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.host_memory import GPU_SHARE

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """What one chip can do at best; published figures, rounded."""

    name: str
    kind: str  # what JAX's name of the device contains
    flops: float  # bfloat16 multiply-adds per second, times two, without sparsity; 0: not known
    memory: int  # bytes that a program can have
    memory_bandwidth: float  # bytes per second
    link_bandwidth: float  # bytes per second that a chip can send to its neighbours, over all of its links
    network_bandwidth: float  # the same beyond the slice (TPU) or host (GPU)
    dimensions: tuple[int, ...] = ()  # how many numbers an arrangement may have; none: nothing can be planned


# The first whose kind matches counts. Memory of TPUs as their compiler counts it: a little less than on the label; of
# GPUs what ``host_memory`` lets JAX take of what CUDA reports.
_CHIPS = (
    Chip("h200", "H200", 989e12, int(GPU_SHARE * 139.8 * GIB), 4.8e12, 450e9, 50e9, (1, 2)),
    Chip("h100", "H100", 989e12, int(GPU_SHARE * 79.1 * GIB), 3.35e12, 450e9, 50e9, (1, 2)),
    Chip("a100", "A100", 312e12, 80 * 10**9, 2.04e12, 300e9, 25e9),
    Chip("v6e", "TPU v6", 918e12, int(31.25 * GIB), 1.64e12, 360e9, 12.5e9, (2,)),
    Chip("tpu7x", "TPU7x", 2307e12, 192 * 10**9, 7.4e12, 600e9, 12.5e9),
    Chip("v5e", "TPU v5 lite", 197e12, int(15.75 * GIB), 0.82e12, 180e9, 3.125e9, (2,)),
    Chip("v5p", "TPU v5", 459e12, int(94.75 * GIB), 2.76e12, 540e9, 6.25e9, (3,)),
    Chip("v4", "TPU v4", 275e12, int(30.75 * GIB), 1.2e12, 270e9, 6.25e9, (3,)),
    Chip("cpu", "cpu", 0.0, 0, 0.0, 0.0, 0.0, (1,)),
)
CHIPS = {chip.name: chip for chip in _CHIPS}
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


def find_chip(device_kind: str) -> Chip | None:
    kind = device_kind.replace("v5e", "v5 lite").lower()  # JAX knows both names
    return next((chip for chip in CHIPS.values() if chip.kind.lower() in kind), None)


@dataclass(frozen=True)
class Topology:
    """Chips and their arrangement, behind a name that ``parse_topology`` reads."""

    name: str
    chip: Chip
    shape: tuple[int, ...]  # of one slice of TPUs; (hosts, GPUs a host); (devices,) of a CPU
    slices: int = 1  # of TPUs, equal ones, joined by a data-centre network

    @property
    def platform(self) -> str:
        """``tpu``, ``cuda`` or ``cpu``."""
        name = self.chip.name
        return "cpu" if name == "cpu" else "tpu" if name.startswith("v") else "cuda"

    @property
    def count(self) -> int:
        return self.slices * math.prod(self.shape)


def parse_topology(name: str) -> Topology:
    """Reads ``v5e:16x16``, ``v5e:16x16*4`` (slices), ``v4:4x4x8``, ``h200:8``, ``h200:4x8``, ``cpu:8``."""
    kind, _, arrangement = name.partition(":")
    known = [chip.name for chip in CHIPS.values() if chip.dimensions]
    if kind not in known:
        raise ConfigError(f"There is no chip {kind!r}.", where=f"topology {name}", fix=nearest(kind, known))
    match = re.fullmatch(r"([1-9]\d*(?:x[1-9]\d*){0,2})(?:\*([1-9]\d*))?", arrangement)
    shape = tuple(map(int, match[1].split("x"))) if match else ()
    topology = Topology(name, CHIPS[kind], shape, int(match[2] or 1) if match else 1)
    fits = len(shape) in topology.chip.dimensions and (topology.slices == 1 or topology.platform == "tpu")
    if not fits or (topology.platform == "cuda" and shape[-1] > 8):  # no host has more GPUs
        fix = "such as v5e:16x16, v6e:8x8*2 (two slices), v4:4x4x8, h200:8 (GPUs), h200:4x8 (hosts), cpu:8"
        raise ConfigError(f"{name!r} names no arrangement of chips.", where="topology", fix=fix)
    one_host = topology.platform == "cuda" and len(shape) == 1
    return replace(topology, shape=(1, *shape)) if one_host else topology


def environment(topology: Topology) -> dict[str, str]:
    """Returns the environment variables that a compiling process needs from its start."""
    if topology.platform == "cpu":
        return {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={topology.count}",
        }
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
    """Returns devices to compile for, in a process that started in their ``environment``."""
    import jax
    from jax.experimental import topologies

    if topology.platform == "cpu":
        return jax.devices("cpu")
    arrangement, chip = "x".join(map(str, topology.shape)), topology.chip
    options: dict[str, Any] = {"topology_name": f"{chip.name}:{arrangement}", "num_slices": topology.slices}
    if topology.platform == "cuda":
        known = {"bandwidth": int(chip.memory_bandwidth), "memory": chip.memory, "name": chip.name.upper()}
        config = _GPU.format(cache=(60 if chip.name == "h200" else 50) * 2**20, **known)
        options = {"topology": f"1x{arrangement}", "target_config": config}
    elif chip.name == "v4":  # else a chip counts as two devices
        options |= {"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1)}
    try:
        return list(topologies.get_topology_desc(platform=topology.platform, **options).devices)
    except Exception as error:  # whatever a missing or other library raises
        what = f"There is no compiler for {topology.name} here, or it knows no such arrangement."
        fix = f"pip install 'stilts-jax[{topology.platform}]' (no device needed); cpu:{topology.count} needs nothing"
        raise ConfigError(what, where=f"topology: {error}"[:500], fix=fix) from error


def compiler_options() -> dict[str, int] | None:
    """Returns options of ``jax.jit``: on a CPU LLVM's first level, and vectors as wide as it has them.

    At that level steps are as fast, and compiled in three quarters of the time, what draws an encoder in two fifths.
    Wide vectors (XLA takes halves of AVX-512) make predictions 4 % faster and steps 2 %.
    """
    import jax

    chosen = {"xla_backend_optimization_level": 1, "xla_cpu_prefer_vector_width": 512}
    # JAX refuses options of a program within another one: it is compiled as that is.
    if in_program() or jax.default_backend() != "cpu":
        return None
    return {name: value for name, value in chosen.items() if name not in os.environ.get("XLA_FLAGS", "")}


def in_program() -> bool:
    """Says whether what is computed now becomes a part of a program, as in a function that ``jax.jit`` traces."""
    import jax

    return isinstance(jax.numpy.zeros(()), jax.core.Tracer)
