"""COCO's captions as masked language modelling: what is masked in a caption can be seen on its picture."""

from typing import Any

from stilts_jax.tasks.sources.questions import read_captions
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import Hyperparameters, Source, Task, TextExample, files


def _convert(part: str) -> Any:
    def convert(row: Row, labels: tuple[str, ...]) -> TextExample:
        return TextExample(row.id("id"), row["caption"], (f"coco/{part}/{row['picture']}",))

    return convert


def caption_files(split: str, part: str, convert: Any) -> Source:
    """Returns the captions of one part of COCO."""
    name = f"captions_{part}.json"
    return files(f"coco/annotations/{name} coco/{name}", convert, split, read=read_captions)


TASK = Task(
    name="coco_captions",
    title="COCO captions",
    kind="mlm",
    group="intermediate",
    pictures="seen",
    reported="dev",
    hyperparameters={"paper": Hyperparameters(1e-4, 256, 10, max_length=64)},
    counts={"train": 414_113, "dev": 202_654},
    sources=tuple(
        caption_files(split, part, _convert(part))
        for split, part in (("train", "train2014"), ("dev", "val2014"))
    ),
)
