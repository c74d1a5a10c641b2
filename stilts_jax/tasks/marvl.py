"""MaRVL: NLVR2 in five languages and cultures. A picture ``42-7.jpg`` lies in ``marvl/LL/images/CONCEPT``."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stilts_jax.tasks.nlvr2 import TASK as NLVR2
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.spec import ClassifyExample, files, names

_FILE = "marvl-{language}.jsonl"


def _read(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    for row in read_jsonl(path, language, problems):
        yield replace(row, fields={**row.fields, "folder": language})


def _convert(row: Row, labels: tuple[str, ...]) -> ClassifyExample:
    folder = f"marvl/{row['folder']}/images/{row['concept']}"
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
    sources=(files(f"marvl/{_FILE} marvl/{{language}}/annotations/{_FILE}", _convert, "test", read=_read),),
)
