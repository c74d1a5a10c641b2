"""MaRVL: NLVR2 in five languages and cultures. A picture ``42-7.jpg`` lies in ``marvl/LL/images/CONCEPT``."""

from dataclasses import replace

from stilts_jax.tasks.nlvr2 import TASK as NLVR2
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ClassifyExample, files, names

_FILE = "marvl-{language}.jsonl"


def _convert(row: Row, labels: tuple[str, ...]) -> ClassifyExample:
    folder = f"marvl/{row['language']}/images/{row['concept']}"
    pictures = tuple(f"{folder}/{row[side].rpartition('/')[2]}" for side in ("left_img", "right_img"))
    return ClassifyExample(row.id("id"), row["caption"], None, int(row.take("label", bool)), pictures)


TASK = replace(
    NLVR2,
    name="marvl",
    title="MaRVL",
    group="classification",
    languages=names("id sw ta tr zh"),
    train_on=("nlvr2",),
    counts={},
    sources=(files(f"marvl/{_FILE} marvl/{{language}}/annotations/{_FILE}", _convert, "test"),),
)
