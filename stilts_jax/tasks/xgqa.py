"""xGQA: the balanced test-dev questions of GQA in eight languages, with English answers; trained on GQA."""

from stilts_jax.tasks.gqa import LABELS_FILE
from stilts_jax.tasks.sources.questions import answer_gqa, read_by_id
from stilts_jax.tasks.spec import Task, files, names
from stilts_jax.tasks.vqa_v2 import SETTINGS

_TEST = "testdev_balanced_questions_{language}.json"
_DEV = "xgqa/{language}.dev.json xgqa/few_shot/{language}/dev.json multimodal/xgqa/{language}.dev.json"

TASK = Task(
    name="xgqa",
    title="xGQA",
    kind="classify",
    languages=names("bn de en id ko pt ru zh"),
    labels_file=LABELS_FILE,
    pictures="seen",
    train_on=("gqa",),
    hyperparameters={"paper": SETTINGS},
    counts={"test": 12_578},
    sources=(
        files(f"xgqa/{_TEST} xgqa/zero_shot/{_TEST}", answer_gqa, "test", read=read_by_id),
        files(_DEV, answer_gqa, "dev", read=read_by_id),
    ),
)
