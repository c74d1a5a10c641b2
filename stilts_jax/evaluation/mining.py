"""Bitext mining by the ratio margin: finds sentences of two collections that translate each other."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stilts_jax.errors import ConfigError
from stilts_jax.evaluation.retrieval import Neighbours, find_neighbours, normalise

Duplicates = Literal["xtreme", "all"]


@dataclass(frozen=True)
class Pairs:
    """Mined pairs, best first; each source and each target occurs in one pair at most.

    Attributes:
        source: int64 [P]
        target: int64 [P]
        score: float64 [P]
    """

    source: np.ndarray
    target: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.score)


def score_margins(forward: Neighbours, backward: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """Ratio margins of the neighbours: ``cos(x, y) / ((mean of x's neighbours + mean of y's) / 2)``.

    Returns:
        float64 [N, k] for the sources' neighbours and [M, k] for the targets'; 0 where the means cancel out.
    """
    of_sources = (
        forward.values.mean(axis=1, dtype=np.float64)
        if forward.values.size
        else np.zeros(len(forward.values))
    )
    of_targets = (
        backward.values.mean(axis=1, dtype=np.float64)
        if backward.values.size
        else np.zeros(len(backward.values))
    )

    def margins(found: Neighbours, own: np.ndarray, others: np.ndarray) -> np.ndarray:
        density = (own[:, None] + others[found.index]) / 2
        return np.divide(found.values, density, out=np.zeros(density.shape), where=density != 0)

    return margins(forward, of_sources, of_targets), margins(backward, of_targets, of_sources)


def pair_up(forward: Neighbours, backward: Neighbours) -> Pairs:
    """Mines pairs of both directions: the best target of each source and the best source of each target.

    They are accepted greedily from the best score down, one to one; among equal scores the smaller source number
    comes first, then the smaller target number. Pairs whose score is not positive are dropped.
    """
    ahead, back = score_margins(forward, backward)
    if not ahead.size:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    sources, targets = np.arange(len(ahead)), np.arange(len(back))
    best_ahead, best_back = ahead.argmax(axis=1), back.argmax(axis=1)
    source = np.concatenate([sources, backward.index[targets, best_back]])
    target = np.concatenate([forward.index[sources, best_ahead], targets])
    score = np.concatenate([ahead[sources, best_ahead], back[targets, best_back]])
    kept = _accept(source, target, np.lexsort((target, source, -score)), len(ahead), len(back))
    kept = kept[score[kept] > 0]
    return Pairs(source[kept], target[kept], score[kept])


def _accept(
    source: np.ndarray, target: np.ndarray, order: np.ndarray, sources: int, targets: int
) -> np.ndarray:
    """The greedy one-to-one choice along ``order``: indices into the candidates."""
    free_source, free_target = bytearray(b"\1") * sources, bytearray(b"\1") * targets
    kept = []
    for candidate, x, y in zip(order.tolist(), source[order].tolist(), target[order].tolist()):
        if free_source[x] and free_target[y]:
            free_source[x] = free_target[y] = 0
            kept.append(candidate)
    return np.array(kept, np.int64)


def mine_pairs(source: np.ndarray, target: np.ndarray, k: int = 4, **options: Any) -> Pairs:
    """Mines pairs from embeddings [N, D] and [M, D]; options as for ``find_neighbours``."""
    return pair_up(*find_neighbours(normalise(source), normalise(target), k, **options))


def mine_sentences(
    source: Mapping[str, str],
    target: Mapping[str, str],
    source_vectors: np.ndarray,
    target_vectors: np.ndarray,
    *,
    k: int = 4,
    duplicates: Duplicates = "xtreme",
    **options: Any,
) -> dict[tuple[str, str], float]:
    """Mines BUCC's sentences, of which some occur several times under different ids.

    Each distinct text takes part once, with the embedding of its last occurrence.

    Args:
        source: texts by id, in the order of ``source_vectors`` [N, D].
        target: likewise.
        source_vectors: embeddings.
        target_vectors: embeddings.
        k: neighbours that a margin looks at.
        duplicates: which ids a pair of texts gives where a text has several. "xtreme": none; "all": every
            combination.
        **options: as for ``find_neighbours``.

    Returns:
        The score of each pair of ids, best first.
    """
    if duplicates not in ("xtreme", "all"):
        raise ConfigError(f"duplicates={duplicates!r} is not possible.", fix="take xtreme or all")
    source_ids, source_rows = _group_by_text(source)
    target_ids, target_rows = _group_by_text(target)
    pairs = mine_pairs(source_vectors[source_rows], target_vectors[target_rows], k, **options)
    found: dict[tuple[str, str], float] = {}
    for x, y, score in zip(pairs.source.tolist(), pairs.target.tolist(), pairs.score.tolist()):
        single = len(source_ids[x]) == 1 and len(target_ids[y]) == 1
        if single or duplicates == "all":
            found.update({(left, right): score for left in source_ids[x] for right in target_ids[y]})
    return found


def _group_by_text(texts: Mapping[str, str]) -> tuple[list[list[str]], list[int]]:
    """The ids of each distinct text, in order of first occurrence, and the row of its last."""
    groups: dict[str, tuple[list[str], list[int]]] = {}
    for row, (identifier, text) in enumerate(texts.items()):
        ids, rows = groups.setdefault(text.strip(), ([], []))
        ids.append(identifier)
        rows.append(row)
    return [ids for ids, _ in groups.values()], [rows[-1] for _, rows in groups.values()]


def tune_threshold(
    scores: Mapping[tuple[str, str], float], gold: Collection[tuple[str, str]]
) -> tuple[float, float]:
    """Finds the threshold with the best F1: keep what scores at least as much.

    It lies midway between the last score that is kept and the next smaller one, or at the last score where
    all are kept. Equal scores stand or fall together; of equal F1 the higher threshold is taken.

    Returns:
        The threshold and its F1 in percent; (0, 0) where no pair is right.
    """
    right_pairs = set(gold)
    pairs = sorted(scores.items(), key=lambda item: -item[1])
    values = np.array([score for _, score in pairs], np.float64)
    right = np.cumsum([pair in right_pairs for pair, _ in pairs])
    if not len(pairs) or not right[-1]:
        return 0.0, 0.0
    f1 = 2 * right / (np.arange(1, len(pairs) + 1) + len(right_pairs))
    f1[:-1][values[:-1] == values[1:]] = -1  # no threshold parts equal scores
    best = int(f1.argmax())
    threshold = values[best] if best + 1 == len(values) else (values[best] + values[best + 1]) / 2
    return float(threshold), 100 * float(f1[best])


def keep_above(scores: Mapping[tuple[str, str], float], threshold: float) -> list[tuple[str, str]]:
    """The pairs that score at least ``threshold``, best first."""
    return [pair for pair, score in scores.items() if score >= threshold]
