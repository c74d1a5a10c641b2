"""Cosmos QA: what is behind a story? The files are those in ``data`` of https://github.com/wilburOne/cosmosqa."""

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
        hub("allenai/cosmos_qa", _convert, "train dev"),  # a script, converted by the hub
        tfds("cosmos_qa", _convert, "train dev"),
    ),
)
