"""Mines translated sentences from any two text files: what ``stilts mine`` does.

Embeddings are written to disk in chunks, with a manifest that holds a digest of each chunk, so that a run that was
killed continues after the last good chunk. Memory holds the texts, some twenty numbers a text, the chunk that is
embedded and a tile of similarities.
"""

import hashlib
import io
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.errors import DataError
from stilts_jax.evaluation.retrieval import Embedder, pair_up
from stilts_jax.evaluation.search import Precision, find_neighbours, normalise
from stilts_jax.features.records import create_table
from stilts_jax.files import replacing, write_json
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources.rows import read_bytes

_FORMAT = 2


def read_sentences(path: Path) -> tuple[list[str], str]:
    """The distinct lines of a text file that are not blank, and a hash of its bytes; a tab becomes a space."""
    content, distinct = read_bytes(path), dict[str, None]()
    for number, line in enumerate(io.BytesIO(content), start=1):
        try:
            distinct[line.decode().strip(" \t\r\n").replace("\t", " ")] = None
        except UnicodeDecodeError as error:
            what, where = f"Byte {error.start + 1} of the line is not UTF-8.", f"{path}:{number}"
            raise DataError(what, where=where, fix="convert the file to UTF-8") from error
    distinct.pop("", None)
    if not distinct:
        raise DataError("The file has no sentences.", where=str(path), fix="write one a line")
    return list(distinct), hashlib.blake2b(content, digest_size=16).hexdigest()


def embed_texts(
    texts: list[str], fingerprint: str, embedder: Embedder, path: Path, chunk: int, progress: Progress
) -> np.ndarray:
    """Embeds texts, ``chunk`` at once, into the file ``path``, going on where an earlier run stopped.

    A manifest beside it (``.json``) has the digest of each chunk that is done. Returns float32 [N, D] of length one,
    memory-mapped.
    """
    manifest, shape = path.with_suffix(".json"), (len(texts), embedder.model.encoder.hidden_size)
    wanted = {"format": _FORMAT, "text": fingerprint, "embedder": embedder.fingerprint}
    wanted |= {"shape": list(shape), "chunk": chunk}
    mapped, digests = None, list[str]()
    with suppress(OSError, ValueError, KeyError, AttributeError, TypeError):  # nothing there that can be used
        found = json.loads(manifest.read_bytes())
        digests = list(found.pop("digests"))
        if found == wanted and not path.is_symlink():
            mapped = np.lib.format.open_memmap(path, mode="r+")
    if mapped is None or mapped.shape != shape or mapped.dtype != np.float32:
        path.unlink(missing_ok=True)  # a link that lies there is not followed
        mapped, digests = create_table(path, np.float32, shape), []
    chunks = [slice(start, min(start + chunk, len(texts))) for start in range(0, len(texts), chunk)]
    sound = [_digest(mapped[rows]) == digest for rows, digest in zip(chunks, digests)]
    digests = digests[: [*sound, False].index(False)]
    done = min(len(digests) * chunk, len(texts))
    with progress.track(f"embedding {path.stem}", total=len(texts), unit="lines", start=done) as bar:
        for rows in chunks[len(digests) :]:
            mapped[rows] = normalise(embedder(texts[rows]))
            mapped.flush()  # before the manifest says that they are there
            digests.append(_digest(mapped[rows]))
            write_json(manifest, {**wanted, "digests": digests})
            bar.advance(rows.stop - rows.start)
    return mapped


def _digest(rows: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(rows).data, digest_size=16).hexdigest()


def mine_files(
    embedder: Embedder,
    source: Path,
    target: Path,
    out: Path,
    *,
    k: int = 4,
    threshold: float = 0.0,
    precision: Precision = "float32",
    chunk: int = 32768,
    keep_embeddings: bool = False,
    progress: Progress = SILENT,
) -> int:
    """Writes the pairs of sentences of two text files (``score, source, target``), best first; returns their number.

    Blank lines take no part, equal lines of a file take part once, and each sentence is in one pair at most. The same
    call after a crash goes on with the embeddings in ``OUT.work``, which is removed at the end (unless they are kept).
    ``threshold`` is the least score of a pair that is written, ``chunk`` counts lines that are embedded at once.
    """
    folder = out.with_name(f"{out.name}.work")
    if folder.is_symlink():
        fix = "remove it, or name another --out"
        raise DataError("The work folder is a link.", where=str(folder), fix=fix)
    (left, left_print), (right, right_print) = read_sentences(source), read_sentences(target)
    progress.say(f"{source} and {target}: {len(left)} and {len(right)} distinct sentences")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    first = embed_texts(left, left_print, embedder, folder / "source.npy", chunk, progress)
    second = embed_texts(right, right_print, embedder, folder / "target.npy", chunk, progress)
    options: dict[str, Any] = {"precision": precision, "mesh": embedder.mesh, "progress": progress}
    pairs = pair_up(*find_neighbours(first, second, k, **options))
    kept = int((pairs.score >= threshold).sum())
    best = zip(*(column[:kept].tolist() for column in (pairs.score, pairs.source, pairs.target)))
    # Whole or not at all.
    with replacing(out) as partial, partial.open("x", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{score:.6f}\t{left[x]}\t{right[y]}\n" for score, x, y in best)
    if not keep_embeddings:
        del first, second
        shutil.rmtree(folder)
    progress.say(f"{out}: {kept} pairs")
    return kept
