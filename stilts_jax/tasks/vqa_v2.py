"""VQA v2: questions about photographs of COCO, each answered by ten people.

``vqa_v2/trainval_ans2label.json`` is an object from each of the answers that a model chooses from to its number
(3,129 of them, normalised, are usual). What most people say trains, as far as it is among them; rows without such an
answer are dropped from training and count as wrong elsewhere.
"""

from stilts_jax.tasks.sources.questions import answer_vqa, read_vqa
from stilts_jax.tasks.spec import Hyperparameters, Source, Task, files


def _year(split: str, theirs: str) -> Source:
    convert = answer_vqa(f"coco/{theirs}/COCO_{theirs}_{{:012d}}.jpg")
    return files(f"vqa_v2/v2_*mscoco_{theirs}_*.json", convert, split, read=read_vqa)


TASK = Task(
    name="vqa_v2",
    title="VQA v2",
    kind="classify",
    group="intermediate",
    labels_file="vqa_v2/trainval_ans2label.json",
    metric="vqa_accuracy",
    pictures="seen",
    hyperparameters={"paper": Hyperparameters(4e-5, 256, 5, max_length=64)},  # IGLUE's for GQA
    counts={"train": 443_757, "dev": 214_354},
    sources=(_year("train", "train2014"), _year("dev", "val2014"), _year("test", "test2015")),
)
