"""What the machine can do, measured in the same run: matrix products, memory traffic, memory used."""

import resource
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stilts_jax.experiment.speed import best_seconds, measure_matmul
from stilts_jax.train.logs import device_memory, peak_flops

_SIDES = {
    "cpu": (1024, 2048),
    "other": (4096, 8192, 16384),
}  # of the square matrices; the best of them counts


@dataclass(frozen=True)
class Device:
    """The machine's speeds.

    Attributes:
        matmul: FLOP/s of the best square matrix product in the dtype of the run, on one device.
        peak: the published bfloat16 peak of one device, where it is known.
        traffic: bytes a second that one device reads and writes.
    """

    kind: str
    count: int
    dtype: str
    matmul: float
    peak: float | None
    traffic: float


def measure_device(dtype: str) -> Device:
    """Measures this process's devices; one of them, as all are of a kind."""
    device = jax.devices()[0]
    kind = jax.default_backend()
    sides = _SIDES.get(kind, _SIDES["other"])
    return Device(
        kind=device.device_kind,
        count=jax.device_count(),
        dtype=dtype,
        matmul=max(measure_matmul(side, dtype) for side in sides),
        peak=peak_flops(),
        traffic=_measure_traffic(2**26 if kind == "cpu" else 2**30),
    )


def _measure_traffic(size: int) -> float:
    array = jnp.zeros(size // 4, jnp.float32)
    add = jax.jit(lambda a: a + 1.0)
    return 2.0 * size / best_seconds(lambda: add(array))


def memory_used() -> dict[str, float]:
    """Returns peaks so far in GiB: of the process on the host, and of the first device, where it says."""
    on_device = device_memory()
    return host_memory_used() | ({} if on_device is None else {"device_gib": on_device / 2**30})


def host_memory_used() -> dict[str, float]:
    """Returns the peak of the process on the host in GiB."""
    unit = 1024 if sys.platform != "darwin" else 1
    return {"host_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
