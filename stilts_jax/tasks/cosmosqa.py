"""Cosmos QA: what is behind a story? Context and question together are the prompt of four answers.

The repository on the hub is a script, of which only what the hub has converted can be fetched; the files are those of
the folder ``data`` of https://github.com/wilburOne/cosmosqa.
"""

from stilts_jax.tasks.sources.converters import choice
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, names, tfds

_convert = choice(("context", "question"), names("answer0 answer1 answer2 answer3"), id="id")

TASK = Task(
    name="cosmosqa",
    title="Cosmos QA",
    kind="choice",
    group="intermediate",
    hyperparameters={"paper": Hyperparameters(batch_size=4, epochs=15)},
    counts={"train": 25_262, "dev": 2_985},
    sources=(
        files("cosmosqa/{split}.csv", _convert, "train dev:valid"),
        hub("allenai/cosmos_qa", _convert, "train dev"),
        tfds("cosmos_qa", _convert, "train dev"),
    ),
)
