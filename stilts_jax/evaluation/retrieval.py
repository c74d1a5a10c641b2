"""Retrieval tasks: embed texts, search, and score: nearest neighbour (Tatoeba), mining (BUCC), rankings (LAReQA)."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from stilts_jax.errors import DataError
from stilts_jax.evaluation.evaluate import Evaluation
from stilts_jax.evaluation.metrics import METRICS, RANKING_DEPTH, MetricResult, name_items
from stilts_jax.evaluation.predict import Layer, predict
from stilts_jax.evaluation.search import Neighbours, find_neighbours, normalise
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.features.ragged import find_unique
from stilts_jax.model import Model
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.spec import EmbedExample, RetrievalSet, Task
from stilts_jax.tokenization import Tokenizer

Embed = Callable[[Sequence[str]], np.ndarray]
Scored = Mapping[tuple[str, str], float]


@jax.jit
def _sample_entries(params: Any) -> Any:
    """Takes 256 entries of every array, evenly spread."""

    def sample(array: jax.Array) -> jax.Array:
        places = np.linspace(0, max(array.size - 1, 0), 256, dtype=np.int64)
        return array[np.unravel_index(places, array.shape)]

    return jax.tree.map(sample, params)


@dataclass(frozen=True)
class Embedder:
    """Embeds texts; equal texts get equal vectors.

    Attributes:
        params: ``{"encoder"}`` or, with a head, ``{"encoder", "head"}``.
        max_length: tokens of a text at most, special ones included; a longer text loses its end.
        layer: without a head, whose states are averaged; None is 14 of 24, "all" gives every layer.
        head: name of a dual encoder's head; None averages.
        tokens_per_batch: padded tokens of a batch; 0: by the device.
        mesh: devices that share each batch; one device if None.
    """

    model: Model
    params: Mapping[str, Any]
    tokenizer: Tokenizer
    max_length: int = 512
    layer: Layer | None = None
    head: str | None = None
    tokens_per_batch: int = 0
    mesh: Mesh | None = None
    progress: Progress = SILENT

    @property
    def fingerprint(self) -> str:
        """A hash of all that the vectors depend on; of each weight, 256 entries stand for the whole."""
        what = (self.model, self.layer, self.head, self.max_length, self.tokenizer.fingerprint)
        digest = hashlib.blake2b(repr(what).encode(), digest_size=16)
        for sample in jax.tree.leaves(_sample_entries(dict(self.params))):
            digest.update(np.asarray(sample).tobytes())
        return digest.hexdigest()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D] (for all layers [N, L + 1, D])."""
        unique, numbers = find_unique(texts)
        if not unique:
            return np.zeros((0, self.model.encoder.hidden_size), np.float32)
        features = build_features(
            "embed",
            {"": [EmbedExample(str(number), text) for number, text in enumerate(unique)]},
            self.tokenizer,
            FeatureSettings(max_length=self.max_length),
            training=False,
            progress=self.progress,
        )
        rows = predict(
            self.model,
            self.params,
            features,
            head=self.head,
            layer=self.layer,
            tokens_per_batch=self.tokens_per_batch,
            length_multiple=16,
            mesh=self.mesh,
            progress=self.progress,
        )
        return rows["vectors"][numbers]


@dataclass(frozen=True)
class Pairs:
    """Mined pairs (int64 numbers of sources and targets), best first, each side in one pair at most."""

    source: np.ndarray
    target: np.ndarray
    score: np.ndarray


