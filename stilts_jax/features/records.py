"""Records that travel from text to the device, and rows put together of tokenized texts without a loop over rows."""

import errno
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, get_args

import numpy as np

from stilts_jax.checked import Checked, Range
from stilts_jax.files import naming
from stilts_jax.settings import LENGTH, POSITIVE
from stilts_jax.tasks.spec import KINDS, Example, Kind
from stilts_jax.tokenization import Tokenizer

IGNORE = -1  # a target that is not scored
PAIR_SPECIALS = 4  # <s> A </s></s> B </s>
SINGLE_SPECIALS = 2  # <s> A </s>
_BLOCK = 2**12  # rows that are copied at a time
_SAMPLE = 1000  # pictures whose pixels are looked at
_EXAMPLES = dict(zip(KINDS, get_args(Example), strict=True))


@dataclass(frozen=True)
class Ragged:
    """Sequences laid end to end: sequence i is ``values[offsets[i] : offsets[i + 1]]``, offsets int64 [N + 1]."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_list(cls, sequences: Sequence[Sequence[int] | np.ndarray], dtype: type = np.int32) -> "Ragged":
        """Lays ``sequences`` end to end."""
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in sequences], dtype=np.int64)])
        return cls(np.fromiter(chain.from_iterable(sequences), dtype, offsets[-1]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [N]"""
        return np.diff(self.offsets)


