"""easy-VQA: questions about one coloured shape on a picture of 64 x 64, thirteen answers, mostly yes or no.

The folders ``train`` and ``test`` of the release lie in ``easy_vqa``; one picture in twenty of train is kept to select.
"""

from typing import Any

from stilts_jax.tasks.sources.converters import share_of
from stilts_jax.tasks.sources.pictures import read_triples
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ClassifyExample, Hyperparameters, Task, files, names

_BELOW = "multimodal/"


def _convert(folder: str) -> Any:
    def convert(row: Row, labels: tuple[str, ...]) -> ClassifyExample:
        picture = f"{folder}/images/{row.take('image', int)}.png"
        label = row.label("answer", labels)
        return ClassifyExample(str(row.number), row["question"], None, label, (picture,))

    return convert


def _keep(example: ClassifyExample, split: str) -> bool:
    picture = example.pictures[0].removeprefix(_BELOW)  # the same split wherever the release lies
    return split == "test" or (share_of(picture) < 0.05) == (split == "dev")


TASK = Task(
    name="easy_vqa",
    title="easy-VQA",
    kind="classify",
    group="intermediate",
    reported="test",
    metric="open_accuracy",
    labels=names("circle green red gray yes teal black rectangle yellow triangle brown blue no"),
    pictures="seen",
    keep=_keep,
    # Three rows in four ask for yes or no, which the wording alone answers to a large part: as the rows come, little
    # is learnt from their pictures.
    hyperparameters={"paper": Hyperparameters(batch_size=32, epochs=5, max_length=64, label_alpha=0.5)},
    counts={"train": 36_634, "dev": 1_941, "test": 9_673},
    sources=tuple(
        files(f"{folder}/questions.json", _convert(folder), splits, read=read_triples)
        for root in ("easy_vqa", f"{_BELOW}easy_vqa")
        for folder, splits in ((f"{root}/train", "train dev"), (f"{root}/test", "test"))
    ),
)
