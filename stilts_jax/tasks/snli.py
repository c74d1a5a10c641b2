"""SNLI: natural language inference on captions of pictures. Pairs without a majority label (``-``) are dropped."""

from dataclasses import replace

from stilts_jax.tasks import mnli
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.spec import files, hub, tfds

_prepared = classify("premise", "hypothesis", dropped={"label": None})

TASK = replace(
    mnli.TASK,
    name="snli",
    title="SNLI",
    counts={"train": 549_367, "dev": 9_842, "test": 9_824},
    sources=(
        files("snli/snli_1.0_{split}.jsonl snli/snli_1.0/snli_1.0_{split}.jsonl", mnli.released),
        hub("stanfordnlp/snli/plain_text", _prepared),
        tfds("snli", _prepared),
    ),
)
