"""X-CSQA: CommonsenseQA in sixteen languages, trained on the English original. Labels of test are not published."""

from stilts_jax.tasks import commonsenseqa
from stilts_jax.tasks.spec import Task, files, names

_PATHS = "xcsqa/{language}/{split}.jsonl X-CSQA/{language}/{split}.jsonl"

TASK = Task(
    name="xcsqa",
    title="X-CSQA",
    kind="choice",
    languages=names("ar de en es fr hi it ja nl pl pt ru sw ur vi zh"),
    aligned=True,
    train_on=("commonsenseqa",),
    reported="dev",
    hyperparameters=commonsenseqa.TASK.hyperparameters,
    counts={"dev": 1_000},
    sources=(files(_PATHS, commonsenseqa.released, "dev test", codes={"ja": "jap"}),),
)
