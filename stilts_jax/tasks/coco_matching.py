"""Image-text matching on COCO: does a caption belong to its picture? Every second one is that of another picture."""

from typing import Any

from stilts_jax.tasks import coco_captions as captions
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ClassifyExample, Task


def _convert(part: str) -> Any:
    def convert(row: Row, labels: tuple[str, ...]) -> ClassifyExample:
        own, picture = row.number % 2 == 0, f"coco/{part}/{row['picture']}"
        return ClassifyExample(row.id("id"), row["caption" if own else "other"], None, int(own), (picture,))

    return convert


TASK = Task(
    name="coco_matching",
    title="COCO matching",
    kind="classify",
    group="intermediate",
    labels=("no", "yes"),
    pictures="seen",
    hyperparameters=captions.TASK.hyperparameters,
    counts=captions.TASK.counts,
    sources=captions.caption_files(_convert),
)
