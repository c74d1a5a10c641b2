"""COCO captions (``coco/annotations``) as masked language modelling on pictures (``coco/train2014``, ``val2014``)."""

from typing import Any

from stilts_jax.tasks.sources.pictures import read_captions
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ClassifyExample, Hyperparameters, Task, TextExample, files

_FILES = "coco/annotations/captions_{0}.json coco/captions_{0}.json"


def _convert(part: str) -> Any:
    def convert(row: Row, labels: tuple[str, ...]) -> TextExample | ClassifyExample:
        picture = (f"coco/{part}/{row['picture']}",)
        if not labels:
            return TextExample(row.id("id"), row["caption"], picture)
        own = row.number % 2 == 0  # else the caption is that of another picture (``coco_matching``)
        return ClassifyExample(row.id("id"), row["caption" if own else "other"], None, int(own), picture)

    return convert


TASK = Task(
    name="coco_captions",
    title="COCO captions",
    kind="mlm",
    version=3,
    pictures="seen",
    hyperparameters={"paper": Hyperparameters(1e-4, 256, 10, max_length=64)},
    counts={"train": 414_113, "dev": 202_654},
    sources=tuple(
        files(_FILES.format(part), _convert(part), split, read=read_captions)
        for split, part in (("train", "train2014"), ("dev", "val2014"))
    ),
)
