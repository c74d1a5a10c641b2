"""How fast training and prediction are on this machine, with the settings that ``stilts train`` and ``eval`` take.

Weights are drawn, as only their shape counts. ``tests/benchmarks/speed.py`` runs the same classes in turns with
PyTorch.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stilts_jax import automatic
from stilts_jax.batches.plan import TrainingBatches
from stilts_jax.batches.prefetch import made_ahead
from stilts_jax.bench.workload import Workload
from stilts_jax.evaluation.predict import plan_prediction, predict
from stilts_jax.experiment.choices import decide
from stilts_jax.model import SHAPES, EncoderConfig, Model, init_encoder, init_params
from stilts_jax.progress import Progress, seconds_since_start
from stilts_jax.settings import Settings
from stilts_jax.sharding import Mesh, make_mesh, shardings
from stilts_jax.train.loop import Run, RunConfig
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.state import init_state
from stilts_jax.train.vocabulary import PhaseVocabulary, fits_phase_vocabulary

TASK = "bench"
_STEPS = 10_000  # of the run for which padded lengths are chosen


@dataclass(frozen=True)
class Round:
    """One turn of one contender.

    Attributes:
        lengths: int64 [rows], real tokens of each row that was computed.
        shapes: [[rows, length], ...] of the batches as they were computed.
    """

    seconds: float
    lengths: np.ndarray
    shapes: Sequence[tuple[int, int]]

    def flops(self, encoder: EncoderConfig, *, padded: bool) -> float:
        """Multiply-adds, times two, of layers and attention in a training step; a third of it forward.

        Embeddings, heads and what is computed twice do not count. The last layer counts in full for everybody,
        though before a sentence head we compute but one token of it on a CPU.
        """
        if padded:
            return sum(rows * length * encoder.training_flops(length) for rows, length in self.shapes)
        return float(sum(length * encoder.training_flops(length) for length in self.lengths.tolist()))


class Training:
    """The training loop's own steps, cut into rounds of one window: phase vocabulary, padded lengths, prefetching."""

    def __init__(
        self,
        workload: Workload,
        model: Model,
        settings: Settings,
        mesh: Mesh,
        batch_size: int,
        progress: Progress,
    ) -> None:
        train, shape = settings.train, model.encoder
        choices = decide(settings, mesh, shape, [(workload.features.kind, batch_size, workload.max_length)])
        model = replace(model, compute=replace(model.compute, remat=choices.remat))
        self.window, self._lengths, self._mesh = train.window, workload.lengths, mesh
        self._batches = TrainingBatches(
            TASK,
            workload.features,
            batch_size=batch_size,
            seed=0,
            max_length=workload.max_length,
            window=train.window,
            max_buckets=train.buckets or automatic.MAX_LENGTHS,
            price=0.0 if train.buckets else choices.compile_tokens / _STEPS,
        )
        self._vocabulary: PhaseVocabulary | None = None
        if train.phase_vocabulary and fits_phase_vocabulary(
            model.compute.param_dtype, [workload.features.kind]
        ):
            self._vocabulary = PhaseVocabulary.from_tokens(
                [workload.tokens.values],
                model.encoder.vocab_size,
                mask_id=workload.mask_id,
            )
        rows = f"phase vocabulary of {len(self._vocabulary)} rows" if self._vocabulary else "whole vocabulary"
        self.settings = (
            f"{rows}, windows of {train.window}, {len(self._batches.shapes)} shapes, "
            f"{choices.accumulation} microbatches, remat {choices.remat}"
        )
        self._stack = ExitStack()
        with jax.set_mesh(mesh):
            key, places = jax.random.key(0), partial(shardings, mesh=mesh)
            encoder = init_encoder(model.encoder, key, model.compute.param_dtype, places)
            if self._vocabulary is not None:
                encoder = self._vocabulary.shrink({"encoder": encoder})["encoder"]
            optimizer = OptimizerConfig(
                learning_rate=1e-5, total_steps=10**6, moment_dtype=train.moment_dtype
            )
            config = RunConfig(
                optimizer=optimizer,
                losses={TASK: make_loss(model, TASK)},
                batch_at=self._stack.enter_context(
                    made_ahead(self._batches.batch_at, self._vocabulary.remap if self._vocabulary else None)
                ),
                directory=self._stack.enter_context(tempfile.TemporaryDirectory()),
                mesh=mesh,
                seed=0,
                zero1=settings.mesh.zero1,
                accumulation=choices.accumulation,
                progress=progress,
            )
            tx, zero1 = make_optimizer(optimizer), settings.mesh.zero1
            state = init_state(model, tx, key, encoder=encoder, mesh=mesh, zero1=zero1)
            self._run = Run(state, config, self._stack)

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(None, None, None)

    def rows_of(self, number: int) -> np.ndarray:
        """int64 [window * batch]: the rows of a round."""
        return np.concatenate([self._batches.rows_at(step) for step in self._steps(number)])

    def warm_up(self) -> dict[str, float]:
        """Compiles every shape and takes a round; returns seconds and counts of that."""
        began = time.perf_counter()
        steps: dict[int, int] = {}
        for step in range(self._batches.steps_per_epoch):
            length = int(self._lengths[self._batches.rows_at(step)].max())
            steps.setdefault(next(size for size in self._batches.buckets if size >= length), step)
        self._take([first := min(steps.values())])
        since = seconds_since_start() or time.perf_counter() - began
        self._take(step for step in steps.values() if step != first)
        work = self._run.work
        self._take(self._steps(0))
        return {
            "to_first_step": since,
            "compile": work.compile_seconds,
            "shapes": work.compilations,
            "cached": self._run.cached,
        }

    def take_round(self, number: int) -> Round:
        """Takes the steps of one window, as the loop does, and waits for the last."""
        began = time.perf_counter()
        shapes = self._take(self._steps(number))
        return Round(time.perf_counter() - began, self._lengths[self.rows_of(number)], shapes)

    def _steps(self, number: int) -> range:
        return range(number * self.window, (number + 1) * self.window)

    def _take(self, steps: Iterable[int]) -> list[tuple[int, int]]:
        shapes = []
        with jax.set_mesh(self._mesh):
            for step in steps:
                batch = self._run.config.batch_at(step)
                shapes.append(batch.arrays["tokens"].shape)
                self._run.take_step(batch)
            self._run.fetch()
        return shapes


