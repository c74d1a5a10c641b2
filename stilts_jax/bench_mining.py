"""How fast exact mining is on this machine, beside faiss where that is installed.

Run it as ``python -m stilts_jax.bench_mining 20000 1024 4``.
"""

import sys
import time
from typing import Any

import numpy as np

from stilts_jax.evaluation.mining import pair_up
from stilts_jax.evaluation.retrieval import find_neighbours, normalise
from stilts_jax.progress import Progress


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


def benchmark_mining(count: int = 20_000, dimension: int = 1024, k: int = 4) -> dict[str, float]:
    """Measures the search for k neighbours in both directions, and the mining behind it.

    faiss searches its exact flat index both ways with the same k, on the same cores, in the same run.

    Returns:
        Seconds, and ``ratio``: ours divided by faiss's (absent without faiss); ``agreement``: the share of
        equal neighbours.
    """
    progress = Progress()
    source, target = make_vectors(count, dimension)
    find_neighbours(source[:4097], target[:4097], k)  # compiles whole tiles and those at the edge
    began = time.perf_counter()
    forward, backward = find_neighbours(source, target, k, progress=progress)
    searched = time.perf_counter()
    pairs = pair_up(forward, backward)
    mined = time.perf_counter()
    measured = {
        "search_seconds": searched - began,
        "mine_seconds": mined - searched,
        "pairs": float(len(pairs)),
    }
    operations = 2.0 * count * count * dimension
    progress.say(
        f"{count} x {count} x {dimension}, k={k}: {measured['search_seconds']:.1f} s both ways "
        f"({operations / measured['search_seconds'] / 1e9:.0f} GFLOP/s), {measured['mine_seconds']:.1f} s "
        f"for {len(pairs)} pairs"
    )
    try:
        import faiss
    except ImportError:
        progress.say("faiss is not installed: nothing to compare with")
        return measured
    began = time.perf_counter()
    _, there = _search_faiss(faiss, source, target, k)
    _, here = _search_faiss(faiss, target, source, k)
    measured["faiss_seconds"] = time.perf_counter() - began
    measured["ratio"] = measured["search_seconds"] / measured["faiss_seconds"]
    same = np.concatenate([(there == forward.index).ravel(), (here == backward.index).ravel()])
    measured["agreement"] = float(same.mean())
    progress.say(
        f"faiss {faiss.__version__}, flat index, both ways: {measured['faiss_seconds']:.1f} s; ratio "
        f"{measured['ratio']:.2f}; {100 * measured['agreement']:.3f} % of the neighbours are the same"
    )
    return measured


if __name__ == "__main__":
    benchmark_mining(*map(int, sys.argv[1:]))
