"""SQuAD 1.1: the answer to a question is a stretch of a paragraph. Its dev set selects and is reported."""

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.sources.readers import read_squad
from stilts_jax.tasks.spec import Files, Hyperparameters, Prepared, Sources, Task

_PREPARED = {"train": "train", "dev": "validation"}

TASK = Task(
    name="squad_v1",
    version=1,
    kind="span",
    group="intermediate",
    description="extractive question answering in English (SQuAD 1.1)",
    metric="squad",
    reported="dev",
    hyperparameters={"paper": Hyperparameters(batch_size=8, epochs=3, max_length=384)},
    counts={"train": 87_599, "dev": 10_570},
    sources=Sources(
        files=(
            Files(
                paths={"train": ("squad/train-v1.1.json",), "dev": ("squad/dev-v1.1.json",)},
                read=read_squad,
                convert=span(),
            ),
        ),
        hub=(
            Prepared(
                name="rajpurkar/squad",
                config="plain_text",
                splits=_PREPARED,
                convert=span(stripped=True),
            ),
        ),
        tfds=(Prepared(name="squad", config="v1.1", splits=_PREPARED, convert=span()),),
    ),
)
