"""CommonsenseQA: a question and five words, of which one answers it (random split, version 1.11)."""

from collections.abc import Sequence

from stilts_jax.data.converters import index_label
from stilts_jax.data.readers import Row, read_jsonl
from stilts_jax.tasks.spec import ChoiceExample, Files, Hyperparameters, Prepared, Sources, Task


def _make(row: Row, question: str, letters: Sequence[str], texts: Sequence[str]) -> ChoiceExample:
    return ChoiceExample(row["id"], question, tuple(texts), index_label(row.get("answerKey"), letters))


def _released(row: Row) -> ChoiceExample:
    question = row["question"]
    choices = question["choices"]
    letters = [choice["label"] for choice in choices]
    return _make(row, question["stem"], letters, [choice["text"] for choice in choices])


def _hub(row: Row) -> ChoiceExample:
    return _make(row, row["question"], row["choices"]["label"], row["choices"]["text"])


TASK = Task(
    name="commonsenseqa",
    version=1,
    kind="choice",
    group="intermediate",
    description="commonsense questions, five answers (CommonsenseQA 1.11)",
    reported="dev",
    hyperparameters={"paper": Hyperparameters(batch_size=4, epochs=10)},
    counts={"train": 9_741, "dev": 1_221},
    sources=Sources(
        files=(
            Files(
                paths={
                    "train": ("commonsenseqa/train_rand_split.jsonl",),
                    "dev": ("commonsenseqa/dev_rand_split.jsonl",),
                    "test": ("commonsenseqa/test_rand_split_no_answers.jsonl",),
                },
                read=read_jsonl,
                convert=_released,
            ),
        ),
        hub=(
            Prepared(
                name="tau/commonsense_qa",
                config="default",
                splits={"train": "train", "dev": "validation", "test": "test"},
                convert=_hub,
            ),
        ),
    ),
)
