"""COPA: which of two sentences is the cause or the effect of another? The second step of XCOPA's training.

The question is asked in English whatever the language of the sentences. XTREME's download overwrites the
labels of its test files with 0; a file of twenty rows or more that says nothing but 0 is therefore read as
blanked.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stilts_jax.tasks.siqa import TASK as SIQA
from stilts_jax.tasks.sources.converters import pick_label
from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.rows import Problems, Row, describe
from stilts_jax.tasks.spec import ChoiceExample, Files, Prepared, Sources, Task

_ROWS_THAT_VARY = 20


def read_copa(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields the rows of COPA or XCOPA; ``label`` is None where it is overwritten."""
    rows = list(read_jsonl(path, language, problems))
    blanked = len(rows) >= _ROWS_THAT_VARY and all(row.get("label") == 0 for row in rows)
    yield from (replace(row, fields={**row.fields, "label": None}) if blanked else row for row in rows)


def convert(row: Row) -> ChoiceExample:
    """Returns the question of a row of COPA or XCOPA."""
    choices = (row["choice1"], row["choice2"])
    if row["question"] not in ("cause", "effect"):
        raise BadRow(f"question is {describe(row['question'])}, neither cause nor effect")
    label = pick_label(row, "label", "01", {"choice1": "0", "choice2": "1"})
    return ChoiceExample(row.id("idx"), f"{row['premise']} What was the {row['question']}?", choices, label)


TASK = Task(
    name="copa",
    version=1,
    kind="choice",
    group="intermediate",
    description="cause or effect, two answers (COPA of SuperGLUE)",
    reported="dev",
    hyperparameters=SIQA.hyperparameters,
    counts={"train": 400, "dev": 100, "test": 500},
    sources=Sources(
        files=(
            Files(
                paths={
                    split: (f"copa/{name}.jsonl", f"COPA/{name}.jsonl", f"xcopa/{name}-{{language}}.jsonl")
                    for split, name in (("train", "train"), ("dev", "val"), ("test", "test"))
                },
                read=read_copa,
                convert=convert,
            ),
        ),
        hub=(
            Prepared(
                name="aps/super_glue",
                config="copa",
                splits={"train": "train", "dev": "validation", "test": "test"},
                convert=convert,
            ),
        ),
        tfds=(
            Prepared(
                name="super_glue",
                config="copa",
                splits={"train": "train", "dev": "validation", "test": "test"},
                convert=convert,
            ),
        ),
    ),
)
