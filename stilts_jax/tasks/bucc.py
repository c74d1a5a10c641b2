"""BUCC 2018: which sentences of two large pools are translations of each other? Mined without training.

The threshold is tuned on dev, for each language, and applied to test, which is reported. XTREME's test is the
original training set, its dev the original sample; ids are not unique texts.
"""

from collections.abc import Mapping
from pathlib import Path

from stilts_jax.tasks.sources.retrieval import read_identified, read_pairs
from stilts_jax.tasks.sources.rows import Problems
from stilts_jax.tasks.spec import Hyperparameters, Pools, RetrievalSet, Sources, Task, names


def _build(paths: Mapping[str, tuple[Path, ...]], language: str, problems: Problems) -> RetrievalSet:
    queries = read_identified(paths["queries"][0], problems)
    candidates = read_identified(paths["candidates"][0], problems)
    if "gold" not in paths:
        return RetrievalSet(queries, candidates, None)
    return RetrievalSet(queries, candidates, read_pairs(paths["gold"][0], queries, candidates, problems))


def _roles(stem: str) -> Mapping[str, str]:
    return {"queries": f"{stem}.{{language}}", "candidates": f"{stem}.en", "gold": f"{stem}.gold"}


TASK = Task(
    name="bucc",
    version=1,
    kind="embed",
    group="retrieval",
    description="mining of translated sentences from two pools (BUCC 2018)",
    languages=names("de fr ru zh"),
    metric="bucc_f1",
    retrieval="mining",
    hyperparameters={"paper": Hyperparameters(max_length=512)},
    counts={"test": {"de": 9_580, "fr": 9_086, "ru": 14_435, "zh": 1_899}},
    sources=Sources(
        pools=(
            Pools(
                paths={split: _roles(f"bucc2018/{{language}}-en.{split}") for split in ("dev", "test")},
                build=_build,
            ),
            Pools(
                paths={
                    split: _roles(f"bucc2018/{{language}}-en/{{language}}-en.{name}")
                    for split, name in (("dev", "sample"), ("test", "training"))
                },
                build=_build,
            ),
        ),
    ),
)
