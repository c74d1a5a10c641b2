"""What ``stilts bench`` times: training and prediction as ``stilts train`` and ``eval`` compute them, and their rows.

Rows are those of a task, or drawn from a law of lengths for machines without data. Weights are drawn, as only their
shape counts. ``tests/benchmarks/speed.py`` runs the same classes in turns with PyTorch.
"""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stilts_jax import automatic
from stilts_jax.batches.plan import TrainingBatches, made_ahead
from stilts_jax.errors import ConfigError, nearest
from stilts_jax.evaluation.predict import plan_prediction, predict
from stilts_jax.experiment.context import open_source
from stilts_jax.experiment.models import head_config, optimizer_config, with_dropout
from stilts_jax.experiment.phases import hyperparameters_of
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.records import Features, Ragged
from stilts_jax.interruption import check
from stilts_jax.model import SHAPES, EncoderConfig, Model, find_folder, init_encoder, init_params
from stilts_jax.progress import Progress, counted, seconds_since_start
from stilts_jax.settings import Settings
from stilts_jax.sharding import Mesh, shardings
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import read_examples, with_labels
from stilts_jax.tasks.spec import Hyperparameters, Kind
from stilts_jax.tokenization import CLS_ID, SEP_ID, UNK_ID, load_tokenizer
from stilts_jax.train.loop import Run, RunConfig
from stilts_jax.train.losses import make_loss
from stilts_jax.train.optimizer import make_optimizer
from stilts_jax.train.step import init_state
from stilts_jax.train.vocabulary import PhaseVocabulary, fits_phase_vocabulary

TASK = "bench"
_STEPS = 10_000  # of the run for which padded lengths are chosen
KINDS = ("classify", "tag", "span")  # what both sides have a head for


class Law(NamedTuple):
    """A made-up task: log-normal lengths, and tokens by Zipf's law, as fitted to as many rows of ``source``."""

    kind: Kind
    num_labels: int
    log_mean: float  # of the natural logarithm of a row's tokens
    log_sd: float
    longest: int  # what rows are cut to
    rows: int
    pieces: int  # distinct vocabulary rows that all of them use together
    source: str  # cut into XLM-R's pieces


LAWS = {
    "nli": Law("classify", 3, 3.70, 0.46, 128, 18_000, 13_463, "premise and hypothesis, MNLI's dev sets"),
    "tagging": Law("tag", 17, 2.90, 0.71, 128, 12_551, 13_657, "English EWT sentences, UD train"),
    "qa": Law("span", 2, 5.29, 0.37, 384, 28_216, 22_221, "windows of SQuADShifts, stride 128"),
}