class Prediction:
    """Our predictor over one stream of rows, sorted by length; every round predicts the same rows."""

    def __init__(self, workload: Workload, model: Model, settings: Settings, mesh: Mesh, count: int) -> None:
        self._model, self._mesh = model, mesh
        self._rows = np.random.default_rng(1).permutation(len(workload.lengths))[:count]
        self._features, self._lengths = workload.take(self._rows), workload.lengths[self._rows]
        self._budget = settings.evaluation.tokens_per_batch
        self.settings = (
            f"batches of {self._budget or 'as many'} tokens{' as suit the device' * (not self._budget)}"
        )
        params = init_params(model, jax.random.key(0))
        params = jax.device_put(params, shardings(params, mesh))
        self._params = {"encoder": params["encoder"], "head": params["heads"][TASK]}

    def rows_of(self, number: int) -> np.ndarray:
        """int64 [rows]: the rows of a round, the same in all."""
        return self._rows

    def warm_up(self) -> dict[str, float]:
        """Compiles every shape; the seconds are not told apart."""
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
        stream = plan_prediction(self._model, self._features, self._mesh, self._budget)
        return Round(seconds, self._lengths, [batch.arrays["tokens"].shape for batch in stream])


def summarise(
    rounds: Sequence[Round], encoder: EncoderConfig, matmul: float, *, training: bool
) -> dict[str, Any]:
    """Returns medians over rounds and their spread.

    Args:
        rounds: of one contender.
        encoder: whose products count.
        matmul: FLOP/s that matrix products reach on all devices.
        training: forward and backward pass; else a third of their products.
    """
    share = 1.0 if training else 1 / 3
    seconds = sum(one.seconds for one in rounds)
    real, padded = (
        sum(one.flops(encoder, padded=padded) for one in rounds) * share / seconds for padded in (False, True)
    )
    rates = np.array([len(one.lengths) / one.seconds for one in rounds])
    tokens = sum(int(one.lengths.sum()) for one in rounds)
    return {
        "examples_per_second": float(np.median(rates)),
        "spread": [float(rates.min()), float(rates.max())],
        "real_tokens_per_second": float(np.median([one.lengths.sum() / one.seconds for one in rounds])),
        "padding_share": 1 - tokens / sum(rows * length for one in rounds for rows, length in one.shapes),
        "utilisation": real / matmul,
        "utilisation_padded": padded / matmul,
    }


