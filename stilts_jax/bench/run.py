"""How fast training and prediction are on this machine, with the settings that ``stilts train`` and ``eval`` take.

Weights are drawn, as only their shape counts. ``tests/benchmarks/speed.py`` runs the same classes in turns with
PyTorch.
"""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stilts_jax import automatic
from stilts_jax.automatic import decide
from stilts_jax.batches.plan import TrainingBatches
from stilts_jax.batches.prefetch import made_ahead, remapped
from stilts_jax.bench.workload import Workload
from stilts_jax.evaluation.predict import plan_prediction, predict
from stilts_jax.experiment.models import with_dropout
from stilts_jax.model import SHAPES, EncoderConfig, HeadConfig, Model, init_encoder, init_params
from stilts_jax.progress import Progress, seconds_since_start
from stilts_jax.settings import OptimizerSettings, Settings
from stilts_jax.sharding import Mesh, make_mesh, shardings
from stilts_jax.train.loop import Run, RunConfig
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.step import init_state
from stilts_jax.train.vocabulary import PhaseVocabulary, fits_phase_vocabulary

TASK = "bench"
_STEPS = 10_000  # of the run for which padded lengths are chosen


@dataclass(frozen=True)
class Round:
    """One turn of one contender: real tokens of each row, and [rows, length] of the batches as they were computed."""

    seconds: float
    lengths: np.ndarray
    shapes: Sequence[tuple[int, int]]

    def flops(self, encoder: EncoderConfig, *, padded: bool) -> float:
        """Multiply-adds, times two, of layers and attention in a training step; a third of it forward.

        Embeddings, heads and what is computed twice do not count. The last layer counts in full for everybody,
        though before a sentence head we compute but one token of it on a CPU.
        """
        rows = self.shapes if padded else [(1, length) for length in self.lengths.tolist()]
        return float(sum(count * length * encoder.training_flops(length) for count, length in rows))


