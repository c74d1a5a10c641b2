"""From examples to rows of one kind: flat token columns with offsets, without a Python loop over tokens.

They are cached: one Arrow file for each key, mapped into memory when read, and a manifest with its digest.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stilts_jax.errors import DataError, RecordError
from stilts_jax.features.records import (
    IGNORE,
    PAIR_SPECIALS,
    SINGLE_SPECIALS,
    Columns,
    Features,
    FeatureSettings,
    Ragged,
    Segments,
    Work,
    count_up,
    join,
)
from stilts_jax.features.span import build_span
from stilts_jax.files import digest_file, read_record, replacing, write_record
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources.files import hash_files
from stilts_jax.tasks.spec import Example, Kind, TagExample
from stilts_jax.tokenization import CLS_ID, SEP_ID, UNK_ID, Tokenizer

FEATURE_VERSION = 1  # raised when a featurizer changes rows; part of the keys of phases and of the cache
FORMAT = 3  # of the cache's files
# What a file in the cache that is no good raises.
_UNREADABLE = (DataError, RecordError, OSError, EOFError, ValueError, TypeError, KeyError, pa.ArrowException)
_DESCRIBED = [one.name for one in fields(Features) if one.name != "columns"]  # in its manifest
_MAX_SUBWORDS = 100  # a longer "word" (a URL, a line of dashes) becomes one <unk>


def build_features(
    kind: Kind,
    examples: Mapping[str, Sequence[Example]],
    tokenizer: Tokenizer,
    settings: FeatureSettings,
    *,
    training: bool,
    progress: Progress = SILENT,
) -> Features:
    """Tokenizes the examples of one split, all languages together; what is trained on has gold, and fewer columns."""
    everything = list(chain.from_iterable(examples.values()))
    with progress.track(f"tokenizing {kind}", unit="texts") as bar:
        work = Work(tokenizer, settings, training, bar.advance, progress.say)
        columns = {"example": np.arange(len(everything)), **FEATURIZERS[kind](everything, work)}
    language = np.repeat(np.arange(len(examples), dtype=np.int32), [*map(len, examples.values())])
    columns["language"] = language[np.asarray(columns["example"])]
    return Features(kind, columns, tuple(examples), len(everything))


def _build_classify(examples: Sequence[Any], work: Work) -> Columns:
    """Returns ``<s> A </s></s> B </s>``, or ``<s> A </s>`` where an example has one text; ``label``, and ``votes``."""
    length = work.settings.max_length
    paired = np.array([one.pair is not None for one in examples], bool)
    first, second = work.tokenize([one.text for one in examples], [one.pair or "" for one in examples])
    # The closed form of ``tokenizers``, which takes token by token from the end of the longer text: both keep half
    # where both are longer than half; an odd token goes to the longer one, to the second if they are equal.
    budget = length - PAIR_SPECIALS
    shorter, longer = np.minimum(first.lengths, second.lengths), np.maximum(first.lengths, second.lengths)
    shorter = np.minimum(shorter, np.maximum(budget // 2, budget - longer))
    longer = np.minimum(longer, budget - shorter)
    swap = first.lengths > second.lengths
    keep_first = np.where(swap, longer, shorter)
    keep_first = np.where(paired, keep_first, np.minimum(first.lengths, length - SINGLE_SPECIALS))
    second = second.head(np.where(swap, shorter, longer))
    separators = Segments(np.full(2, SEP_ID, np.int32), np.zeros_like(first.starts), 2 * paired)
    tokens = join(CLS_ID, first.head(keep_first), separators, second, SEP_ID)
    columns: Columns = {"tokens": tokens, "label": _labels(examples)}
    if work.training and any(example.votes for example in examples):
        columns["votes"] = Ragged.from_list([example.votes for example in examples])
    return columns


def _build_choice(examples: Sequence[Any], work: Work) -> Columns:
    """Returns ``<s> prompt </s></s> choice </s>`` for each choice, ``first_choice``, ``num_choices`` and ``label``.

    A prompt that is too long loses its beginning. Only a choice that is longer than a row by itself loses its end.
    """
    counts = np.array([len(one.choices) for one in examples], np.int64)
    every = [choice for one in examples for choice in one.choices]
    prompts, choices = work.tokenize([one.prompt for one in examples], every)
    budget = work.settings.max_length - PAIR_SPECIALS
    if too_long := int((choices.lengths > budget).sum()):
        work.say(f"{too_long} choices are longer than max_length and lose their end")
    choices = choices.head(budget)
    prompts = prompts.pick(np.repeat(np.arange(len(counts)), counts))
    kept = np.minimum(prompts.lengths, budget - choices.lengths)
    prompts = Segments(prompts.values, prompts.starts + prompts.lengths - kept, kept)
    return {
        "tokens": join(CLS_ID, prompts, SEP_ID, SEP_ID, choices, SEP_ID),
        "first_choice": np.cumsum(counts) - counts,
        "num_choices": counts.astype(np.int32),
        "label": _labels(examples),
    }


def _build_tag(examples: Sequence[TagExample], work: Work) -> Columns:
    """Columns ``tokens``, ``tags`` (IGNORE where gold is blanked) and ``word``, the latter two aligned with the tokens.

    A word without subwords, or with absurdly many, becomes one ``<unk>``, so that every word has exactly one
    first subword. A sentence that is too long goes on in the next row, at a word's border.
    """
    counts = np.array([len(example.words) for example in examples], np.int64)
    budget = work.settings.max_length - SINGLE_SPECIALS
    (words,) = work.tokenize([word for example in examples for word in example.words])
    odd = (words.lengths == 0) | (words.lengths > min(_MAX_SUBWORDS, budget))
    values, unknown = np.append(words.values, np.int32(UNK_ID)), len(words.values)
    words = Segments(values, np.where(odd, unknown, words.starts), np.where(odd, 1, words.lengths))
    # All words in reading order, laid end to end: a row is then one stretch of it.
    text = join(words)
    word_starts, sentence_starts = text.offsets, np.concatenate([[0], np.cumsum(counts)])
    tags, word = (np.full(len(text.values), IGNORE, np.int32) for _ in range(2))
    gold = [example.tags or [IGNORE] * len(example.words) for example in examples]
    tags[word_starts[:-1]] = np.fromiter(chain.from_iterable(gold), np.int32, len(text))
    word[word_starts[:-1]] = count_up(counts)

    pieces, starts = [], word_starts.tolist()
    for sentence, (begin, end) in enumerate(pairwise(sentence_starts.tolist())):
        while starts[end] - starts[begin] > budget:  # as many words as fit: none is longer than the budget
            stop = bisect_right(starts, starts[begin] + budget) - 1
            pieces.append((sentence, begin, stop))
            begin = stop
        pieces.append((sentence, begin, end))
    example, first, last = np.array(pieces, np.int64).reshape(-1, 3).T
    stretch = Segments(text.values, word_starts[first], word_starts[last] - word_starts[first])
    return {
        "example": example,
        "tokens": join(CLS_ID, stretch, SEP_ID),
        "tags": join(IGNORE, stretch._replace(values=tags), IGNORE),
        "word": join(IGNORE, stretch._replace(values=word), IGNORE),
    }


def _build_embed(examples: Sequence[Any], work: Work) -> Columns:
    """Returns ``<s> text </s>``, in training cut at ``max_query_length``, and the partner's as ``pair_tokens``."""
    length, texts = work.settings.max_length - SINGLE_SPECIALS, [example.text for example in examples]
    if not work.training:
        (first,) = work.tokenize(texts)
        return {"tokens": join(CLS_ID, first.head(length), SEP_ID)}
    first, second = work.tokenize(texts, [example.positive for example in examples])
    first = first.head(max(work.settings.max_query_length - SINGLE_SPECIALS, 1))
    second = second.head(length)
    return {"tokens": join(CLS_ID, first, SEP_ID), "pair_tokens": join(CLS_ID, second, SEP_ID)}


