"""Our training and prediction as users get them, cut into rounds."""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from stilts_jax.bench.measured import Round
from stilts_jax.bench.workload import Workload
from stilts_jax.data.batches import PredictionStream, TrainingBatches
from stilts_jax.data.records import Batch
from stilts_jax.evaluation.predict import predict
from stilts_jax.experiment.ahead import BatchesAhead
from stilts_jax.experiment.settings import Settings
from stilts_jax.model import Model, init_params
from stilts_jax.progress import Progress, seconds_since_start
from stilts_jax.sharding import Mesh, parameter_shardings
from stilts_jax.train.loop import LoopConfig
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import Optimizer, OptimizerConfig
from stilts_jax.train.run import Run
from stilts_jax.train.state import init_state
from stilts_jax.train.vocabulary import PhaseVocabulary, fits_phase_vocabulary

TASK = "bench"


class OurTraining:
    """The loop's own steps: phase vocabulary, windows sorted by length, buckets, prefetching, donation, guard."""

    def __init__(
        self,
        workload: Workload,
        model: Model,
        settings: Settings,
        mesh: Mesh,
        batch_size: int,
        progress: Progress,
    ) -> None:
        train, rng = settings.train, settings.compute.rng
        self._lengths, self._progress = workload.lengths, progress
        batches = TrainingBatches(
            TASK,
            workload.features,
            batch_size=batch_size,
            seed=0,
            max_length=workload.max_length,
            window=train.window,
            max_buckets=train.buckets,
        )
        vocabulary = None
        if train.phase_vocabulary and fits_phase_vocabulary(
            model.compute.param_dtype, [workload.features.kind]
        ):
            tokens = workload.features.columns["tokens"].values  # type: ignore[union-attr]
            vocabulary = PhaseVocabulary.from_tokens(
                [tokens], model.encoder.vocab_size, mask_id=workload.mask_id
            )
        self.window, self._batches, self._vocabulary = train.window, batches, vocabulary
        self.settings = (
            f"{'phase vocabulary of ' + str(len(vocabulary)) + ' rows' if vocabulary else 'whole vocabulary'}, "
            f"windows of {train.window}, {len(batches.shapes)} shapes, {train.accumulation} microbatches, "
            f"remat {model.compute.remat}, {rng}"
        )
        with jax.set_mesh(mesh):
            params = init_params(model, jax.random.key(0, impl=rng))
            params = params if vocabulary is None else vocabulary.shrink(params)
            params = jax.device_put(params, parameter_shardings(params, mesh))
            moment_dtype: Any = train.moment_dtype  # checked by the settings
            optimizer = Optimizer(
                OptimizerConfig(learning_rate=1e-5, total_steps=10**6, moment_dtype=moment_dtype)
            )
            self._stack = ExitStack()
            self._run = self._stack.enter_context(
                Run(
                    init_state(params, optimizer.init),
                    LoopConfig(total_steps=10**6, seed=0, accumulation=train.accumulation, rng=rng),
                    optimizer,
                    {TASK: make_loss(model, TASK)},
                    self._stack.enter_context(tempfile.TemporaryDirectory()),
                    None,
                    mesh,
                    settings.mesh.zero1,
                    None,
                    False,
                    progress,
                )
            )
        self._mesh = mesh
        self._batch_at = self._stack.enter_context(BatchesAhead(self._make_batch))

    def __enter__(self) -> "OurTraining":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(None, None, None)

    def rows_of(self, number: int) -> np.ndarray:
        """int64 [window * batch]: the rows of a round."""
        return np.concatenate([self._batches.rows_at(step) for step in self._steps(number)])

    def warm_up(self) -> dict[str, float]:
        """Compiles every shape and takes a round; returns the times of it."""
        began = time.perf_counter()
        steps: dict[int, int] = {}
        for step in range(self._batches.steps_per_epoch):
            length = int(self._lengths[self._batches.rows_at(step)].max())
            bucket = next(size for size in self._batches.buckets if size >= length)
            steps.setdefault(bucket, step)
            if len(steps) == len(self._batches.buckets):
                break
        times: dict[str, float] = {}
        for step in sorted(steps.values()):
            self._take([step])
            if not times:
                since = seconds_since_start()
                times = {"to_first_step": time.perf_counter() - began if since is None else since}
        compiled = self._run.work
        self._take(self._steps(0))
        return times | {
            "compile": compiled.compile_seconds,
            "shapes": compiled.compilations,
            "cached": self._run.cached,
        }

    def take_round(self, number: int) -> Round:
        """Takes the steps of one window, as the loop does, and waits for the last."""
        began = time.perf_counter()
        shapes = self._take(self._steps(number))
        seconds = time.perf_counter() - began
        return Round(seconds, self._lengths[self.rows_of(number)], shapes)

    def _make_batch(self, step: int) -> Batch:
        batch = self._batches.batch_at(step)
        return replace(batch, arrays=self._vocabulary.remap(batch.arrays)) if self._vocabulary else batch

    def _steps(self, number: int) -> range:
        return range(number * self.window, (number + 1) * self.window)

    def _take(self, steps: range | list[int]) -> list[tuple[int, int]]:
        shapes = []
        with jax.set_mesh(self._mesh):
            for step in steps:
                batch = self._batch_at(step)
                shapes.append(batch.arrays["tokens"].shape)
                self._run.take_step(batch)
            self._run.fetch()
        return shapes


class OurPrediction:
    """Our predictor over one stream of rows, sorted by length."""

    def __init__(self, workload: Workload, model: Model, settings: Settings, mesh: Mesh, count: int) -> None:
        self._model, self._mesh = model, mesh
        rows = self._rows = np.random.default_rng(1).permutation(len(workload.lengths))[:count]
        self._features = workload.take(rows)
        self._lengths = workload.lengths[rows]
        self._budget = settings.evaluation.tokens_per_batch
        self.settings = f"batches of {self._budget} tokens"
        params = init_params(model, jax.random.key(0))
        params = jax.device_put(params, parameter_shardings(params, mesh))
        self._params = {"encoder": params["encoder"], "head": params["heads"][TASK]}

    def rows_of(self, number: int) -> np.ndarray:
        """int64 [rows]: the rows of a round, the same in all."""
        return self._rows

    def warm_up(self) -> dict[str, float]:
        """Compiles every shape; there are no times to tell."""
        self.take_round(0)
        return {}

    def take_round(self, number: int) -> Round:
        """Predicts every row once."""
        began = time.perf_counter()
        predict(
            self._model,
            self._params,
            self._features,
            head=TASK,
            tokens_per_batch=self._budget,
            mesh=self._mesh,
        )
        seconds = time.perf_counter() - began
        stream = PredictionStream(TASK, self._features, tokens_per_batch=self._budget)
        return Round(seconds, self._lengths, [batch.arrays["tokens"].shape for batch in stream])