class Training:
    """The training loop's own steps, cut into rounds of one window: phase vocabulary, padded lengths, prefetching.

    ``stack`` closes its files.
    """

    def __init__(
        self,
        workload: Workload,
        model: Model,
        settings: Settings,
        mesh: Mesh,
        batch_size: int,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        train, zero1 = settings.train, settings.mesh.zero1
        kind, key = workload.features.kind, jax.random.key(0)
        self.window, self._lengths, self._mesh = train.window, workload.lengths, mesh
        dtype, vocabulary, shape = model.compute.param_dtype, None, model.encoder
        if train.phase_vocabulary and not train.freeze_embeddings and fits_phase_vocabulary(dtype, [kind]):
            tokens, size = [workload.tokens.values], shape.vocab_size
            vocabulary = PhaseVocabulary.from_tokens(tokens, size, mask_id=workload.mask_id)
            shape = replace(shape, vocab_size=len(vocabulary))
        choices = decide(settings, mesh, shape, [(kind, batch_size, workload.max_length)], _STEPS)
        model = replace(model, compute=choices.apply(model.compute))
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
        remap, rows = None, "whole vocabulary"
        encoder = init_encoder(model.encoder, key, dtype, partial(shardings, mesh=mesh))
        if vocabulary:
            encoder = vocabulary.shrink({"encoder": encoder})["encoder"]
            remap, rows = vocabulary.remap, f"phase vocabulary of {len(vocabulary)} rows"
        self.settings = (
            f"{rows}, windows of {train.window}, {len(self._batches.shapes)} shapes, "
            f"{choices.accumulation} microbatches, remat {choices.remat}"
        )
        given = {one.name: getattr(train, one.name) for one in fields(OptimizerSettings)}
        optimizer = OptimizerConfig(**given | {"learning_rate": 1e-5, "total_steps": 10**6})
        freeze = optimizer.freeze if optimizer.freeze_embeddings or optimizer.freeze_layers else None
        config = RunConfig(
            optimizer=optimizer,
            losses={TASK: make_loss(model, TASK, freeze)},
            batch_at=stack.enter_context(made_ahead(remapped(self._batches.batch_at, remap))),
            directory=stack.enter_context(tempfile.TemporaryDirectory()),
            mesh=mesh,
            seed=0,
            train=settings.train,
            zero1=zero1,
            accumulation=choices.accumulation,
            progress=progress,
        )
        state = init_state(model, make_optimizer(optimizer), key, encoder=encoder, mesh=mesh, zero1=zero1)
        self._run = Run(state, config, stack)

    def rows_of(self, number: int) -> np.ndarray:
        """int64 [window * batch]: the rows of a round."""
        return np.concatenate([self._batches.rows_at(step) for step in self._steps(number)])

    def warm_up(self) -> dict[str, float]:
        """Compiles every shape and takes a round; returns seconds and counts of that."""
        began = time.perf_counter()
        steps: dict[int, int] = {}
        for step in range(self._batches.steps_per_epoch):
            length = int(self._lengths[self._batches.rows_at(step)].max())
            steps.setdefault(next(size for _, size in self._batches.shapes if size >= length), step)
        self._take([first := min(steps.values())])
        since = seconds_since_start() or time.perf_counter() - began
        self._take([step for step in steps.values() if step != first])
        times = {"compile": self._run.work.compile_seconds, "to_first_step": since}
        times |= {"shapes": self._run.work.compilations, "cached": self._run.cached}
        self._take(self._steps(0))
        return times

    def take_round(self, number: int) -> Round:
        """Takes the steps of one window, as the loop does, and waits for the last."""
        began = time.perf_counter()
        shapes = self._take(self._steps(number))
        return Round(time.perf_counter() - began, self._lengths[self.rows_of(number)], shapes)

    def _steps(self, number: int) -> range:
        return range(number * self.window, (number + 1) * self.window)

    def _take(self, steps: Sequence[int]) -> list[tuple[int, int]]:
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
        self._rows = np.random.default_rng(1).permutation(len(workload.lengths))[:count]
        self._features, self._lengths = workload.take(self._rows), workload.lengths[self._rows]
        budget = settings.evaluation.tokens_per_batch
        self.settings = f"batches of {budget or 'as many'} tokens{'' if budget else ' as suit the device'}"
        params = init_params(model, jax.random.key(0))
        params = jax.device_put(params, shardings(params, mesh))
        params = {"encoder": params["encoder"], "head": params["heads"][TASK]}
        options: Any = {"head": TASK, "tokens_per_batch": budget, "mesh": mesh}
        self._predict = partial(predict, model, params, self._features, **options)
        stream = plan_prediction(model, self._features, mesh, budget)
        self._shapes = [batch.arrays["tokens"].shape for batch in stream]

    def rows_of(self, number: int) -> np.ndarray:
        """int64 [rows]: the rows of a round, the same in all."""
        return self._rows

    def warm_up(self) -> dict[str, float]:
        """Compiles every shape; the seconds are not told apart."""
        self._predict()
        return {}

    def take_round(self, number: int) -> Round:
        """Predicts every row once."""
        began = time.perf_counter()
        self._predict()
        return Round(time.perf_counter() - began, self._lengths, self._shapes)


def summarise(
    rounds: Sequence[Round], encoder: EncoderConfig, matmul: float, *, training: bool
) -> dict[str, Any]:
    """Returns medians over rounds of one contender and their spread.

    ``matmul`` are the FLOP/s that matrix products reach on all devices. ``training`` takes both passes, prediction a
    third of their products.
    """
    lengths = np.concatenate([one.lengths for one in rounds])
    seconds = np.array([one.seconds for one in rounds])
    rates = np.array([len(one.lengths) for one in rounds]) / seconds
    worth = (1.0 if training else 1 / 3) / seconds.sum() / matmul
    return {
        "examples_per_second": float(np.median(rates)),
        "spread": [float(rates.min()), float(rates.max())],
        "real_tokens_per_second": float(np.median([one.lengths.sum() for one in rounds] / seconds)),
        "padding_share": 1 - lengths.sum() / sum(np.prod(shape) for one in rounds for shape in one.shapes),
        "utilisation": worth * sum(one.flops(encoder, padded=False) for one in rounds),
        "utilisation_padded": worth * sum(one.flops(encoder, padded=True) for one in rounds),
    }


def open_model(shape: str, workload: Workload, settings: Settings) -> Model:
    """Returns a model of a named shape with the workload's head; it has a row for each piece of the tokenizer."""
    named, kind = SHAPES[shape], workload.features.kind
    rows = max(workload.vocab_size, named.vocab_size)
    rate, labels = settings.model.hidden_dropout, workload.num_labels if kind in ("classify", "tag") else 0
    dropout = HeadConfig.dropout if rate is None else rate
    head = HeadConfig(kind=kind, num_labels=labels, form=settings.model.head_form, dropout=dropout)
    return Model(with_dropout(replace(named, vocab_size=rows), settings), ((TASK, head),), settings.compute)


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
    mesh, matmul = make_mesh(settings.mesh), measure_matmul(model.compute.dtype)
    device, dtype = f"{jax.device_count()} x {jax.devices()[0].device_kind}", model.compute.dtype
    record: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "workload": workload.describe(),
        "matmul": matmul,
    }
    with ExitStack() as stack:
        training = Training(workload, model, settings, mesh, batch_size, progress, stack)
        prediction = Prediction(workload, model, settings, mesh, rows)
        for name, work in (("train", training), ("predict", prediction)):
            progress.say(f"{name}: compiling")
            times, done = work.warm_up(), []
            with progress.track(name, rounds, "rounds") as bar:
                for number in range(1, rounds + 1):
                    done.append(work.take_round(number))
                    bar.advance()
            numbers = summarise(done, model.encoder, matmul * jax.device_count(), training=name == "train")
            record[name] = {"settings": work.settings, **numbers, **times}
    return record