def _build_mlm(examples: Sequence[Any], work: Work) -> Columns:
    """Returns ``<s> chunk </s>``: a long line is cut into chunks of nearly equal length, an empty one gives no row."""
    (lines,) = work.tokenize([example.text for example in examples])
    chunks = -(-lines.lengths // (work.settings.max_length - SINGLE_SPECIALS))
    example = np.repeat(np.arange(len(examples)), chunks)
    number, total, parts = count_up(chunks), lines.lengths[example], chunks[example]
    begin, end = total * number // parts, total * (number + 1) // parts
    segments = Segments(lines.values, lines.starts[example] + begin, end - begin)
    return {"example": example, "tokens": join(CLS_ID, segments, SEP_ID)}


def _labels(examples: Sequence[Any]) -> np.ndarray:
    """int32 [N]; IGNORE where gold is blanked."""
    return np.array([IGNORE if one.label is None else one.label for one in examples], np.int32)


FEATURIZERS: Mapping[Kind, Callable[[Sequence[Any], Work], Columns]] = {
    "classify": _build_classify,
    "choice": _build_choice,
    "tag": _build_tag,
    "span": build_span,
    "embed": _build_embed,
    "mlm": _build_mlm,
}


def load_or_build(
    folder: Path, key_parts: Mapping[str, object], build: Callable[[], Features], progress: Progress = SILENT
) -> Features:
    """Returns the features of a key of plain values: from the cache, else built and put there, or a DataError."""
    about = {"format": FORMAT, "features": FEATURE_VERSION, "parts": dict(key_parts)}
    key = hashlib.sha256(json.dumps(about, sort_keys=True, allow_nan=False).encode()).hexdigest()
    data, manifest = folder / f"{key[:32]}.arrow", folder / f"{key[:32]}.json"
    try:
        return _load(data, manifest)
    except _UNREADABLE as error:
        if not isinstance(error, FileNotFoundError):
            progress.say(f"cached features are built again: {getattr(error, 'what', error)} ({data})")
    features = build()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Removed before the data file is rewritten, so that a stale manifest never describes new data.
        manifest.unlink(missing_ok=True)
        with replacing(data) as temporary:
            _write_arrow(temporary, features)
        described = {name: getattr(features, name) for name in _DESCRIBED}
        described["pictures"] = Path(features.pictures).name
        seen = hash_files([Path(features.pictures)]) if features.pictures else ""
        digests = {"sha256": digest_file(data), "seen": seen}
        write_record(manifest, about | {"key": key, **digests, "features": described})
    except OSError as error:
        what = f"features can't be written to the cache: {error.strerror or error}"
        fix = "make room, give permission or remove what stands there, or set data.cache to another folder"
        raise DataError(what, where=str(error.filename or folder), fix=fix) from error
    try:
        return _load(data, manifest)
    except _UNREADABLE:  # another process is just building the same
        return features


def _load(data: Path, manifest: Path) -> Features:
    record = read_record(manifest, FORMAT)
    if not data.is_file() or digest_file(data) != record["sha256"]:
        raise DataError("the file is not what its manifest says, or missing")
    with pa.memory_map(str(data)) as source:
        table = pa.ipc.open_file(source).get_batch(0)
    columns: dict[str, np.ndarray | Ragged] = {}  # views of the mapped file; nothing is copied
    for name, column in zip(table.schema.names, table.columns):
        if name == "tokens" and "first_choice" in table.schema.names:
            column = column.values  # lists of lists; ``first_choice`` has the borders
        columns[name] = _view(column) if isinstance(column, pa.LargeListArray) else column.to_numpy()
    described = {name: record["features"][name] for name in _DESCRIBED}
    described["languages"] = tuple(described["languages"])
    if described["pictures"]:
        seen = data.parent / described["pictures"]
        described["pictures"] = str(seen)
        if hash_files([seen]) != record["seen"]:  # once in a process: it may be gigabytes
            seen.unlink()  # so that it is not taken for good when all is made again
            raise DataError("what is seen of pictures is not what the manifest says")
    return Features(columns=columns, **described)


def _view(column: pa.LargeListArray) -> Ragged:
    return Ragged(column.values.to_numpy(), column.offsets.to_numpy())


def _write_arrow(path: Path, features: Features) -> None:
    columns = features.columns
    arrays = {
        name: pa.LargeListArray.from_arrays(pa.array(column.offsets), pa.array(column.values))
        if isinstance(column, Ragged)
        else pa.array(column)
        for name, column in columns.items()
    }
    if "first_choice" in columns:  # one list of sequences a row
        borders = np.append(columns["first_choice"], len(arrays["tokens"]))
        arrays["tokens"] = pa.LargeListArray.from_arrays(pa.array(borders), arrays["tokens"])
    batch = pa.record_batch(arrays)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
