"""COPA: which of two sentences is the cause or the effect of another? The second step of XCOPA's training.

The question is asked in English whatever the language of the sentences. XTREME's download overwrites the labels of its
test files with 0; a file of twenty rows or more that says nothing but 0 is therefore read as blanked.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stilts_jax.tasks.siqa import TASK as SIQA
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.rows import BadRow, Problems, Row, describe
from stilts_jax.tasks.spec import ChoiceExample, files, hub, tfds

_PATHS = "copa/{split}.jsonl COPA/{split}.jsonl xcopa/{split}-{language}.jsonl"
SPLITS = "train dev:val test"


def read_copa(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields the rows of COPA or XCOPA; ``label`` is None where it is overwritten."""
    rows = list(read_jsonl(path, language, problems))
    blanked = len(rows) >= 20 and all(row.get("label") == 0 for row in rows)
    yield from (replace(row, fields={**row.fields, "label": None}) if blanked else row for row in rows)


def convert(row: Row, labels: tuple[str, ...]) -> ChoiceExample:
    choices = (row["choice1"], row["choice2"])
    if row["question"] not in ("cause", "effect"):
        raise BadRow(f"question is {describe(row['question'])}, neither cause nor effect")
    label = row.label("label", "01", {"choice1": "0", "choice2": "1"})
    return ChoiceExample(row.id("idx"), f"{row['premise']} What was the {row['question']}?", choices, label)


TASK = replace(
    SIQA,
    name="copa",
    title="COPA",
    counts={"train": 400, "dev": 100, "test": 500},
    sources=(
        files(_PATHS, convert, SPLITS, read=read_copa),
        hub("aps/super_glue/copa", convert),
        tfds("super_glue/copa", convert),
    ),
)
