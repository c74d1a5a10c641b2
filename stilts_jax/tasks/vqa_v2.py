"""VQA v2: questions about photographs (``coco/train2014``, ``val2014``, ``test2015``), each answered by ten people.

Questions and annotations lie in ``vqa_v2``, and ``trainval_ans2label.json``, an object from each of the answers that a
model chooses from to its number (3,129 of them, normalised, are usual). What most people say trains, as far as it is
among them; rows without such an answer are dropped from training and count as wrong elsewhere.
"""

from stilts_jax.tasks.sources.pictures import answer_vqa, read_vqa
from stilts_jax.tasks.spec import Hyperparameters, Task, files

TASK = Task(
    name="vqa_v2",
    title="VQA v2",
    kind="classify",
    group="intermediate",
    labels_file="vqa_v2/trainval_ans2label.json",
    metric="vqa_accuracy",
    pictures="seen",
    # IGLUE's for GQA, but for the length.
    hyperparameters={"paper": Hyperparameters(4e-5, 256, 5, max_length=64)},
    counts={"dev": 214_354},  # what trains depends on the answers that there are
    sources=tuple(
        files(f"vqa_v2/v2_*mscoco_{part}_*.json", answer_vqa(part), split, read=read_vqa)
        for split, part in (("train", "train2014"), ("dev", "val2014"), ("test", "test2015"))
    ),
)
