"""The compiled training step of a task, how a batch gets to the devices, and what helps when their memory runs out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from stilts_jax.errors import TrainingError
from stilts_jax.sharding import batch_multiple, host_rows, pad_batch_to, shard_batch
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.state import TrainState
from stilts_jax.train.step import LossFn, train_step


class BatchLike(Protocol):
    """What ``batch_at`` returns: one task's rows. All hosts have all of them."""

    @property
    def task(self) -> str:
        """Whose head and loss it takes."""

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """What goes to the device, leading axis B."""

    @property
    def rows(self) -> np.ndarray:
        """Row numbers [B], to name a bad batch; -1 in rows that only fill up."""


_hits: list[str] = []


def _count_hit(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _hits.append(event)


jax.monitoring.register_event_listener(_count_hit)  # of the process: listeners can't be taken back


def count_cache_hits() -> int:
    """Returns how many compiled functions of this process came from the cache on disk."""
    return len(_hits)


def compile_step(
    loss_fn: LossFn, optimizer: OptimizerConfig, shardings: TrainState, *, accumulation: int
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Returns ``train_step(state, batch, seed)``, jitted: it donates the state, and gives back one that lies the same.

    The seed is an argument, so that runs of other seeds find this step in the compilation cache.
    """
    tx, rates = make_optimizer(optimizer), optimizer.rates()

    def step(state: TrainState, batch: Any, seed: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        new, metrics = train_step(
            state,
            batch,
            loss_fn=loss_fn,
            tx=tx,
            key=jax.random.key(seed),
            accumulation=accumulation,
            skip_non_finite=True,
        )
        return new, metrics | {"learning_rate": jnp.asarray(rates(state.step))}

    # The metrics lie as the number of the step: whole on every device.
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, shardings.step))


def place_batch(arrays: Mapping[str, np.ndarray], mesh: Mesh, accumulation: int) -> dict[str, jax.Array]:
    """Fills a batch up until devices and microbatches divide it, and shards it over the devices.

    Every host has the whole batch and places the rows of its own devices; several hosts may share rows.
    """
    padded = pad_batch_to(arrays, batch_multiple(mesh) * accumulation)
    mine = host_rows(mesh, len(next(iter(padded.values()))))
    return shard_batch({name: array[mine] for name, array in padded.items()}, mesh)


def form_of(batch: BatchLike) -> tuple:
    """Returns what decides whether two batches share a compiled step."""
    forms = ((name, array.shape, str(array.dtype)) for name, array in sorted(batch.arrays.items()))
    return (batch.task, *forms)


@contextmanager
def explain_memory() -> Iterator[None]:
    """Says what helps when a device's memory ran out."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TrainingError(
            "The device's memory ran out.",
            where=str(error).splitlines()[0][:300],
            fix="what helps most, in this order: more microbatches (train.accumulation), rematerialisation "
            "(compute.remat=full), shorter inputs (train.max_length) or bfloat16 (compute.dtype)",
        ) from error
