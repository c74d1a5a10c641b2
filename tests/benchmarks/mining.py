"""How fast exact mining is here, beside its floor, and beside faiss where that is installed."""

import time
from typing import Any

import jax
import numpy as np

from stilts_jax.bench import measure_matmul
from stilts_jax.evaluation.retrieval import pair_up
from stilts_jax.evaluation.search import Precision, find_neighbours, normalise
from stilts_jax.progress import SILENT, Progress


def make_vectors(count: int, dimension: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of unit vectors; every second target is a noisy copy of a source."""
    generator = np.random.default_rng(seed)
    source = normalise(generator.standard_normal((count, dimension), dtype=np.float32))
    target = generator.standard_normal((count, dimension), dtype=np.float32)
    target[::2] = source[::2] + 0.03 * target[::2]
    return source, normalise(target)


def _search_faiss(
    faiss: Any, queries: np.ndarray, database: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    index = faiss.IndexFlatIP(database.shape[1])
    index.add(database)
    return index.search(queries, k)


def benchmark_mining(
    count: int = 20_000,
    dimension: int = 1024,
    k: int = 4,
    *,
    precision: Precision = "float32",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measures the search for k neighbours in both directions, and the mining behind it.

    faiss searches its exact flat index both ways with the same k, on the same cores, in the same run.

    Args:
        precision: of the search; see ``find_neighbours``.

    Returns:
        Seconds; ``floor_seconds``: of one product of all pairs at the device's own rate; ``ratio``: ours
        divided by faiss's (absent without faiss); ``agreement``: the share of equal neighbours.
    """
    source, target = make_vectors(count, dimension)
    # Compiles whole tiles and those at the edge.
    whole = 4097 if jax.default_backend() == "cpu" else 16385
    find_neighbours(source[:whole], target[:whole], k, precision=precision)
    began = time.perf_counter()
    forward, backward = find_neighbours(source, target, k, precision=precision, progress=progress)
    searched = time.perf_counter()
    pairs = pair_up(forward, backward)
    mined = time.perf_counter()
    rate = measure_matmul(precision, precision=jax.lax.Precision.HIGHEST)
    measured: dict[str, Any] = {
        "count": count,
        "dimension": dimension,
        "k": k,
        "precision": precision,
        "search_seconds": searched - began,
        "mine_seconds": mined - searched,
        "pairs": len(pairs),
        "floor_seconds": 2.0 * count * count * dimension / rate,
        "matmul": rate,
    }
    try:
        import faiss
    except ImportError:
        return measured
    began = time.perf_counter()
    _, there = _search_faiss(faiss, source, target, k)
    _, here = _search_faiss(faiss, target, source, k)
    measured["faiss_seconds"] = time.perf_counter() - began
    measured["ratio"] = measured["search_seconds"] / measured["faiss_seconds"]
    same = np.concatenate([(there == forward.index).ravel(), (here == backward.index).ravel()])
    measured["agreement"] = float(same.mean())
    measured["faiss_version"] = faiss.__version__
    return measured