def open_model(shape: str, workload: Workload, settings: Settings) -> Model:
    """Returns a model of a named shape with the workload's head; it has a row for each piece of the tokenizer."""
    named = SHAPES[shape]
    rows = max(workload.vocab_size, named.vocab_size)
    return Model(replace(named, vocab_size=rows), ((TASK, workload.head),), settings.compute)


def run_bench(
    workload: Workload,
    model: Model,
    settings: Settings,
    *,
    batch_size: int,
    rounds: int,
    rows: int,
    progress: Progress,
) -> dict[str, Any]:
    """Times rounds of training and of prediction; returns plain records."""
    mesh = make_mesh(settings.mesh)
    matmul = measure_matmul(model.compute.dtype)
    record: dict[str, Any] = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "dtype": model.compute.dtype,
        "workload": workload.describe(),
        "matmul": matmul,
    }
    with Training(workload, model, settings, mesh, batch_size, progress) as training:
        for name, work in (
            ("train", training),
            ("predict", Prediction(workload, model, settings, mesh, rows)),
        ):
            progress.say(f"{name}: compiling")
            times = work.warm_up()
            with progress.track(name, rounds, "rounds") as bar:
                done = []
                for number in range(1, rounds + 1):
                    done.append(work.take_round(number))
                    bar.advance()
            numbers = summarise(done, model.encoder, matmul * jax.device_count(), training=name == "train")
            record[name] = {"settings": work.settings, **numbers, **times}
    return record


def describe(record: dict[str, Any]) -> str:
    """Returns a record as a person reads it."""
    lines = [
        record["workload"],
        f"{record['device']}, {record['dtype']}; matrix products reach {record['matmul'] / 1e9:.0f} GFLOP/s a device",
        "           examples/s      (spread)   real tokens/s  padding  utilisation  padded",
    ]
    for name in ("train", "predict"):
        one = record[name]
        low, high = one["spread"]
        lines.append(
            f"{name:8} {one['examples_per_second']:12.4g}  {f'({low:.4g}-{high:.4g})':>14} "
            f"{one['real_tokens_per_second']:13.4g} {one['padding_share']:8.1%} {one['utilisation']:12.1%} "
            f"{one['utilisation_padded']:7.1%}"
        )
    for name in ("train", "predict"):
        lines.append(f"{name}: {record[name]['settings']}")
    one = record["train"]
    lines.append(
        f"{one['shapes']} shapes compiled in {one['compile']:.1f} s ({one['cached']} from the cache on disk); first "
        f"step {one['to_first_step']:.1f} s after the command"
    )
    return "\n".join(lines)


def measure_matmul(dtype: str, side: int = 0, precision: Any = None) -> float:
    """Returns FLOP/s of the product of two square matrices on the first device."""
    side = side or (2048 if jax.default_backend() == "cpu" else 8192)
    one = jnp.full((side, side), 1.0 / side, dtype)
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    return 2.0 * side**3 / best_seconds(lambda: multiply(one, one))


def best_seconds(launch: Callable[[], Any], least: float = 0.15) -> float:
    """Returns the seconds of one launch, the best of six turns that each last at least ``least`` seconds."""
    jax.block_until_ready(launch())
    repeats, best = 1, float("inf")
    for _ in range(6):
        began = time.perf_counter()
        for _ in range(repeats):
            last = launch()
        jax.block_until_ready(last)
        seconds = (time.perf_counter() - began) / repeats
        best, repeats = min(best, seconds), max(1, round(least / seconds))
    return best
