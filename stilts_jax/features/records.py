"""The records that travel from text to the device: ragged columns, features of one kind, batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stilts_jax.tasks.spec import Kind

PAD_ID = 1  # XLM-R's <pad>; <s> is 0, </s> is 2, <unk> is 3
IGNORE = -1  # a target that is not scored


@dataclass(frozen=True)
class Ragged:
    """Sequences of unequal length laid end to end.

    Attributes:
        values: [sum of lengths]
        offsets: int64 [N + 1]; sequence i is ``values[offsets[i]:offsets[i + 1]]``.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_list(cls, sequences: Sequence[Sequence[int] | np.ndarray], dtype: type = np.int32) -> "Ragged":
        """Lays ``sequences`` end to end."""
        offsets = np.zeros(len(sequences) + 1, np.int64)
        np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
        values = np.empty(offsets[-1], dtype)
        for index, sequence in enumerate(sequences):
            values[offsets[index] : offsets[index + 1]] = sequence
        return cls(values, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [N]"""
        return np.diff(self.offsets)


@lru_cache(maxsize=32)
def open_table(path: str) -> np.ndarray:
    """Returns what a model sees of pictures, mapped into memory."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class Features:
    """The rows of one split of one task (all languages asked for), tokenized.

    Attributes:
        kind: decides which columns there are; see ``stilts_jax.features.build``.
        columns: by name; all have one entry a row.
        languages: names behind the ``language`` column.
        num_examples: how many examples the rows came from (windows make it smaller than the rows).
        fingerprint: hash of data bytes, tokenizer, task version and settings.
        pictures: the file of what a model sees of pictures, an array [pictures, patches, width] to which the column
            ``pictures`` points; empty where there are none.
    """

    kind: Kind
    columns: Mapping[str, np.ndarray | Ragged]
    languages: tuple[str, ...]
    num_examples: int
    fingerprint: str
    pictures: str = ""

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Pictures that a row has at most, patches of each, and numbers of a patch; zeros where there are none."""
        if not self.pictures:
            return 0, 0, 0
        column = self.columns["pictures"]
        assert isinstance(column, Ragged)
        _, patches, width = open_table(self.pictures).shape
        return max(1, int(column.lengths.max(initial=0))), patches, width

    @property
    def visual_tokens(self) -> int:
        """Tokens that stand behind the text of each row."""
        pictures, patches, _ = self.picture_shape
        return pictures * patches

    def __len__(self) -> int:
        return len(self.columns["example"])


@dataclass(frozen=True)
class Batch:
    """One step's input, the same on all hosts.

    Attributes:
        task: whose head and loss it takes.
        arrays: what goes to the device; leading axis B. ``weight`` [B] is 0 in rows that only fill up.
        rows: int64 [B], row numbers in the task's features; -1 where a row only fills up. Stays on the host.
    """

    task: str
    arrays: Mapping[str, np.ndarray]
    rows: np.ndarray
