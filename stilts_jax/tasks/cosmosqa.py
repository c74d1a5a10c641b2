"""Cosmos QA: what is behind a story? Context and question together are the prompt of four answers.

The repository on the hub is a script, of which only what the hub has converted can be fetched; the files are those of
the folder ``data`` of https://github.com/wilburOne/cosmosqa.
"""

from stilts_jax.tasks.sources.converters import pick_label
from stilts_jax.tasks.sources.readers import read_csv
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ChoiceExample, Files, Hyperparameters, Prepared, Sources, Task


def _convert(row: Row) -> ChoiceExample:
    answers = tuple(row[f"answer{index}"] for index in range(4))
    prompt = f"{row['context']} {row['question']}"
    return ChoiceExample(row.id("id"), prompt, answers, pick_label(row, "label", "0123"))


TASK = Task(
    name="cosmosqa",
    version=1,
    kind="choice",
    group="intermediate",
    description="commonsense reading comprehension, four answers (Cosmos QA)",
    reported="dev",
    hyperparameters={"paper": Hyperparameters(batch_size=4, epochs=15)},
    counts={"train": 25_262, "dev": 2_985},
    sources=Sources(
        files=(
            Files(
                paths={"train": ("cosmosqa/train.csv",), "dev": ("cosmosqa/valid.csv",)},
                read=read_csv,
                convert=_convert,
            ),
        ),
        hub=(
            Prepared(
                name="allenai/cosmos_qa",
                config="default",
                splits={"train": "train", "dev": "validation"},
                convert=_convert,
            ),
        ),
        tfds=(Prepared(name="cosmos_qa", splits={"train": "train", "dev": "validation"}, convert=_convert),),
    ),
)
