"""Evaluates retrieval tasks: nearest neighbour (Tatoeba), mining (BUCC), rankings (LAReQA, Mewsli-X)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stilts_jax.errors import ConfigError
from stilts_jax.evaluation.embed import Embedder
from stilts_jax.evaluation.evaluate import Evaluation
from stilts_jax.evaluation.gold import retrieval_gold
from stilts_jax.evaluation.metrics import METRICS, RANKING_DEPTH, MetricResult, name_items
from stilts_jax.evaluation.mining import Duplicates, keep_above, mine_sentences, tune_threshold
from stilts_jax.evaluation.retrieval import find_nearest, normalise, rank_candidates
from stilts_jax.tasks.spec import EmbedExample, RetrievalSet, Task

Embed = Callable[[Sequence[str]], np.ndarray]


def evaluate_retrieval(
    task: Task,
    sets: Mapping[str, RetrievalSet],
    embed: Embed,
    *,
    embed_queries: Embed | None = None,
    thresholds: Mapping[str, float] | None = None,
    neighbours: int = 4,
    duplicates: Duplicates = "xtreme",
    **search: Any,
) -> Evaluation:
    """Embeds and scores one split of a retrieval task.

    Args:
        task: says how it is scored.
        sets: by language.
        embed: makes vectors [N, D] of texts; see ``Embedder``.
        embed_queries: the same for queries, where they are cut at another length.
        thresholds: mining: by language, from dev; a language without one is left out of results and predictions.
            None (for dev itself) tunes each language's threshold on its own gold and puts it into its result's
            ``settings``; a dev set without gold gives none.
        neighbours: mining: k of the margin.
        duplicates: mining: see ``mine_sentences``.
        **search: options of ``find_neighbours``.

    Returns:
        Predictions as metrics and submissions take them: line numbers, pairs of ids, or rankings.
    """
    of_queries = embed_queries or embed
    if task.retrieval == "mining":
        return _mine(task, sets, embed, of_queries, thresholds, neighbours, duplicates, search)
    if task.retrieval not in ("nearest", "ranking"):
        raise ConfigError(f"{task.name} is no retrieval task.", where=f"task {task.name}")
    queries = _embed_together([(name, part.queries) for name, part in sets.items()], of_queries)
    if task.shared_candidates and sets:
        pool = next(iter(sets.values())).candidates
        shared = normalise(embed([candidate.text for candidate in pool]))
        candidates = dict.fromkeys(sets, shared)
    else:
        candidates = _embed_together([(name, part.candidates) for name, part in sets.items()], embed)
    choose = _choose_nearest if task.retrieval == "nearest" else _rank
    results, predictions = {}, {}
    for language, part in sets.items():
        predictions[language] = choose(part, queries[language], candidates[language], search)
        gold = retrieval_gold(task, part)
        if gold is not None:
            result = METRICS[task.metric](task, predictions[language], gold, language)
            results[language] = name_items(result, [query.id for query in part.queries])
    return Evaluation(results, predictions)


def _embed_together(
    parts: Sequence[tuple[str, Sequence[EmbedExample]]], embed: Embed
) -> dict[str, np.ndarray]:
    """Embeds the texts of all languages in one stream; vectors of length one by language."""
    vectors = normalise(embed([example.text for _, part in parts for example in part]))
    borders = np.cumsum([len(part) for _, part in parts])[:-1]
    return {name: block for (name, _), block in zip(parts, np.split(vectors, borders))}


def _choose_nearest(
    part: RetrievalSet, queries: np.ndarray, candidates: np.ndarray, search: Mapping[str, Any]
) -> list[int]:
    return find_nearest(queries, candidates, **search).tolist()


def _rank(
    part: RetrievalSet, queries: np.ndarray, candidates: np.ndarray, search: Mapping[str, Any]
) -> dict[str, list[str]]:
    names = [candidate.id for candidate in part.candidates]
    # A name may stand for several candidates (an entity described in two languages): its best place counts.
    spare = 1 if len(set(names)) == len(names) else 4
    rankings = rank_candidates(queries, candidates, names, RANKING_DEPTH * spare, **search)
    return {
        query.id: list(dict.fromkeys(ranking))[:RANKING_DEPTH]
        for query, ranking in zip(part.queries, rankings)
    }


def _mine(
    task: Task,
    sets: Mapping[str, RetrievalSet],
    embed: Embed,
    embed_queries: Embed,
    thresholds: Mapping[str, float] | None,
    neighbours: int,
    duplicates: Duplicates,
    search: Mapping[str, Any],
) -> Evaluation:
    results: dict[str, MetricResult] = {}
    predictions: dict[str, list[tuple[str, str]]] = {}
    for language, part in sets.items():  # one by one: pools may be large
        gold = retrieval_gold(task, part)
        known = bool(gold) if thresholds is None else language in thresholds
        if not known:
            continue  # there is nothing that a threshold could come from
        scores = mine_sentences(
            {example.id: example.text for example in part.queries},
            {example.id: example.text for example in part.candidates},
            embed_queries([example.text for example in part.queries]),
            embed([example.text for example in part.candidates]),
            k=neighbours,
            duplicates=duplicates,
            **search,
        )
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

    Choosing a layer by these scores is a choice on target languages.

    Args:
        task: says how it is scored.
        sets: by language.
        embedder: makes vectors of texts; its ``layer`` and ``head`` are not used.
        thresholds: mining: each layer's, as for ``evaluate_retrieval``.
        **options: as for ``evaluate_retrieval``.
    """
    layers = embedder.model.encoder.num_layers + 1
    everything = replace(embedder, layer="all", head=None)
    found: list[tuple[dict, dict]] = [({}, {}) for _ in range(layers)]
    for language, part in sets.items():  # vectors of all layers of all languages may not fit into memory
        sides = {
            id(texts): everything([example.text for example in texts])
            for texts in (part.queries, part.candidates)
        }
        for layer, (results, predictions) in enumerate(found):
            vectors = iter((sides[id(part.queries)][:, layer], sides[id(part.candidates)][:, layer]))
            one = {language: part}
            evaluation = evaluate_retrieval(
                task,
                one,
                lambda _: next(vectors),  # noqa: B023
                thresholds=None if thresholds is None else thresholds[layer],
                **options,
            )
            results.update(evaluation.results)
            predictions.update(evaluation.predictions)
    return [Evaluation(results, predictions) for results, predictions in found]