@dataclass(frozen=True)
class Workload:
    """Rows, what they are, and where they come from."""

    name: str
    origin: str
    features: Features
    num_labels: int
    max_length: int
    vocab_size: int
    mask_id: int

    @property
    def tokens(self) -> Any:
        return self.features.columns["tokens"]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [N]"""
        return self.tokens.lengths

    def describe(self) -> str:
        lengths, used = self.lengths, len(np.unique(self.tokens.values))
        rows = f"{len(lengths)} rows of {lengths.mean():.1f} tokens (sd {lengths.std():.1f}, at most {lengths.max()})"
        return f"{self.name}: {rows}, {used} of {self.vocab_size} vocabulary rows; {self.origin}"


def draw_workload(name: str, vocab_size: int, *, longest: int, rows: int = 0) -> Workload:
    law, generator = LAWS[name], np.random.default_rng(0)
    count, most = rows or law.rows, max(min(law.longest, longest), 8)
    lengths = np.exp(generator.normal(law.log_mean, law.log_sd, count)).round().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths.clip(8, most))])
    pieces = min(law.pieces, vocab_size - UNK_ID - 2)
    ids = generator.permutation(np.arange(UNK_ID + 1, vocab_size - 1, dtype=np.int32))[:pieces]
    share = 1 / (np.arange(pieces) + 2.7)  # Zipf and Mandelbrot's law
    values = ids[np.searchsorted(np.cumsum(share) / share.sum(), generator.random(offsets[-1]))]
    once = generator.permutation(len(values))[:pieces]
    values[once] = ids[: len(once)]  # rare pieces occur too, as many as the law says
    middle = offsets[:-1] + (offsets[1:] - offsets[:-1]) // 3
    values[offsets[:-1]], values[offsets[1:] - 1] = CLS_ID, SEP_ID
    if law.kind != "tag":  # <s> A </s></s> B </s>
        values[middle], values[middle + 1] = SEP_ID, SEP_ID
    columns: dict[str, np.ndarray | Ragged] = {"tokens": Ragged(values, offsets), "example": np.arange(count)}
    columns["language"] = np.zeros(count, np.int32)
    if law.kind == "classify":
        columns["label"] = generator.integers(0, law.num_labels, count, np.int32)
    elif law.kind == "tag":
        columns["tags"] = Ragged(generator.integers(0, law.num_labels, len(values), np.int32), offsets)
    else:
        columns["start"] = columns["end"] = (lengths.clip(8, most) - 3).astype(np.int32)
        columns["max_context"] = Ragged(np.ones(len(values), np.int32), offsets)
    origin = f"drawn: log-normal lengths and Zipf's law, with means and the {pieces} pieces of {law.source}"
    features = Features(law.kind, columns, ("en",), count)
    return Workload(name, origin, features, law.num_labels, most, vocab_size, vocab_size - 1)


def find_workload(
    name: str, shape: str, data_root: Path | None, encoder: str | None, max_length: int, settings: Settings
) -> Workload:
    """Returns the rows of a law, or a task's training rows in the vocabulary of the encoder's tokenizer."""
    if shape not in SHAPES:
        raise ConfigError(f"There is no shape {shape!r}.", where="--shape", fix=nearest(shape, SHAPES))
    if name in LAWS:
        longest = max_length or SHAPES[shape].max_length
        return draw_workload(name, SHAPES[shape].vocab_size, longest=longest)
    if data_root is None or encoder is None:
        fix = f"{nearest(name, LAWS)}; or a task's name, with --data_root and --encoder"
        raise ConfigError(f"There is no law of lengths {name!r}.", where="--lengths", fix=fix)
    source, task = open_source(settings, data_root), get_task(name)
    chosen, tokenizer = hyperparameters_of(task, settings), load_tokenizer(find_folder(encoder))
    task = with_labels(get_task(task.train_on[-1]) if task.train_on else task, source)
    if task.kind not in KINDS:
        fix = f"take a task of kind {', '.join(KINDS)}, or one of {', '.join(LAWS)}"
        raise ConfigError(f"Tasks of kind {task.kind} are not timed.", where="--lengths", fix=fix)
    length = max_length or chosen.max_length
    features = build_features(
        task.kind,
        {task.source_language: read_examples(task, "train", task.source_language, source)},
        tokenizer,
        FeatureSettings(length, chosen.max_query_length, chosen.stride),
        training=task.kind != "span",  # rows of span tasks for prediction have all columns
    )
    sizes = len(task.labels), length, tokenizer.vocab_size, tokenizer.mask_id
    return Workload(name, f"train rows of {Path(encoder).name}'s tokenizer", features, *sizes)


@dataclass(frozen=True)
class Round:
    """One turn of one contender: real tokens of each row, and [rows, length] of the batches as they were computed."""

    seconds: float
    lengths: np.ndarray
    shapes: Sequence[tuple[int, int]]

    def flops(self, encoder: EncoderConfig, *, padded: bool) -> float:
        """Multiply-adds, times two, of training steps, each once; the last layer in full, a CPU computes less of it."""
        rows = self.shapes if padded else [(1, length) for length in self.lengths.tolist()]
        return float(sum(count * length * encoder.training_flops(length) for count, length in rows))


class Training:
    """The training loop's own steps, cut into rounds of one window; ``stack`` closes its files."""

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
        train, kind, key = settings.train, workload.features.kind, jax.random.key(0)
        places: Any = {"mesh": mesh, "zero1": settings.mesh.zero1}
        self._lengths = workload.lengths
        dtype, vocabulary, shape = model.compute.param_dtype, None, model.encoder
        features, rows = workload.features, "whole vocabulary"
        if fits_phase_vocabulary(settings, [kind]):
            tokens = [workload.tokens.values]
            vocabulary = PhaseVocabulary.from_tokens(tokens, shape.vocab_size, mask_id=workload.mask_id)
            shape = replace(shape, vocab_size=len(vocabulary))
            features = replace(features, columns=vocabulary.remap(features.columns))
            rows = f"phase vocabulary of {len(vocabulary)} rows"
        choices = automatic.decide(settings, mesh, shape, [(kind, batch_size, workload.max_length)], _STEPS)
        model = replace(model, compute=choices.apply(model.compute))
        self._batches = TrainingBatches(
            TASK,
            features,
            batch_size=batch_size,
            seed=0,
            max_length=workload.max_length,
            window=train.window,
            max_buckets=train.buckets or automatic.MAX_LENGTHS,
            price=0.0 if train.buckets else choices.compile_tokens / _STEPS,
        )
        encoder = init_encoder(model.encoder, key, dtype, partial(shardings, mesh=mesh))
        if vocabulary:
            encoder = vocabulary.shrink({"encoder": encoder})["encoder"]
        shapes = counted(len(self._batches.shapes), "shape")
        self.settings = f"{rows}, windows of {train.window}, {shapes}, "
        self.settings += f"{counted(choices.accumulation, 'microbatch', 'es')}, remat {choices.remat}"
        optimizer = optimizer_config(settings, Hyperparameters(), 10**6)
        config = RunConfig(
            optimizer=optimizer,
            losses={TASK: make_loss(model, TASK, optimizer.freeze)},
            batch_at=stack.enter_context(made_ahead(self._batches.batch_at)),
            directory=stack.enter_context(tempfile.TemporaryDirectory()),
            seed=0,
            train=settings.train,
            accumulation=choices.accumulation,
            progress=progress,
            **places,
        )
        state = init_state(model, make_optimizer(optimizer), key, encoder=encoder, **places)
        self._run = Run(state, config, stack)

    def rows_of(self, number: int) -> np.ndarray:
        """int64 [window * batch]: the rows of a round."""
        return np.concatenate([self._batches.rows_at(step) for step in self._steps(number)])

    def warm_up(self) -> dict[str, float]:
        """Compiles every shape and takes a round; returns seconds and counts of that."""
        steps: dict[int, int] = {}
        for step in range(self._batches.steps_per_epoch):
            length = int(self._lengths[self._batches.rows_at(step)].max())
            steps.setdefault(next(size for _, size in self._batches.shapes if size >= length), step)
        self._take([first := min(steps.values())])
        since = seconds_since_start()
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
        window = self._run.config.train.window
        return range(number * window, (number + 1) * window)

    def _take(self, steps: Sequence[int]) -> list[tuple[int, int]]:
        shapes = []
        with jax.set_mesh(self._run.config.mesh):
            for step in steps:
                check()
                batch = self._run.config.batch_at(step)
                shapes.append(batch.arrays["tokens"].shape)
                self._run.take_step(batch)
            self._run.fetch()
        return shapes


