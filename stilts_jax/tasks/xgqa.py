"""xGQA: the balanced test-dev questions of GQA in eight languages, with English answers; trained on GQA.

The pictures are GQA's.
"""

from dataclasses import replace

from stilts_jax.tasks.gqa import TASK as GQA
from stilts_jax.tasks.sources.pictures import answer_gqa, read_by_id
from stilts_jax.tasks.spec import files, names

_TEST = "testdev_balanced_questions_{language}.json"
_DEV = "xgqa/{language}.dev.json xgqa/few_shot/{language}/dev.json multimodal/xgqa/{language}.dev.json"

TASK = replace(
    GQA,
    name="xgqa",
    title="xGQA",
    group="classification",
    languages=names("bn de en id ko pt ru zh"),
    aligned=True,
    train_on=("gqa",),
    selection="",  # its dev files are for training on a few questions: they are of the very ones of test
    counts={"test": 12_578},
    sources=(
        files(f"xgqa/{_TEST} xgqa/zero_shot/{_TEST}", answer_gqa, "test", read=read_by_id),
        files(_DEV, answer_gqa, "dev", read=read_by_id),
    ),
)