def score_margins(forward: Neighbours, backward: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """Ratio margins of the neighbours: ``cos(x, y) / ((mean of x's neighbours + mean of y's) / 2)``.

    Returns:
        float64 [N, k] for the sources' neighbours and [M, k] for the targets'; 0 where the means cancel out.
    """
    means = [side.values.mean(axis=1, dtype=np.float64) for side in (forward, backward)]

    def margins(found: Neighbours, own: np.ndarray, others: np.ndarray) -> np.ndarray:
        density = (own[:, None] + others[found.index]) / 2
        return np.divide(found.values, density, out=np.zeros(density.shape), where=density != 0)

    return margins(forward, *means), margins(backward, *means[::-1])


def pair_up(forward: Neighbours, backward: Neighbours) -> Pairs:
    """Mines pairs of both directions: the best target of each source and the best source of each target.

    They are accepted greedily from the best score down, one to one; among equal scores the smaller source number
    comes first, then the smaller target number. Pairs whose score is not positive are dropped.
    """
    if not forward.values.size:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    ahead, back = score_margins(forward, backward)
    sources, targets = np.arange(len(ahead)), np.arange(len(back))
    best_ahead, best_back = ahead.argmax(axis=1), back.argmax(axis=1)
    source = np.concatenate([sources, backward.index[targets, best_back]])
    target = np.concatenate([forward.index[sources, best_ahead], targets])
    score = np.concatenate([ahead[sources, best_ahead], back[targets, best_back]])
    order = np.lexsort((target, source, -score))
    free_source, free_target = bytearray(b"\1") * len(ahead), bytearray(b"\1") * len(back)
    accepted = []
    for candidate, x, y in zip(order.tolist(), source[order].tolist(), target[order].tolist()):
        if free_source[x] and free_target[y]:
            free_source[x] = free_target[y] = 0
            accepted.append(candidate)
    kept = np.array(accepted, np.int64)
    kept = kept[score[kept] > 0]
    return Pairs(source[kept], target[kept], score[kept])


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
    **options: Any,
) -> dict[tuple[str, str], float]:
    """Mines BUCC's sentences (texts by id), with vectors [N, D] in their order; options as for ``find_neighbours``.

    Each distinct text takes part once, with the embedding of its last occurrence; as in XTREME, a text that occurs
    under several ids is in no pair. Returns the score of each pair of ids, best first.
    """
    source_ids, source_rows = _group_by_text(source)
    target_ids, target_rows = _group_by_text(target)
    pairs = mine_pairs(source_vectors[source_rows], target_vectors[target_rows], k, **options)
    found = {}
    for x, y, score in zip(pairs.source.tolist(), pairs.target.tolist(), pairs.score.tolist()):
        if len(source_ids[x]) == len(target_ids[y]) == 1:
            found[source_ids[x][0], target_ids[y][0]] = score
    return found


def _group_by_text(texts: Mapping[str, str]) -> tuple[list[list[str]], list[int]]:
    """The ids of each distinct text, in order of first occurrence, and the row of its last."""
    ids: dict[str, list[str]] = {}
    last: dict[str, int] = {}
    for row, (identifier, text) in enumerate(texts.items()):
        ids.setdefault(text.strip(), []).append(identifier)
        last[text.strip()] = row
    return list(ids.values()), list(last.values())


def tune_threshold(scores: Scored, gold: Collection[tuple[str, str]]) -> tuple[float, float]:
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


def keep_above(scores: Scored, threshold: float) -> list[tuple[str, str]]:
    """The pairs that score at least ``threshold``, best first."""
    return [pair for pair, score in scores.items() if score >= threshold]


def retrieval_gold(task: Task, part: RetrievalSet) -> Any | None:
    """The gold of one language as the task's metric takes it; None where it is blanked."""
    if part.gold is None or task.retrieval == "ranking":
        return part.gold
    if task.retrieval == "mining":
        return {(query, right) for query, all_right in part.gold.items() for right in all_right}
    numbers = {candidate.id: number for number, candidate in enumerate(part.candidates)}
    return [numbers[part.gold[query.id][0]] if query.id in part.gold else -1 for query in part.queries]


def evaluate_retrieval(
    task: Task,
    sets: Mapping[str, RetrievalSet],
    embed: Embed,
    *,
    embed_queries: Embed | None = None,
    thresholds: Mapping[str, float] | None = None,
    neighbours: int = 4,
    **search: Any,
) -> Evaluation:
    """Embeds and scores one split of a retrieval task.

    Args:
        sets: by language.
        embed: makes vectors [N, D] of texts; see ``Embedder``.
        embed_queries: the same for queries, where they are cut at another length.
        thresholds: mining: by language, from dev; a language without one is left out of results and predictions.
            None (for dev itself) tunes each language's threshold on its own gold and puts it into its result's
            ``settings``; a dev set without gold gives none.
        neighbours: mining: k of the margin.
        **search: options of ``find_neighbours``.

    Returns:
        Predictions as metrics and submissions take them: line numbers, pairs of ids, or rankings.
    """
    if task.retrieval == "mining":
        mine = partial(mine_sentences, k=neighbours, **search)
        return _mine(task, sets, embed, embed_queries or embed, thresholds, mine)
    queries = _embed_together({name: part.queries for name, part in sets.items()}, embed_queries or embed)
    pools = {name: part.candidates for name, part in sets.items()}
    if task.shared_candidates and sets:
        shared = _embed_together(dict(list(pools.items())[:1]), embed)
        candidates = dict.fromkeys(sets, next(iter(shared.values())))
    else:
        candidates = _embed_together(pools, embed)
    choose = _choose_nearest if task.retrieval == "nearest" else _rank
    results, predictions = {}, {}
    for language, part in sets.items():
        predictions[language] = choose(part, queries[language], candidates[language], search)
        gold = retrieval_gold(task, part)
        if gold is not None:
            result = METRICS[task.metric](task, predictions[language], gold, language)
            results[language] = name_items(result, [query.id for query in part.queries])
    return Evaluation(results, predictions)


