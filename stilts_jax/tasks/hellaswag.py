"""HellaSwag: which of four endings continues a scene? The begun sentence stands before each of them."""

from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ChoiceExample, Hyperparameters, Task, files, hub


def _convert(row: Row, labels: tuple[str, ...]) -> ChoiceExample:
    begun = row.text("ctx_b")
    endings = tuple(f"{begun} {ending}".strip() for ending in row.texts("endings", empty=False))
    # The field ``ind`` is not unique: ActivityNet and WikiHow each number their own rows.
    return ChoiceExample(str(row.number), row["ctx_a"], endings, row.label("label", "0123"))


TASK = Task(
    name="hellaswag",
    version=2,
    title="HellaSwag",
    kind="choice",
    group="intermediate",
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=7)},
    counts={"train": 39_905, "dev": 10_042},
    sources=(
        files("hellaswag/hellaswag_{split}.jsonl", _convert, "train dev:val test"),
        hub("Rowan/hellaswag", _convert),
    ),
)
