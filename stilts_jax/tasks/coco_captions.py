"""COCO's captions as masked language modelling: what is masked in a caption can be seen on its picture."""

from collections.abc import Callable
from typing import Any

from stilts_jax.tasks.sources.questions import read_captions
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import Hyperparameters, Source, Task, TextExample, files


def _convert(part: str) -> Any:
    def convert(row: Row, labels: tuple[str, ...]) -> TextExample:
        return TextExample(row.id("id"), row["caption"], (f"coco/{part}/{row['picture']}",))

    return convert


def caption_files(make: Callable[[str], Any]) -> tuple[Source, ...]:
    """Returns the captions of both parts of COCO; ``make`` returns a part's converter."""
    parts = {"train": "train2014", "dev": "val2014"}
    names = {split: f"captions_{part}.json" for split, part in parts.items()}
    return tuple(
        files(f"coco/annotations/{name} coco/{name}", make(parts[split]), split, read=read_captions)
        for split, name in names.items()
    )


TASK = Task(
    name="coco_captions",
    title="COCO captions",
    kind="mlm",
    pictures="seen",
    hyperparameters={"paper": Hyperparameters(1e-4, 256, 10, max_length=64)},
    counts={"train": 414_113, "dev": 202_654},
    sources=caption_files(_convert),
)
