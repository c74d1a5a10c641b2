"""The compiled training steps of a run: one for each task and shape of batch."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.sharding import batch_multiple, host_rows, pad_batch_to, shard_batch
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.state import TrainState
from stilts_jax.train.step import LossFn, train_step

_CACHE_HIT = "/jax/compilation_cache/cache_hits"
_hits: list[str] = []


def _count_hit(event: str, **_: Any) -> None:
    if event == _CACHE_HIT:
        _hits.append(event)


jax.monitoring.register_event_listener(_count_hit)  # of the process: listeners can't be taken back


class CompiledSteps:
    """Calls ``train_step``, jitted: it donates the state, and output shardings equal input shardings.

    Args:
        losses: ``loss_fn`` by task; a task has the head of its name.
        shardings: of the state; None without a mesh.
    """

    def __init__(
        self,
        losses: Mapping[str, LossFn],
        optimizer: OptimizerConfig,
        *,
        seed: int,
        accumulation: int,
        rng: str,
        mesh: Mesh | None,
        shardings: TrainState | None,
    ) -> None:
        self.count = 0
        self.cached = 0
        self.seconds = 0.0
        self._losses, self._optimizer = losses, optimizer
        self._accumulation, self._rng = accumulation, rng
        self._seed: Any = np.uint32(seed)
        if mesh:
            self._seed = jax.device_put(self._seed, NamedSharding(mesh, PartitionSpec()))
        self._mesh, self._shardings = mesh, shardings
        self._functions: dict[str, Callable] = {}
        self._forms: set[tuple] = set()

    def __call__(
        self, state: TrainState, task: str, arrays: Mapping[str, np.ndarray]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Starts a step.

        ``count`` is how many shapes were compiled so far, ``seconds`` how long that took, and ``cached`` how many of
        them came from the cache on disk.
        """
        function = self._function(task)
        placed = self._place(arrays)
        form = _form(task, arrays)
        start, hits = time.monotonic(), len(_hits)
        # Once a step is compiled, all its arguments are on the mesh: another transfer would be a defect.
        guarded = self._mesh is not None and form in self._forms
        with jax.transfer_guard("disallow") if guarded else nullcontext():
            result = function(state, placed, self._seed)
        if form not in self._forms:
            self._forms.add(form)
            self.count += 1
            self.cached += len(_hits) > hits
            self.seconds += time.monotonic() - start
        return result

    def is_compiled(self, task: str, arrays: Mapping[str, np.ndarray]) -> bool:
        """Says whether a step on arrays of these shapes was compiled before."""
        return _form(task, arrays) in self._forms

    def _function(self, task: str) -> Callable:
        if task not in self._losses:
            raise ConfigError(
                f"There is no loss for task {task!r}.", where="losses", fix=nearest(task, self._losses)
            )
        if task not in self._functions:
            step = partial(
                train_step,
                loss_fn=self._losses[task],
                tx=make_optimizer(self._optimizer),
                accumulation=self._accumulation,
                freeze=self._optimizer.freeze,
            )
            rates = self._optimizer.rates()

            # The seed is an argument, so that runs of other seeds find this step in the compilation cache.
            def run(
                state: TrainState, arrays: Any, seed: jax.Array
            ) -> tuple[TrainState, dict[str, jax.Array]]:
                new, metrics = step(state, arrays, key=jax.random.key(seed, impl=self._rng))
                return new, metrics | {"learning_rate": jnp.asarray(rates(state.step))}

            self._functions[task] = jax.jit(
                run,
                donate_argnums=0,
                out_shardings=(self._shardings, NamedSharding(self._mesh, PartitionSpec()))
                if self._mesh
                else None,
            )
        return self._functions[task]

    def _place(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Fills a batch up until devices and microbatches divide it, and shards it over the devices.

        Every host has the whole batch and places the rows of its own devices; several hosts may share rows.
        """
        if not self._mesh:
            return pad_batch_to(arrays, self._accumulation)
        padded = pad_batch_to(arrays, batch_multiple(self._mesh) * self._accumulation)
        mine = host_rows(self._mesh, len(next(iter(padded.values()))))
        return shard_batch({name: array[mine] for name, array in padded.items()}, self._mesh)


def _form(task: str, arrays: Mapping[str, np.ndarray]) -> tuple:
    """Returns what decides whether two batches share a compiled step."""
    return (task, *((name, array.shape, str(array.dtype)) for name, array in sorted(arrays.items())))