def _embed_together(parts: Mapping[str, Sequence[EmbedExample]], embed: Embed) -> dict[str, np.ndarray]:
    """Embeds the texts of all languages in one stream; vectors of length one by language."""
    vectors = normalise(embed([example.text for part in parts.values() for example in part]))
    borders = np.cumsum([len(part) for part in parts.values()])[:-1]
    return dict(zip(parts, np.split(vectors, borders)))


def _choose_nearest(
    part: RetrievalSet, queries: np.ndarray, candidates: np.ndarray, search: Mapping[str, Any]
) -> list[int]:
    if not len(candidates) and len(queries):
        raise DataError("There are no candidates to choose from.", fix="look at the files of the task")
    return find_neighbours(queries, candidates, 1, **search)[0].index.reshape(-1).tolist()


def _rank(
    part: RetrievalSet, queries: np.ndarray, candidates: np.ndarray, search: Mapping[str, Any]
) -> dict[str, list[str]]:
    names = [candidate.id for candidate in part.candidates]
    # A name may stand for several candidates (an entity described in two languages): its best place counts.
    spare = 1 if len(set(names)) == len(names) else 4
    found = find_neighbours(queries, candidates, RANKING_DEPTH * spare, **search)[0]
    return {
        query.id: list(dict.fromkeys(names[place] for place in row))[:RANKING_DEPTH]
        for query, row in zip(part.queries, found.index)
    }


def _mine(
    task: Task,
    sets: Mapping[str, RetrievalSet],
    embed: Embed,
    embed_queries: Embed,
    thresholds: Mapping[str, float] | None,
    mine: Callable[..., Scored],
) -> Evaluation:
    results: dict[str, MetricResult] = {}
    predictions: dict[str, list[tuple[str, str]]] = {}
    for language, part in sets.items():  # one by one: pools may be large
        gold = retrieval_gold(task, part)
        known = bool(gold) if thresholds is None else language in thresholds
        if not known:
            continue  # there is nothing that a threshold could come from
        left, right = ({one.id: one.text for one in side} for side in (part.queries, part.candidates))
        scores = mine(left, right, embed_queries(list(left.values())), embed(list(right.values())))
        threshold = tune_threshold(scores, gold or ())[0] if thresholds is None else thresholds[language]
        predictions[language] = keep_above(scores, threshold)
        if gold is not None:
            result = METRICS[task.metric](task, predictions[language], gold, language)
            results[language] = replace(result, settings={"threshold": threshold})
    return Evaluation(results, predictions)


def sweep_layers(
    task: Task,
    sets: Mapping[str, RetrievalSet],
    embedder: Embedder,
    *,
    thresholds: Sequence[Mapping[str, float]] | None = None,
    **options: Any,
) -> list[Evaluation]:
    """Evaluates a retrieval task at every layer, from the embeddings (0) to the last, in one pass a language.

    Choosing a layer by these scores is a choice on target languages. ``thresholds`` of mining are each layer's;
    they and the options are those of ``evaluate_retrieval``, the embedder's layer and head are not used.
    """
    everything = replace(embedder, layer="all", head=None)
    found: list[Evaluation] = [Evaluation({}, {}) for _ in range(embedder.model.encoder.num_layers + 1)]
    for language, part in sets.items():  # vectors of all layers of all languages may not fit into memory
        sides = [everything([one.text for one in texts]) for texts in (part.queries, part.candidates)]
        for layer, before in enumerate(found):
            queries, candidates = (side[:, layer] for side in sides)
            here = evaluate_retrieval(
                task,
                {language: part},
                _already(candidates),
                embed_queries=_already(queries),
                thresholds=None if thresholds is None else thresholds[layer],
                **options,
            )
            found[layer] = Evaluation(
                {**before.results, **here.results}, {**before.predictions, **here.predictions}
            )
    return found


def _already(vectors: np.ndarray) -> Embed:
    return lambda texts: vectors
