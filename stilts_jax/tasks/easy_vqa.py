"""easy-VQA: questions about one coloured shape on a picture of 64 x 64, thirteen answers, mostly yes or no.

The release has train and test; one picture in twenty of train, with all its questions, is kept for selection.
"""

from typing import Any

from stilts_jax.tasks.sources.converters import pick_label, share_of
from stilts_jax.tasks.sources.questions import read_triples
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ClassifyExample, Example, Hyperparameters, Task, files, names


def _convert(part: str) -> Any:
    def convert(row: Row, labels: tuple[str, ...]) -> ClassifyExample:
        picture = f"easy_vqa/{part}/images/{row.integer('image')}.png"
        label = pick_label(row, "answer", labels)
        return ClassifyExample(str(row.number), row["question"], None, label, (picture,))

    return convert


def _keep(example: Example, split: str) -> bool:
    assert isinstance(example, ClassifyExample)
    return split == "test" or (share_of(example.pictures[0]) < 0.05) == (split == "dev")


TASK = Task(
    name="easy_vqa",
    title="easy-VQA",
    kind="classify",
    group="intermediate",
    labels=names("circle green red gray yes teal black rectangle yellow triangle brown blue no"),
    pictures="seen",
    keep=_keep,
    hyperparameters={"paper": Hyperparameters(batch_size=32, epochs=5, max_length=64)},
    counts={"train": 36_634, "dev": 1_941, "test": 9_673},
    sources=(
        files("easy_vqa/train/questions.json", _convert("train"), "train dev", read=read_triples),
        files("easy_vqa/test/questions.json", _convert("test"), "test", read=read_triples),
    ),
)