def describe(record: dict[str, Any]) -> str:
    """Returns a record as a person reads it."""
    matmul = f"matrix products reach {record['matmul'] / 1e9:.0f} GFLOP/s a device"
    lines = [record["workload"], f"{record['device']}, {record['dtype']}; {matmul}"]
    lines += ["           examples/s      (spread)   real tokens/s  padding  utilisation  padded"]
    row = "{examples_per_second:12.4g}  {spread:>14} {real_tokens_per_second:13.4g} {padding_share:8.1%} "
    row += "{utilisation:12.1%} {utilisation_padded:7.1%}"
    names, train = ("train", "predict"), record["train"]
    for name in names:
        low, high = record[name]["spread"]
        lines.append(f"{name:8} " + row.format_map(record[name] | {"spread": f"({low:.4g}-{high:.4g})"}))
    lines += [f"{name}: {record[name]['settings']}" for name in names]
    told = "{shapes} shapes compiled in {compile:.1f} s ({cached} from the cache on disk); "
    told += "first step {to_first_step:.1f} s after the command"
    return "\n".join([*lines, told.format_map(train)])


def measure_matmul(dtype: str, precision: Any = None) -> float:
    """Returns FLOP/s of the product of two square matrices on the first device, the best of six turns."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    one = jnp.full((side, side), 1.0 / side, dtype)
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    jax.block_until_ready(multiply(one, one))
    repeats, best = 1, float("inf")
    for _ in range(6):  # each at least 0.15 seconds long
        began = time.perf_counter()
        for _ in range(repeats):
            last = multiply(one, one)
        jax.block_until_ready(last)
        seconds = (time.perf_counter() - began) / repeats
        best, repeats = min(best, seconds), max(1, round(0.15 / seconds))
    return 2.0 * side**3 / best
