"""Image-text matching on COCO: does a caption belong to its picture? Every second one is that of another picture."""

from typing import Any

from stilts_jax.tasks.coco_captions import TASK as CAPTIONS
from stilts_jax.tasks.coco_captions import caption_files
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ClassifyExample, Task


def _convert(part: str) -> Any:
    def convert(row: Row, labels: tuple[str, ...]) -> ClassifyExample:
        swapped = row.number % 2
        text = row["other" if swapped else "caption"]
        return ClassifyExample(row.id("id"), text, None, int(not swapped), (f"coco/{part}/{row['picture']}",))

    return convert


TASK = Task(
    name="coco_matching",
    title="COCO matching",
    kind="classify",
    group="intermediate",
    labels=("no", "yes"),
    pictures="seen",
    reported="dev",
    hyperparameters=CAPTIONS.hyperparameters,
    counts=CAPTIONS.counts,
    sources=tuple(
        caption_files(split, part, _convert(part))
        for split, part in (("train", "train2014"), ("dev", "val2014"))
    ),
)
