"""XLM-R's tokenizer: a thin record around the fast one of ``transformers``.

Ids follow fairseq: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, pieces behind them. Every other part of the package
relies on these, so a tokenizer of another kind is refused.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stilts_jax.errors import EncoderError, RecordError
from stilts_jax.files import cache_root, read_record, write_record

CLS_ID, PAD_ID, SEP_ID, UNK_ID, FIRST_PIECE_ID = range(5)
VOCABULARY_FILES = ("tokenizer.json", "sentencepiece.bpe.model")  # one of them is enough
OTHER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_SPECIAL = {"<s>": CLS_ID, "<pad>": PAD_ID, "</s>": SEP_ID, "<unk>": UNK_ID}
_CHUNK = 2048  # texts a call: enough to keep all threads busy, few enough to bound the memory of encodings
_SURROGATES = re.compile("[\ud800-\udfff]")


class Encoded(NamedTuple):
    """Texts as subwords, laid end to end: text i is ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: np.ndarray  # int32 [S]
    offsets: np.ndarray  # int64 [N + 1]
    starts: np.ndarray | None = None  # int32 [S], where the subword begins in its text, if asked for
    ends: np.ndarray | None = None  # int32 [S], likewise


class Tokenizer:
    """A fast XLM-R tokenizer of the folder ``source``; make it with ``load_tokenizer``.

    The vocabulary is read on first use, and its size is remembered: a run whose features are in the cache never waits
    for it. ``fingerprint`` is a hash of its files.
    """

    def __init__(self, source: str, fingerprint: str) -> None:
        self.source, self.fingerprint = source, fingerprint

    @cached_property
    def _fast(self) -> Any:
        # Never a class with vocab_file=...: that builds a vocabulary of five tokens in silence.
        from transformers import AutoTokenizer

        fix = "copy the tokenizer's files and config.json of an XLM-R encoder there, or name its folder"
        try:
            fast = AutoTokenizer.from_pretrained(self.source)
        except Exception as error:  # the library raises OSError, ValueError, KeyError and its own
            raise EncoderError(f"the tokenizer can't be read: {error}", where=self.source, fix=fix) from error
        found = {name: fast.convert_tokens_to_ids(name) for name in _SPECIAL}
        sound = fast.is_fast and found == _SPECIAL and fast.mask_token_id is not None
        if not sound or len(fast) <= FIRST_PIECE_ID + 1:
            has = f"of {_SPECIAL} it has {found}, and {len(fast)} pieces in all"
            raise EncoderError(f"this is not an XLM-R tokenizer: {has}", where=self.source, fix=fix)
        fast.backend_tokenizer.no_truncation()  # files may ask for either
        fast.backend_tokenizer.no_padding()
        return fast

    @cached_property
    def _known(self) -> dict[str, int]:
        # Of a vocabulary that was read before: XLM-R's takes four seconds.
        path = cache_root() / "tokenizers" / f"{self.fingerprint}.json"
        with suppress(OSError, RecordError):
            return read_record(path)
        known = {"vocab_size": len(self._fast), "mask_id": self._fast.mask_token_id}
        with suppress(OSError):
            write_record(path, known)
        return known

    @property
    def vocab_size(self) -> int:
        """How many ids there are, ``<mask>`` included."""
        return self._known["vocab_size"]

    @property
    def mask_id(self) -> int:
        return self._known["mask_id"]

    @cached_property
    def space_id(self) -> int:
        """The id of the piece that is only a word's beginning, ``▁``."""
        return self._fast.convert_tokens_to_ids("▁")

    def check_fits(self, vocab_size: int) -> None:
        """Raises unless an encoder with ``vocab_size`` rows has a row for every id."""
        if self.vocab_size > vocab_size:
            what = f"the tokenizer has {self.vocab_size} pieces, the encoder's embedding {vocab_size} rows"
            raise EncoderError(what, where=self.source, fix="use the tokenizer that came with the encoder")

    def encode(
        self, texts: Sequence[str], *, characters: bool = False, advance: Callable[[int], Any] | None = None
    ) -> Encoded:
        """Splits texts into subwords, without special tokens, on all cores.

        What looks like a special token in a text (``</s>``, ``<mask>``) becomes ``<unk>``: it must not act as one. Lone
        surrogates count as U+FFFD. ``characters`` asks also where each subword stands, as the tokenizer says it (see
        ``features.span`` for what is wrong with that); ``advance`` is called with the number of texts done.
        """
        backend = self._fast.backend_tokenizer
        encode = backend.encode_batch if characters else backend.encode_batch_fast  # fast: no offsets
        ids, spans, lengths = [np.zeros(0, np.int32)], [np.zeros((0, 2), np.int32)], [0]
        for first in range(0, len(texts), _CHUNK):
            chunk = list(texts[first : first + _CHUNK])
            try:
                encodings = encode(chunk, add_special_tokens=False)
            except TypeError:  # a lone surrogate has no UTF-8
                chunk = [_SURROGATES.sub("\ufffd", text) for text in chunk]
                encodings = encode(chunk, add_special_tokens=False)
            lengths += map(len, encodings)
            ids.append(np.fromiter(chain.from_iterable(one.ids for one in encodings), np.int32))
            if characters:
                pairs = chain.from_iterable(chain.from_iterable(one.offsets for one in encodings))
                spans.append(np.fromiter(pairs, np.int32).reshape(-1, 2))
            if advance:
                advance(len(chunk))
        found, offsets = np.concatenate(ids), np.cumsum(lengths, dtype=np.int64)
        found[(found < UNK_ID) | (found == self.mask_id)] = UNK_ID
        both = np.concatenate(spans)
        places = [np.ascontiguousarray(both[:, side]) for side in (0, 1)] if characters else []
        return Encoded(found, offsets, *places)

    def spell(self, text: str) -> list[str]:
        """Returns the pieces of a text."""
        return self._fast.backend_tokenizer.encode(text, add_special_tokens=False).tokens


def tokenizer_files(folder: Path) -> list[Path]:
    """Returns the tokenizer's files in a folder; raises where there is no vocabulary."""
    found = [folder / name for name in VOCABULARY_FILES + OTHER_FILES if (folder / name).is_file()]
    if not found or found[0].name not in VOCABULARY_FILES:
        what = f"The folder has no tokenizer: neither {' nor '.join(VOCABULARY_FILES)}."
        raise EncoderError(what, where=str(folder), fix="copy the tokenizer's files beside config.json")
    return found


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Finds the tokenizer in a folder; one that isn't XLM-R's is an EncoderError on first use."""
    digest = hashlib.sha256()
    for path in tokenizer_files(Path(folder)):
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return Tokenizer(str(folder), digest.hexdigest())
