"""Retrieval: nearest neighbours (Tatoeba), mining (BUCC), rankings (LAReQA), and pairs of two files (`stilts mine`).

Mined files may be large: embeddings go to disk in chunks, so that a run that was killed goes on with the rows that are
not there. Memory holds the texts, some twenty numbers a text, the chunk that is embedded and a tile of similarities.
"""

import hashlib
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import cycle
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stilts_jax.checkpoint import lock_run
from stilts_jax.errors import DataError
from stilts_jax.evaluation.evaluate import Evaluation, find_gold
from stilts_jax.evaluation.metrics import RANKING_DEPTH
from stilts_jax.evaluation.predict import Layer, predict
from stilts_jax.evaluation.search import Neighbours, Precision, find_neighbours, normalise
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.records import create_table, find_unique, reserve
from stilts_jax.files import replacing
from stilts_jax.model import Model
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources.readers import read_lines
from stilts_jax.tasks.sources.rows import Problems
from stilts_jax.tasks.spec import EmbedExample, RetrievalSet, Task
from stilts_jax.tokenization import Tokenizer

Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Embedder:
    """Embeds texts as ``predict`` does, with or without a dual encoder's head; equal texts get equal vectors."""

    model: Model
    params: Mapping[str, Any]
    tokenizer: Tokenizer
    max_length: int = 512  # a text loses the tokens beyond it
    layer: Layer | None = None
    head: str | None = None
    tokens_per_batch: int = 0
    mesh: Mesh | None = None
    progress: Progress = SILENT

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that the vectors depend on; of each weight, 256 entries stand for the whole."""

        def sample(array: jax.Array) -> jax.Array:
            places = np.linspace(0, max(array.size - 1, 0), 256, dtype=np.int64)
            return array[np.unravel_index(places, array.shape)]

        what = (self.model, self.layer, self.head, self.max_length, self.tokenizer.fingerprint)
        digest = hashlib.blake2b(repr(what).encode(), digest_size=16)
        for entries in jax.tree.leaves(jax.jit(partial(jax.tree.map, sample))(dict(self.params))):
            digest.update(np.asarray(entries).tobytes())
        return digest.hexdigest()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D] (for several layers [N, L, D])."""
        unique, numbers = find_unique(texts)
        if not unique:
            return np.zeros((0, self.model.encoder.hidden_size), np.float32)
        examples = {"": [EmbedExample(str(number), text) for number, text in enumerate(unique)]}
        how = self.tokenizer, FeatureSettings(max_length=self.max_length)
        features = build_features("embed", examples, *how, training=False, progress=self.progress)
        options: dict[str, Any] = {"head": self.head, "layer": self.layer, "length_multiple": 16}
        options |= {"tokens_per_batch": self.tokens_per_batch, "mesh": self.mesh, "progress": self.progress}
        vectors = predict(self.model, self.params, features, **options)["vectors"]
        # Of several layers a copy is many gigabytes.
        return vectors if len(unique) == len(texts) else vectors[numbers]


def pair_up(forward: Neighbours, backward: Neighbours) -> list[tuple[int, int, float]]:
    """Mines (source, target, score) by ratio margin, of each source's best target and each target's best source.

    The margin is ``cos(x, y) / ((mean of x's neighbours + mean of y's) / 2)``, 0 where the means cancel out. Pairs are
    accepted greedily from the best score down, one to one; among equal scores the smaller source number comes first,
    then the smaller target number. Pairs whose score is not positive are dropped.
    """
    if not forward.values.size:
        return []
    means = [side.values.mean(axis=1, dtype=np.float64) for side in (forward, backward)]
    best, scores = [], []
    for found, own, others in ((forward, *means), (backward, *means[::-1])):
        density = (own[:, None] + others[found.index]) / 2
        margins = np.divide(found.values, density, out=np.zeros(density.shape), where=density != 0)
        chosen = margins.argmax(axis=1)[:, None]
        best.append(np.take_along_axis(found.index, chosen, axis=1)[:, 0])
        scores.append(np.take_along_axis(margins, chosen, axis=1)[:, 0])
    rows, columns = map(len, best)
    source, target = np.append(np.arange(rows), best[1]), np.append(best[0], np.arange(columns))
    score = np.concatenate(scores)
    order = np.lexsort((target, source, -score))
    order = order[score[order] > 0]
    free_source, free_target = bytearray(b"\1") * rows, bytearray(b"\1") * columns
    accepted = []
    for x, y, one in zip(*(column[order].tolist() for column in (source, target, score))):
        if free_source[x] and free_target[y]:
            free_source[x] = free_target[y] = 0
            accepted.append((x, y, one))
    return accepted


