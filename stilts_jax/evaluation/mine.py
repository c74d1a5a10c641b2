"""Mines translated sentences from any two text files: what ``stilts mine`` does.

Embeddings are written to disk in chunks, with a manifest that holds a digest of each chunk, so that a run that was
killed continues after the last good chunk. Memory is bounded by the chunk of texts that is embedded at once, by the
tile of similarities, and by some fifty bytes per line.
"""

import hashlib
import json
import os
import shutil
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.errors import DataError
from stilts_jax.evaluation.retrieval import Embedder, pair_up
from stilts_jax.evaluation.search import Precision, find_neighbours, normalise
from stilts_jax.files import naming, replacing, write_json
from stilts_jax.progress import SILENT, Progress

_FORMAT = 2
_BLANK = b" \t\r\n"
_WRITTEN = 65536  # pairs whose texts are in memory at once


@dataclass(frozen=True)
class Lines:
    """The distinct lines of a text file that are not blank, read when they are asked for.

    ``begin`` and ``end`` are int64 [N], in bytes, of equal lines the first; ``fingerprint`` hashes the file's bytes.
    """

    path: Path
    begin: np.ndarray
    end: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.begin)

    def read(self, numbers: np.ndarray | slice) -> list[str]:
        """The texts of some lines, in the order asked for; a tab becomes a space."""
        texts = []
        with self.path.open("rb") as file:
            for begin, end in zip(self.begin[numbers].tolist(), self.end[numbers].tolist()):
                file.seek(begin)
                texts.append(file.read(end - begin).strip(_BLANK).decode().replace("\t", " "))
        return texts


def index_lines(path: Path) -> Lines:
    """Finds the distinct lines of a file without keeping their texts."""
    begins, ends, keys = array("q"), array("q"), bytearray()
    digest, position = hashlib.blake2b(digest_size=16), 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                digest.update(line)
                if text := line.strip(_BLANK):
                    try:
                        text.decode()
                    except UnicodeDecodeError as error:
                        what, where = f"Byte {error.start + 1} of the line is not UTF-8.", f"{path}:{number}"
                        raise DataError(what, where=where, fix="convert the file to UTF-8") from error
                    begins.append(position)
                    ends.append(position + len(line))
                    keys += hashlib.blake2b(text, digest_size=16).digest()
                position += len(line)
    except OSError as error:
        raise DataError(f"The file can't be read: {error.strerror}.", where=str(path)) from error
    if not keys:
        raise DataError("The file has no sentences.", where=str(path), fix="write one a line")
    first = np.sort(np.unique(np.frombuffer(keys, "V16"), return_index=True)[1])
    return Lines(path, np.array(begins, np.int64)[first], np.array(ends, np.int64)[first], digest.hexdigest())


def embed_lines(lines: Lines, embedder: Embedder, path: Path, chunk: int, progress: Progress) -> np.ndarray:
    """Embeds lines, ``chunk`` at once, into the file ``path``, going on where an earlier run stopped.

    A manifest beside it (``.json``) says which rows are done. Returns float32 [N, D] of length one, memory-mapped.
    """
    manifest, shape = path.with_suffix(".json"), (len(lines), embedder.model.encoder.hidden_size)
    wanted = {"format": _FORMAT, "text": lines.fingerprint, "embedder": embedder.fingerprint}
    wanted |= {"shape": list(shape), "chunk": chunk}
    mapped, digests = _open_done(manifest, path, wanted)
    if mapped is None:
        path.unlink(missing_ok=True)  # a link that lies there is not followed
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        # All space is taken now: a full disk under a memory-mapped file would kill the process.
        with naming(path), path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    done = min(len(digests) * chunk, len(lines))
    with progress.track(f"embedding {lines.path.name}", total=len(lines), unit="lines", start=done) as bar:
        for start in range(done, len(lines), chunk):
            rows = slice(start, min(start + chunk, len(lines)))
            mapped[rows] = normalise(embedder(lines.read(rows)))
            mapped.flush()  # before the manifest says that they are there
            digests.append(_digest(mapped[rows]))
            write_json(manifest, {**wanted, "digests": digests})
            bar.advance(rows.stop - start)
    return mapped


def _digest(rows: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(rows).data, digest_size=16).hexdigest()


def _open_done(manifest: Path, vectors: Path, wanted: dict[str, Any]) -> tuple[np.memmap | None, list[str]]:
    """What an earlier run of the same work has left: its vectors, and the digests of its chunks up to a damaged one."""
    try:
        found = json.loads(manifest.read_bytes())
        digests = found.pop("digests")
        if vectors.is_symlink() or found != wanted or not isinstance(digests, list):
            return None, []
        mapped = np.lib.format.open_memmap(vectors, mode="r+")
    except (OSError, ValueError, KeyError, AttributeError):
        return None, []  # nothing there, or nothing that can be used
    if list(mapped.shape) != wanted["shape"] or mapped.dtype != np.float32:
        return None, []
    size = wanted["chunk"]
    for number, digest in enumerate(digests):
        if _digest(mapped[number * size : (number + 1) * size]) != digest:
            return mapped, digests[:number]
    return mapped, digests


def mine_files(
    embedder: Embedder,
    source: str | Path,
    target: str | Path,
    out: str | Path,
    *,
    k: int = 4,
    threshold: float = 0.0,
    precision: Precision = "float32",
    chunk: int = 32768,
    keep_embeddings: bool = False,
    progress: Progress = SILENT,
) -> int:
    """Mines sentence pairs from two text files, one sentence a line, and writes ``score, source, target``, best first.

    Blank lines take no part, equal lines of a file take part once, and each sentence is in one pair at most. The same
    call after a crash goes on with the embeddings in ``OUT.work``, which is removed at the end (unless they are kept).

    ``threshold`` is the least score of a pair that is written, ``chunk`` counts lines that are embedded at once.
    Returns how many pairs were written.
    """
    out = Path(out)
    folder = out.with_name(f"{out.name}.work")
    if folder.is_symlink():
        fix = "remove it, or name another --out"
        raise DataError("The work folder is a link.", where=str(folder), fix=fix)
    left, right = (index_lines(Path(path)) for path in (source, target))
    for lines in (left, right):
        progress.say(f"{lines.path}: {len(lines)} distinct sentences")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    first = embed_lines(left, embedder, folder / "source.npy", chunk, progress)
    second = embed_lines(right, embedder, folder / "target.npy", chunk, progress)
    options: dict[str, Any] = {"precision": precision, "mesh": embedder.mesh, "progress": progress}
    pairs = pair_up(*find_neighbours(first, second, k, **options))
    kept = int((pairs.score >= threshold).sum())
    # Whole or not at all, without holding all texts.
    with replacing(out) as partial, partial.open("x", encoding="utf-8", newline="\n") as file:
        for start in range(0, kept, _WRITTEN):
            rows = slice(start, min(start + _WRITTEN, kept))
            texts = left.read(pairs.source[rows]), right.read(pairs.target[rows])
            scores = pairs.score[rows].tolist()
            file.writelines(f"{score:.6f}\t{one}\t{other}\n" for score, one, other in zip(scores, *texts))
    if not keep_embeddings:
        del first, second
        shutil.rmtree(folder)
    progress.say(f"{out}: {kept} pairs")
    return kept
