"""HellaSwag: which of four endings continues a scene? The begun sentence stands before each of them.

Ids are row numbers: the field ``ind`` is not unique, since ActivityNet and WikiHow each number their own rows.
"""

from stilts_jax.tasks.sources.converters import pick_label
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ChoiceExample, Files, Hyperparameters, Prepared, Sources, Task


def _convert(row: Row) -> ChoiceExample:
    begun = row.text("ctx_b")
    endings = tuple(f"{begun} {ending}".strip() for ending in row.texts("endings", empty=False))
    return ChoiceExample(str(row.number), row["ctx_a"], endings, pick_label(row, "label", "0123"))


TASK = Task(
    name="hellaswag",
    version=2,
    kind="choice",
    group="intermediate",
    description="which ending continues a scene, of four (HellaSwag)",
    reported="dev",
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=7)},
    counts={"train": 39_905, "dev": 10_042},
    sources=Sources(
        files=(
            Files(
                paths={
                    "train": ("hellaswag/hellaswag_train.jsonl",),
                    "dev": ("hellaswag/hellaswag_val.jsonl",),
                    "test": ("hellaswag/hellaswag_test.jsonl",),
                },
                read=read_jsonl,
                convert=_convert,
            ),
        ),
        hub=(
            Prepared(
                name="Rowan/hellaswag",
                config="default",
                splits={"train": "train", "dev": "validation", "test": "test"},
                convert=_convert,
            ),
        ),
    ),
)
