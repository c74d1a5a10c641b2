"""The input pipeline: how well batches are filled, how fast features are built and batches delivered.

Needs no accelerator. Rates are ratios of two loops that take turns, so that a busy machine disturbs both alike.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from stilts_jax.batches.collate import Masking
from stilts_jax.batches.plan import TrainingBatches, made_ahead
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.model import find_folder
from stilts_jax.progress import Progress
from stilts_jax.settings import TrainSettings
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource, available_languages, read_examples
from stilts_jax.tasks.spec import ClassifyExample, Example, SpanExample
from stilts_jax.tokenization import PAD_ID, Tokenizer, load_tokenizer

BATCH_SIZE, WINDOW = 32, TrainSettings().window
CASES = {  # task and the length that its rows are cut to
    "mnli": 128,
    "squad_v1": 384,
    "udpos": 128,
    "panx": 128,
    "mlm": 256,
}
_STEPS = 1000  # batches looked at, at most
_TURNS = 3  # of the two loops; the best of each counts
_EXAMPLES = 4000  # of a loop


@dataclass(frozen=True)
class Filling:
    """How one task's training batches are filled and how long the host needs for one.

    Attributes:
        share: real tokens of all tokens computed.
        milliseconds: to make a batch, with nothing else going on.
        wait_milliseconds: until a prefetched batch is there, for a step that takes 5 ms.
    """

    task: str
    rows: int
    mean_length: float
    share: float
    shapes: int
    milliseconds: float
    wait_milliseconds: float


@dataclass(frozen=True)
class Rate:
    """Examples a second, ours and of a plain loop over examples with the same tokenizer."""

    task: str
    examples: int
    ours: float
    plain: float

    @property
    def ratio(self) -> float:
        """How many times the plain loop's rate ours is."""
        return self.ours / self.plain


def measure_filling(task_name: str, tokenizer: Tokenizer, source: DataSource) -> Filling:
    """Builds a task's training features (English; running text in all languages) and looks at its batches."""
    task, max_length = get_task(task_name), CASES[task_name]
    languages = available_languages(task, "train", source) if task.kind == "mlm" else ("en",)
    examples = {language: read_examples(task, "train", language, source) for language in languages}
    features = build_features(task.kind, examples, tokenizer, FeatureSettings(max_length), training=True)
    batches = TrainingBatches(
        task_name,
        features,
        batch_size=BATCH_SIZE,
        seed=0,
        max_length=max_length,
        window=WINDOW,
        masking=Masking(tokenizer.mask_id, tokenizer.vocab_size) if task.kind == "mlm" else None,
    )
    steps = range(min(batches.steps_per_epoch, _STEPS))
    batches.batch_at(0)  # what is made once, such as an epoch's permutation
    began = time.perf_counter()
    made = [batches.batch_at(step).arrays["tokens"] for step in steps]
    seconds = time.perf_counter() - began
    computed = sum(tokens.size for tokens in made)
    waits = []
    with made_ahead(batches.batch_at) as batch_at:
        for step in steps[:200]:
            began = time.perf_counter()
            batch_at(step)
            waits.append(time.perf_counter() - began)
            time.sleep(0.005)
    return Filling(
        task=task_name,
        rows=len(features),
        mean_length=float(features.columns["tokens"].lengths.mean()),  # type: ignore[union-attr]
        share=sum(int((tokens != PAD_ID).sum()) for tokens in made) / computed,
        shapes=len(batches.shapes),
        milliseconds=1e3 * seconds / len(steps),
        wait_milliseconds=1e3 * float(np.median(waits)),
    )


def measure_rate(task_name: str, tokenizer: Tokenizer, source: DataSource) -> Rate:
    """Measures how fast examples become features, beside a plain loop over them."""
    task = get_task(task_name)
    settings = FeatureSettings(CASES[task_name])
    examples = read_examples(task, "train", "en", source)[:_EXAMPLES]
    fast = AutoTokenizer.from_pretrained(tokenizer.source)
    plain_loop = {"classify": _loop_over_pairs, "span": _loop_over_questions}[task.kind]

    def build() -> object:
        return build_features(task.kind, {"en": examples}, tokenizer, settings, training=True)

    ours, plain = [], []
    for _ in range(_TURNS):
        plain.append(_time(lambda: plain_loop(fast, examples, settings)))
        ours.append(_time(build))
    return Rate(task_name, len(examples), len(examples) / min(ours), len(examples) / min(plain))


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _loop_over_pairs(fast: Any, examples: Sequence[Example], settings: FeatureSettings) -> list[Any]:
    rows = []
    for example in examples:
        assert isinstance(example, ClassifyExample)
        row = fast(example.text, example.pair, truncation=True, max_length=settings.max_length)["input_ids"]
        rows.append((row, example.label))
    return rows


def _loop_over_questions(fast: Any, examples: Sequence[Example], settings: FeatureSettings) -> list[Any]:
    """Windows and answers as question answering scripts commonly make them, one question at a time."""
    rows = []
    for example in examples:
        assert isinstance(example, SpanExample)
        windows = fast(
            example.question,
            example.context,
            truncation="only_second",
            max_length=settings.max_length,
            stride=settings.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        text, start = example.answers[0]
        end = start + len(text)
        for number, (ids, offsets) in enumerate(zip(windows["input_ids"], windows["offset_mapping"])):
            parts = windows.sequence_ids(number)
            first = parts.index(1)
            last = len(parts) - 1 - parts[::-1].index(1)
            if offsets[first][0] > start or offsets[last][1] < end:
                rows.append((ids, 0, 0))
                continue
            while first < last and offsets[first][1] <= start:
                first += 1
            while last > first and offsets[last][0] >= end:
                last -= 1
            rows.append((ids, first, last))
    return rows


def measure(data_root: Path, encoder: str, progress: Progress) -> dict[str, list[dict[str, Any]]]:
    """Measures every case; returns plain records."""
    tokenizer, source = load_tokenizer(find_folder(encoder)), DataSource(data_root)
    filling, rates = [], []
    for name in CASES:
        progress.say(f"filling of batches: {name}")
        filling.append(asdict(measure_filling(name, tokenizer, source)))
    for name in ("mnli", "squad_v1"):
        progress.say(f"rate of features: {name}")
        rate = measure_rate(name, tokenizer, source)
        rates.append({**asdict(rate), "ratio": rate.ratio})
    return {"filling": filling, "rates": rates}


def format_table(record: dict[str, list[dict[str, Any]]]) -> str:
    """Returns what ``measure`` found, for people."""
    lines = [
        f"batches of {BATCH_SIZE}, windows of {WINDOW}",
        "task        rows  mean length  real tokens  shapes  ms a batch  ms of waiting",
    ]
    for case in record["filling"]:
        lines.append(
            f"{case['task']:9} {case['rows']:6} {case['mean_length']:12.1f} {case['share']:12.3f} "
            f"{case['shapes']:7} {case['milliseconds']:11.2f} {case['wait_milliseconds']:14.3f}"
        )
    lines += ["", "task      examples  ours a second  plain loop  ratio"]
    for case in record["rates"]:
        lines.append(
            f"{case['task']:9} {case['examples']:8} {case['ours']:14.0f} {case['plain']:11.0f} "
            f"{case['ratio']:6.2f}"
        )
    return "\n".join(lines)
