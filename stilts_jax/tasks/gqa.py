"""GQA: questions about scenes, made from scene graphs; balanced questions, one answer each.

``gqa/trainval_ans2label.json`` is an object from each answer to its number (1,842 of them in IGLUE). The pictures are
``gqa/images/NUMBER.jpg``, or ``gqa/images.zip``.
"""

from stilts_jax.tasks.sources.questions import answer_gqa, read_by_id
from stilts_jax.tasks.spec import Task, files
from stilts_jax.tasks.vqa_v2 import SETTINGS

LABELS_FILE = "gqa/trainval_ans2label.json"
_FILE = "{split}_balanced_questions.json"

TASK = Task(
    name="gqa",
    title="GQA",
    kind="classify",
    group="intermediate",
    reported="test",
    labels_file=LABELS_FILE,
    pictures="seen",
    hyperparameters={"paper": SETTINGS},
    counts={"train": 943_000, "dev": 132_062, "test": 12_578},
    sources=(
        files(
            f"gqa/{_FILE} gqa/questions1.2/{_FILE}", answer_gqa, "train dev:val test:testdev", read=read_by_id
        ),
    ),
)
