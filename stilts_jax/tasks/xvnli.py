"""XVNLI: does a picture of Flickr30k entail, contradict or say nothing about a sentence? Five languages (IGLUE).

English trains (``xvnli/annotations/en/train.jsonl``) and selects; the pictures are ``flickr30k/NUMBER.jpg``.
Rows without agreement (14 of 1,164 in test) are left out; IGLUE counts them as wrong.
"""

from stilts_jax.tasks.mnli import LABELS
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ClassifyExample, Hyperparameters, Task, files, names


def _convert(row: Row, labels: tuple[str, ...]) -> ClassifyExample | None:
    if row.get("gold_label") == "-":
        return None
    picture = f"flickr30k/{row.id('Flikr30kID').partition('.')[0]}.jpg"  # as the release spells it
    label = row.label("gold_label", labels)
    return ClassifyExample(row.id("pairID"), row["sentence2"], None, label, (picture,))


TASK = Task(
    name="xvnli",
    title="XVNLI",
    kind="classify",
    languages=names("ar en es fr ru"),
    split_languages={"dev": ("en",)},
    aligned=True,
    labels=LABELS,
    pictures="seen",
    hyperparameters={"paper": Hyperparameters(2e-5, 128, 10, max_length=80)},
    sources=(files("xvnli/{language}/{split}.jsonl xvnli/annotations/{language}/{split}.jsonl", _convert),),
)