def create_table(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """Creates an array in a file that has its room on the disk, mapped."""
    with naming(path):
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    reserve(path)
    return array


def reserve(path: Path) -> None:
    """Takes the room of a file on its disk: if that were full, writing to a mapping would end the process silently."""
    with naming(path):
        try:
            with path.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except (AttributeError, OSError) as error:  # not every system and file system can
            if getattr(error, "errno", errno.ENOTSUP) not in (errno.EINVAL, errno.ENOTSUP):
                raise


@dataclass(frozen=True)
class Features:
    """The rows of one split of one task (all languages asked for), tokenized."""

    kind: Kind  # decides which columns there are; see ``stilts_jax.features.build``
    columns: Mapping[str, Any]  # arrays or Ragged, one entry a row each
    languages: tuple[str, ...]  # names behind the ``language`` column
    num_examples: int  # from which the rows came (windows make it smaller than the rows)
    pictures: str = ""  # the file of what is seen of them: an array [pictures, patches, width]
    # By language, place and reason of each row of the data that could not be used.
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def table(self) -> np.ndarray:
        """What is seen of pictures, mapped into memory."""
        return np.load(self.pictures, mmap_mode="r")

    @cached_property
    def sight(self) -> dict[str, Any]:
        """What a head has to know to look at the pictures: fields of `HeadConfig`, none where there are no pictures."""
        if not self.pictures:
            return {}
        several = max(1, int(self.columns["pictures"].lengths.max(initial=0)))
        found = {"pictures": several, "patches": self.table.shape[1], "patch_width": self.table.shape[2]}
        if self.table.dtype == np.uint8:
            pixels = self.table[:: -(-len(self.table) // _SAMPLE)]
            spread = max(float(pixels.std()), 1.0)  # a blank has none
            found |= {"pixel_mean": round(float(pixels.mean()), 3), "pixel_spread": round(spread, 3)}
        return found

    @property
    def visual_tokens(self) -> int:
        """Tokens that stand behind the text of each row."""
        return self.sight.get("pictures", 0) * self.sight.get("patches", 0)

    def __len__(self) -> int:
        return len(self.columns["example"])

    @cached_property
    def examples(self) -> dict[str, list[Example]]:
        """What ``keep_examples`` kept, by language: gold, ids, and the texts that answers are cut from."""
        column, make = self.columns["record"], _EXAMPLES[self.kind]
        found: dict[str, list[Example]] = {language: [] for language in self.languages}
        for row in np.flatnonzero(column.lengths).tolist():
            fields = json.loads(column[row].tobytes())
            found[self.languages[self.columns["language"][row]]].append(make(*map(_as_tuple, fields)))
        return found


def keep_examples(
    features: Features, examples: Mapping[str, Sequence[Any]], skipped: Mapping[str, Sequence[str]]
) -> Features:
    """Returns features that carry their examples, each in its first row: scoring never reads data again."""
    everything = list(chain.from_iterable(examples.values()))
    owners = np.asarray(features.columns["example"])
    texts = [b""] * len(owners)
    for row in np.flatnonzero(np.diff(owners, prepend=-1)).tolist():
        example = everything[owners[row]]
        text = json.dumps([getattr(example, name) for name in example.__slots__], ensure_ascii=False)
        texts[row] = text.encode("utf-8", "surrogatepass")
    offsets = np.concatenate([[0], np.cumsum(list(map(len, texts)), dtype=np.int64)])
    record = Ragged(np.frombuffer(b"".join(texts), np.uint8), offsets)
    return replace(features, columns={**features.columns, "record": record}, skipped=skipped)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Batch:
    """One step's input, the same on all hosts."""

    task: str  # whose head and loss it takes
    arrays: Mapping[str, np.ndarray]  # [B, ...], for the device; ``weight`` is 0 where a row only fills up
    rows: np.ndarray  # int64 [B], for the host: numbers in the task's features; -1 where a row only fills up


Columns = dict[str, np.ndarray | Ragged]


@dataclass(frozen=True)
class FeatureSettings(Checked):
    """The settings of a task that change its rows; part of the cache's key."""

    group: ClassVar[str] = ""
    # Of a row, specials included.
    max_length: Annotated[int, Range(PAIR_SPECIALS + 2, int(LENGTH.high))] = 256
    max_query_length: Annotated[int, POSITIVE] = 64  # of a question (span), or the first of a pair (embed)
    stride: Annotated[int, POSITIVE] = 128  # subwords from one window of a long context to the next (span)


class Segments(NamedTuple):
    """One stretch of ``values`` for each row, from ``starts`` on; rows of the same text share one."""

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def head(self, count: np.ndarray | int) -> "Segments":
        """Keeps the first ``count`` values of each."""
        return self._replace(lengths=np.minimum(self.lengths, count))

    def pick(self, rows: np.ndarray) -> "Segments":
        """Returns the stretches of ``rows``."""
        return self._replace(starts=self.starts[rows], lengths=self.lengths[rows])


class Work(NamedTuple):
    """What a featurizer is given besides the examples; without ``training``, columns that predictions need are made."""

    tokenizer: Tokenizer
    settings: FeatureSettings
    training: bool
    advance: Callable[[int], object]
    say: Callable[[str], None]

    def tokenize(self, *columns: Sequence[str]) -> list[Segments]:
        """Tokenizes columns of texts; each distinct text once."""
        unique, inverse = find_unique(text for column in columns for text in column)
        encoded = self.tokenizer.encode(unique, advance=self.advance)
        whole = Segments(encoded.ids, encoded.offsets[:-1], np.diff(encoded.offsets))
        borders = np.cumsum([len(column) for column in columns])[:-1]
        return [whole.pick(numbers) for numbers in np.split(inverse, borders)]


def find_unique(texts: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Returns the distinct texts in order of appearance, and for each text its number among them."""
    numbers: dict[str, int] = {}
    inverse = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64)
    return list(numbers), inverse


def join(*parts: Segments | int) -> Ragged:
    """Lays parts end to end, row by row; an int is one and the same value in every row."""
    lengths: Any = sum(1 if isinstance(part, int) else part.lengths for part in parts)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.empty(offsets[-1], np.int32)
    cursor = offsets[:-1].copy()
    for part in parts:
        if isinstance(part, int):
            values[cursor] = part
            cursor += 1
            continue
        for first in range(0, len(cursor), _BLOCK):  # the index arrays are several times what is copied
            some = slice(first, first + _BLOCK)
            lengths, inside = part.lengths[some], count_up(part.lengths[some])
            source = np.repeat(part.starts[some], lengths) + inside
            values[np.repeat(cursor[some], lengths) + inside] = part.values[source]
        cursor += part.lengths
    return Ragged(values, offsets)


def count_up(lengths: np.ndarray) -> np.ndarray:
    """Returns 0, 1, ... for the members of each group, all groups laid end to end."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
