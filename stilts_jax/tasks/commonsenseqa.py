"""CommonsenseQA: a question and five words, of which one answers it (random split, version 1.11)."""

from stilts_jax.tasks.sources.converters import pick_label
from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ChoiceExample, Files, Hyperparameters, Prepared, Sources, Task


def _make(row: Row, question: str, letters: list[str], texts: list[str]) -> ChoiceExample:
    if letters != list("ABCDE")[: len(texts)]:
        raise BadRow(f"the choices are labelled {', '.join(letters)}, and not A, B, C, D, E")
    return ChoiceExample(row.id("id"), question, tuple(texts), pick_label(row, "answerKey", letters))


def _released(row: Row) -> ChoiceExample:
    question = row.part("question")
    choices = question.parts("choices")
    texts = [choice["text"] for choice in choices]
    return _make(row, question["stem"], [choice["label"] for choice in choices], texts)


def _hub(row: Row) -> ChoiceExample:
    choices = row.part("choices")
    return _make(row, row["question"], choices.texts("label"), choices.texts("text"))


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
