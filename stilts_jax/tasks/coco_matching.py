"""Image-text matching on ``coco_captions``: is a caption its picture's? Every second one is that of another picture."""

from dataclasses import replace

from stilts_jax.tasks.coco_captions import TASK as CAPTIONS

TASK = replace(
    CAPTIONS,
    name="coco_matching",
    title="COCO matching",
    kind="classify",
    version=3,
    metric="",
    labels=("no", "yes"),
)
