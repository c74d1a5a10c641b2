"""BUCC 2018: which sentences of two large pools are translations of each other? Mined without training.

The threshold is tuned on dev, for each language, and applied to test, which is reported. XTREME's test is the
original training set, its dev the original sample; ids are not unique texts.
"""

from stilts_jax.tasks.sources.retrieval import build_pools
from stilts_jax.tasks.spec import Hyperparameters, Source, Task, counts, files, names


def _layout(stem: str, splits: str) -> Source:
    roles = {"queries": f"{stem}.{{language}}", "candidates": f"{stem}.en", "gold": f"{stem}.gold"}
    return files(roles, splits=splits, build=build_pools)


TASK = Task(
    name="bucc",
    title="BUCC",
    kind="embed",
    languages=names("de fr ru zh"),
    retrieval="mining",
    hyperparameters={"paper": Hyperparameters(max_length=512)},
    counts={"test": counts("de:9580 fr:9086 ru:14435 zh:1899")},
    sources=(
        _layout("bucc2018/{language}-en.{split}", "dev test"),
        _layout("bucc2018/{language}-en/{language}-en.{split}", "dev:sample test:training"),
    ),
)
