"""X-CSQA: CommonsenseQA in sixteen languages, split anew and trained on its own English rows; test labels are hidden.

Its dev set is of the original's training and dev sets: what was trained on ``commonsenseqa`` has seen most of it.
"""

from stilts_jax.tasks import commonsenseqa
from stilts_jax.tasks.spec import Task, files, names

_PATHS = "xcsqa/{language}/{split}.jsonl X-CSQA/{language}/{split}.jsonl"

TASK = Task(
    name="xcsqa",
    title="X-CSQA",
    kind="choice",
    languages=names("ar de en es fr hi it ja nl pl pt ru sw ur vi zh"),
    aligned=True,
    reported="dev",
    hyperparameters=commonsenseqa.TASK.hyperparameters,
    counts={"train": {"en": 8_888}, "dev": 1_000},
    sources=(files(_PATHS, commonsenseqa.released, codes={"ja": "jap"}),),
)
