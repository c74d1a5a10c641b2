"""What ``stilts bench`` times: the rows of a task, or rows drawn from a law of lengths for machines without data."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.experiment.phases import hyperparameters_of
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.records import Features, Ragged
from stilts_jax.model import SHAPES
from stilts_jax.settings import Settings
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource, read_examples, with_labels
from stilts_jax.tasks.spec import Kind
from stilts_jax.tokenization import CLS_ID, SEP_ID, UNK_ID, load_tokenizer

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
    def tokens(self) -> Ragged:
        """All rows."""
        return cast(Ragged, self.features.columns["tokens"])

    @property
    def lengths(self) -> np.ndarray:
        """int64 [N]"""
        return self.tokens.lengths

    def take(self, rows: np.ndarray) -> Features:
        """Returns some of the rows as features of their own."""
        columns: dict[str, np.ndarray | Ragged] = {}
        for name, column in self.features.columns.items():
            if isinstance(column, Ragged):
                columns[name] = Ragged.from_list([column[row] for row in rows])
            else:
                columns[name] = column[rows]
        columns["example"] = np.arange(len(rows))
        return replace(self.features, columns=columns, num_examples=len(rows))

    def describe(self) -> str:
        """One line for people."""
        lengths, tokens = self.lengths, self.tokens.values
        return (
            f"{self.name}: {len(lengths)} rows of {lengths.mean():.1f} tokens (sd {lengths.std():.1f}, at most "
            f"{lengths.max()}), {len(np.unique(tokens))} of {self.vocab_size} vocabulary rows; {self.origin}"
        )


def draw_workload(name: str, vocab_size: int, *, rows: int = 0, longest: int = 0) -> Workload:
    """Draws the rows of a law."""
    law, generator = LAWS[name], np.random.default_rng(0)
    count, most = rows or law.rows, min(law.longest, longest or law.longest)
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
    origin = (
        f"drawn: log-normal lengths and Zipf's law, with the means and the {pieces} pieces of {law.source}"
    )
    features = Features(law.kind, columns, ("en",), count, "")
    return Workload(name, origin, features, law.num_labels, most, vocab_size, vocab_size - 1)


def find_workload(
    name: str,
    shape: str,
    data_root: Path | None,
    encoder: str | None,
    max_length: int,
    settings: Settings,
) -> Workload:
    """Returns the rows of a law, or a task's training rows in the vocabulary of the encoder's tokenizer."""
    if shape not in SHAPES:
        raise ConfigError(f"There is no shape {shape!r}.", where="--shape", fix=nearest(shape, SHAPES))
    if name in LAWS:
        return draw_workload(name, SHAPES[shape].vocab_size, longest=max_length)
    if data_root is None or encoder is None:
        fix = f"{nearest(name, LAWS)}; or a task's name, with --data_root and --encoder"
        raise ConfigError(f"There is no law of lengths {name!r}.", where="--lengths", fix=fix)
    source = DataSource(data_root, settings.data.source, settings.data.kinds, settings.data.skip_budget)
    task = with_labels(get_task(name), source)
    if task.kind not in KINDS:
        what = f"{name} is a task of kind {task.kind}; there is no peer for it to be timed beside."
        fix = f"take a task of kind {', '.join(KINDS)}, or one of {', '.join(LAWS)}"
        raise ConfigError(what, where="--lengths", fix=fix)
    chosen, tokenizer = hyperparameters_of(task, settings), load_tokenizer(encoder)
    length = max_length or chosen.max_length
    features = build_features(
        task.kind,
        {task.source_language: read_examples(task, "train", task.source_language, source)},
        tokenizer,
        FeatureSettings(length, chosen.max_query_length, chosen.stride),
        training=task.kind != "span",  # rows of span tasks for prediction have all columns
    )
    origin = f"train rows of {Path(encoder).name}'s tokenizer"
    vocab_size, mask_id = tokenizer.vocab_size, tokenizer.mask_id
    return Workload(name, origin, features, len(task.labels), length, vocab_size, mask_id)