def mine_sentences(
    part: RetrievalSet, source_vectors: np.ndarray, target_vectors: np.ndarray, k: int = 4, **options: Any
) -> dict[tuple[str, str], float]:
    """Scores pairs of ids of BUCC's sentences (vectors [N, D] in their order), best first.

    Vectors are of length one. As in XTREME each distinct text takes part once, with the embedding of its last
    occurrence, and is in no pair if it occurs under several ids.
    """
    sides = []
    for texts, vectors in ((part.queries, source_vectors), (part.candidates, target_vectors)):
        rows: dict[str, list[int]] = {}  # of each distinct text
        for row, example in enumerate(texts):
            rows.setdefault(example.text.strip(), []).append(row)
        ids = [texts[of[0]].id if len(of) == 1 else "" for of in rows.values()]
        sides.append((ids, vectors[[of[-1] for of in rows.values()]]))
    (source_ids, left), (target_ids, right) = sides
    pairs = pair_up(*find_neighbours(left, right, k, **options))
    named = ((source_ids[x], target_ids[y], score) for x, y, score in pairs)
    return {(x, y): score for x, y, score in named if x and y}


def tune_threshold(scores: Mapping[tuple[str, str], float], gold: set[tuple[str, str]]) -> float:
    """Returns the threshold with the best F1, of equal ones the highest; 0 where no pair is right.

    It lies midway between the last score that is kept and the next smaller one, or at the last score where all are.
    """
    pairs = sorted(scores, key=lambda pair: -scores[pair])
    values = np.array([scores[pair] for pair in pairs], np.float64)
    right = np.cumsum([pair in gold for pair in pairs])
    if not pairs or not right[-1]:
        return 0.0
    f1 = 2 * right / (np.arange(1, len(pairs) + 1) + len(gold))
    f1[:-1][values[:-1] == values[1:]] = -1  # no threshold parts equal scores
    best = int(f1.argmax())
    last, following = (*values[best:], -np.inf)[:2]
    middle = (last + following) / 2  # that of two neighbouring numbers is rounded to one of them
    return float(middle if middle > following else last)


def evaluate_retrieval(
    task: Task,
    sets: Mapping[str, RetrievalSet],
    embed: Embed,
    *,
    embed_queries: Embed | None = None,
    thresholds: Sequence[Mapping[str, float]] | None = None,
    layers: int = 1,
    neighbours: int = 4,
    **search: Any,
) -> list[Evaluation]:
    """Embeds and scores one split of a retrieval task, at each of the ``layers`` whose vectors ``embed`` returns.

    Queries are embedded by ``embed_queries`` where they are cut at another length. Mining has ``neighbours``, k of the
    margin, and ``thresholds`` as in ``score_decoded`` for each layer. ``search`` are options of ``find_neighbours``.
    """
    found, mines = [Evaluation() for _ in range(layers)], task.retrieval == "mining"
    if mines:
        known = {one for one, part in sets.items() if part.gold}
        if thresholds is not None:
            known = set().union(*thresholds)
        sets = {language: part for language, part in sets.items() if language in known}
    embedded = _embed_sets(task, sets, embed, embed_queries or embed, layers)
    for (language, part), sides in zip(sets.items(), embedded):
        queries, names = ([one.id for one in side] for side in (part.queries, part.candidates))
        predicted: Any
        gold: Any = find_gold(task, part)
        for layer, here in enumerate(found):
            left, right = (side[:, layer] for side in sides)
            ids, threshold = queries, None
            if mines:
                given = None if thresholds is None else thresholds[layer]
                scores, ids = mine_sentences(part, left, right, neighbours, **search), []
                threshold = tune_threshold(scores, gold) if given is None else given[language]
                predicted = [pair for pair, score in scores.items() if score >= threshold]  # best first
            elif task.retrieval == "nearest":
                predicted = find_neighbours(left, right, 1, both=False, **search)[0].index[:, 0].tolist()
            else:
                predicted = _rank(queries, names, left, right, **search)
                ids = [*(gold or ())]  # in the order in which they are scored
            # LAReQA's questions are called by their language too.
            ids = [name.removesuffix(f"_{language}") for name in ids]
            here.add(task, language, predicted, gold, ids, threshold)
    return found


