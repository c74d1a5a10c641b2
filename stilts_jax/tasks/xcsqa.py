"""X-CSQA: CommonsenseQA in sixteen languages, split anew and trained on its own English rows.

Test labels are hidden: its dev set is reported, and a tenth of the English training questions is set apart to select.
The dev set is of the original's training and dev sets: what was trained on ``commonsenseqa`` has seen most of it.
"""

from stilts_jax.tasks import commonsenseqa
from stilts_jax.tasks.sources.converters import share_of
from stilts_jax.tasks.spec import ChoiceExample, Task, files, names

_PATHS = "xcsqa/{language}/{split}.jsonl X-CSQA/{language}/{split}.jsonl"


def _keep(example: ChoiceExample, split: str) -> bool:
    return split == "test" or (share_of(example.id) < 0.1) == (split == "dev")


TASK = Task(
    name="xcsqa",
    title="X-CSQA",
    kind="choice",
    languages=names("ar de en es fr hi it ja nl pl pt ru sw ur vi zh"),
    version=2,
    aligned=True,
    split_languages={"dev": ("en",)},
    hyperparameters=commonsenseqa.TASK.hyperparameters,
    keep=_keep,
    counts={"test": 1_000},
    sources=(files(_PATHS, commonsenseqa.released, "train dev:train test:dev", codes={"ja": "jap"}),),
)
