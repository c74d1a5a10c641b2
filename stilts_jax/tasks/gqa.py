"""GQA: questions about scenes, made from scene graphs; balanced questions, one answer each.

``gqa/trainval_ans2label.json`` is an object from each answer to its number (1,842 of them in IGLUE). The pictures are
``gqa/images/NUMBER.jpg``, or ``gqa/images.zip``.
"""

from dataclasses import replace

from stilts_jax.tasks.sources.pictures import answer_gqa, read_by_id
from stilts_jax.tasks.spec import files
from stilts_jax.tasks.vqa_v2 import TASK as VQA

_PATHS = "gqa/{split}_balanced_questions.json gqa/questions1.2/{split}_balanced_questions.json"

TASK = replace(
    VQA,
    name="gqa",
    title="GQA",
    reported="test",
    labels_file="gqa/trainval_ans2label.json",
    metric="accuracy",
    counts={"train": 943_000, "dev": 132_062, "test": 12_578},
    sources=(files(_PATHS, answer_gqa, "train dev:val test:testdev", read=read_by_id),),
)