def _embed_sets(
    task: Task, sets: Mapping[str, RetrievalSet], embed: Embed, embed_queries: Embed, layers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields unit vectors [N, layers, D] of queries and candidates by language, in one stream unless that is large."""
    apart = task.retrieval == "mining" or layers > 1
    for group in [[part] for part in sets.values()] if apart else [list(sets.values())]:
        pools = [part.candidates for part in (group[:1] if task.shared_candidates else group)]
        sides = []
        for make, parts in ((embed_queries, [part.queries for part in group]), (embed, pools)):
            vectors = normalise(make([example.text for part in parts for example in part]))
            vectors = vectors.reshape(len(vectors), layers, vectors.shape[-1])
            sides.append(np.split(vectors, np.cumsum([len(part) for part in parts])[:-1]))
        yield from zip(sides[0], cycle(sides[1]))


def _rank(
    queries: Sequence[str], names: Sequence[str], left: np.ndarray, right: np.ndarray, **search: Any
) -> dict[str, list[str]]:
    """Ranks the names of candidates; one that stands for several (an entity in two languages) has its best place."""
    depth = RANKING_DEPTH * (1 if len(set(names)) == len(names) else 4)
    places = find_neighbours(left, right, depth, both=False, **search)[0].index
    ranked = np.array(names, object)[places].tolist()
    return {query: [*dict.fromkeys(row)][:RANKING_DEPTH] for query, row in zip(queries, ranked)}


def read_sentences(path: Path) -> list[str]:
    """The distinct lines of a text file that are not blank; a tab or a carriage return becomes a space."""
    lines = read_lines(path, Problems("text", fix="convert the file to UTF-8"))
    distinct = dict.fromkeys(text.strip(" \t\r\n").translate({9: " ", 13: " "}) for _, text in lines)
    distinct.pop("", None)
    if not distinct:
        raise DataError("The file has no sentences.", where=str(path), fix="write one a line")
    return list(distinct)


def embed_texts(texts: Sequence[str], embedder: Embedder, folder: Path, side: str, chunk: int) -> np.ndarray:
    """Embeds texts into a file that is named by them and the encoder; returns it, mapped: float32 [N, D] of length one.

    A second file has a checksum of each row. Of files that are there already, rows that do not fit theirs are made
    again: they were not written, not in whole, or are damaged.
    """
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()
    path = folder / f"{side}-{digest}-{embedder.fingerprint}.npy"
    sums = path.with_suffix(".sums")
    for other in set(folder.glob(f"{side}-*")) - {path, sums}:  # of other texts, or by another encoder
        other.unlink(missing_ok=True)
    mapped = _open_table(path, np.float32, (len(texts), embedder.model.encoder.hidden_size))
    written = _open_table(sums, np.uint32, (len(texts),))
    found = [_checksums(mapped[start : start + chunk]) for start in range(0, len(texts), chunk)]
    missing = np.flatnonzero(np.concatenate(found) != written)
    done = len(texts) - len(missing)
    with embedder.progress.track(f"embedding {side}", total=len(texts), unit="lines", start=done) as bar:
        for start in range(0, len(missing), chunk):
            rows = missing[start : start + chunk]
            vectors = normalise(embedder([texts[row] for row in rows]))
            mapped[rows], written[rows] = vectors, _checksums(vectors)
            bar.advance(len(rows))
    return mapped


def _open_table(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array that is kept in a file, mapped: that of an earlier run, or else zeros."""
    mapped = None
    with suppress(OSError, ValueError):  # nothing there that can be used
        if not path.is_symlink():
            mapped = np.lib.format.open_memmap(path, mode="r+")
    if mapped is None or mapped.shape != shape or mapped.dtype != dtype:
        path.unlink(missing_ok=True)  # a link that lies there is not followed
        return create_table(path, dtype, shape)
    reserve(path)  # it may have been refused when the file was made
    return mapped


def _checksums(vectors: np.ndarray) -> np.ndarray:
    """Returns a checksum of each row, uint32 [N]; that of zeros, as a new file has them, is not zero."""
    return np.fromiter(map(zlib.crc32, np.ascontiguousarray(vectors)), np.uint32, len(vectors))


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
) -> int:
    """Writes the pairs of sentences of two text files (``score, source, target``), best first; returns their number.

    The same call after a crash goes on with the embeddings in ``OUT.work``, which is removed at the end (unless they
    are kept). Pairs below ``threshold`` are not written; ``chunk`` counts lines that are embedded at once.
    """
    folder = out.with_name(f"{out.name}.work")
    if folder.is_symlink():
        fix = "remove it, or name another --out"
        raise DataError("The work folder is a link.", where=str(folder), fix=fix)
    left, right = read_sentences(source), read_sentences(target)
    embedder.progress.say(f"{source} and {target}: {len(left)} and {len(right)} distinct sentences")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock_run(folder):  # the same command typed twice would remove and rewrite what the other one reads
        first = embed_texts(left, embedder, folder, "source", chunk)
        second = embed_texts(right, embedder, folder, "target", chunk)
        search: Any = {"precision": precision, "mesh": embedder.mesh, "progress": embedder.progress}
        pairs = pair_up(*find_neighbours(first, second, k, **search))
        kept = [pair for pair in pairs if pair[2] >= threshold]
        # Whole or not at all.
        with replacing(out) as whole, whole.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{score:.6f}\t{left[x]}\t{right[y]}\n" for x, y, score in kept)
        if not keep_embeddings:
            del first, second
            shutil.rmtree(folder, ignore_errors=True)  # NFS keeps the lock's file until it is closed
    if not keep_embeddings:
        with suppress(OSError):
            folder.rmdir()
    return len(kept)
