"""SQuAD 1.1: the answer to a question is a stretch of a paragraph. Its dev set selects and is reported."""

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, tfds

TASK = Task(
    name="squad_v1",
    title="SQuAD v1.1",
    kind="span",
    group="intermediate",
    hyperparameters={"paper": Hyperparameters(batch_size=8, epochs=3, max_length=384)},
    counts={"train": 87_599, "dev": 10_570},
    sources=(
        files("squad/{split}-v1.1.json", span(), "train dev"),
        hub("rajpurkar/squad/plain_text", span(stripped=True), "train dev"),
        tfds("squad/v1.1", span(), "train dev"),
    ),
)
