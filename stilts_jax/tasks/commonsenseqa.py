"""CommonsenseQA: a question and five words, of which one answers it (random split, version 1.11)."""

from stilts_jax.tasks.sources.rows import BadRow, Row
from stilts_jax.tasks.spec import ChoiceExample, Hyperparameters, Task, files, hub


def _make(row: Row, question: str, letters: list[str], texts: list[str]) -> ChoiceExample:
    if letters != list("ABCDE")[: len(texts)]:
        raise BadRow(f"the choices are labelled {', '.join(letters)}, and not A, B, C, D, E")
    return ChoiceExample(row.id("id"), question, tuple(texts), row.label("answerKey", letters))


def released(row: Row, labels: tuple[str, ...]) -> ChoiceExample:
    """Returns the question of a row of the released files."""
    question = row.part("question")
    letters, texts = ([one[name] for one in question.parts("choices")] for name in ("label", "text"))
    return _make(row, question["stem"], letters, texts)


def _hub(row: Row, labels: tuple[str, ...]) -> ChoiceExample:
    choices = row.part("choices")
    return _make(row, row["question"], choices.texts("label"), choices.texts("text", empty=False))


_SPLITS = "train:train_rand_split dev:dev_rand_split test:test_rand_split_no_answers"
TASK = Task(
    name="commonsenseqa",
    title="CSQA",
    kind="choice",
    group="intermediate",
    hyperparameters={"paper": Hyperparameters(batch_size=4, epochs=10)},
    counts={"train": 9_741, "dev": 1_221},
    sources=(files("commonsenseqa/{split}.jsonl", released, _SPLITS), hub("tau/commonsense_qa", _hub)),
)