class Prediction:
    """Our predictor over one stream of rows, sorted by length; every round predicts the same rows."""

    def __init__(self, workload: Workload, model: Model, settings: Settings, mesh: Mesh, count: int) -> None:
        self._rows = rows = np.random.default_rng(1).permutation(len(workload.lengths))[:count]

        def pick(column: Any) -> np.ndarray | Ragged:
            is_ragged = isinstance(column, Ragged)
            return Ragged.from_list([column[row] for row in rows]) if is_ragged else column[rows]

        columns = {name: pick(column) for name, column in workload.features.columns.items()}
        columns["example"] = np.arange(len(rows))
        features = replace(workload.features, columns=columns, num_examples=len(rows))
        self._lengths = workload.lengths[rows]
        budget = settings.evaluation.tokens_per_batch
        self.settings = f"batches of {budget} tokens" if budget else "batches as suit the device"
        params = init_params(model, jax.random.key(0))
        params = jax.device_put(params, shardings(params, mesh))
        params = {"encoder": params["encoder"], "head": params["heads"][TASK]}
        options: Any = {"head": TASK, "tokens_per_batch": budget, "mesh": mesh}
        self._predict = partial(predict, model, params, features, **options)
        stream = plan_prediction(model, features, mesh, budget)
        self._shapes = [batch.arrays["tokens"].shape for batch in stream]

    def rows_of(self, number: int) -> np.ndarray:
        """int64 [rows]: the rows of a round, the same in all."""
        return self._rows

    def warm_up(self) -> dict[str, float]:
        """Compiles every shape; the seconds are not told apart."""
        self._predict()
        return {}

    def take_round(self, number: int) -> Round:
        began = time.perf_counter()
        self._predict()
        return Round(time.perf_counter() - began, self._lengths, self._shapes)


def summarise(
    rounds: Sequence[Round], encoder: EncoderConfig, matmul: float, *, training: bool
) -> dict[str, Any]:
    """Returns medians over rounds of one contender and their spread; ``matmul`` is the FLOP/s that devices reach."""
    lengths = np.concatenate([one.lengths for one in rounds])
    seconds = np.array([one.seconds for one in rounds])
    rates = np.array([len(one.lengths) for one in rounds]) / seconds
    worth = (1.0 if training else 1 / 3) / seconds.sum() / matmul  # prediction takes the forward pass alone
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
    task: Any = SimpleNamespace(kind=workload.features.kind, labels=range(workload.num_labels))
    named = replace(SHAPES[shape], vocab_size=max(workload.vocab_size, SHAPES[shape].vocab_size))
    return Model(with_dropout(named, settings), ((TASK, head_config(task, settings)),), settings.compute)


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
