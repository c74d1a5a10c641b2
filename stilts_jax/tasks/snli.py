"""SNLI: natural language inference on captions of pictures. Pairs without a majority label (``-``) are dropped."""

from stilts_jax.tasks.mnli import LABELS, released
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, tfds

_prepared = classify("premise", "hypothesis", dropped={"label": None})

TASK = Task(
    name="snli",
    title="SNLI",
    kind="classify",
    group="intermediate",
    labels=LABELS,
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=2)},
    counts={"train": 549_367, "dev": 9_842, "test": 9_824},
    sources=(
        files("snli/snli_1.0_{split}.jsonl snli/snli_1.0/snli_1.0_{split}.jsonl", released),
        hub("stanfordnlp/snli/plain_text", _prepared),
        tfds("snli", _prepared),
    ),
)
