"""The records that travel from text to the device: ragged columns, features of one kind, batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Features:
    """The rows of one split of one task (all languages asked for), tokenized.

    Attributes:
        kind: decides which columns there are; see ``stilts_jax.features.build``.
        columns: by name; all have one entry a row.
        languages: names behind the ``language`` column.
        num_examples: how many examples the rows came from (windows make it smaller than the rows).
        fingerprint: hash of data bytes, tokenizer, task version and settings.
    """

    kind: Kind
    columns: Mapping[str, np.ndarray | Ragged]
    languages: tuple[str, ...]
    num_examples: int
    fingerprint: str

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
