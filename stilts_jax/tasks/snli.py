"""SNLI: natural language inference on captions of pictures. Pairs without a majority label (``-``) are dropped."""

from stilts_jax.tasks.mnli import LABELS
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.spec import Files, Hyperparameters, Prepared, Sources, Task

SPLITS = ("train", "dev", "test")

TASK = Task(
    name="snli",
    version=1,
    kind="classify",
    group="intermediate",
    description="natural language inference on picture captions (SNLI 1.0)",
    labels=LABELS,
    reported="dev",
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=2)},
    counts={"train": 549_367, "dev": 9_842, "test": 9_824},
    sources=Sources(
        files=(
            Files(
                paths={
                    split: (f"snli/snli_1.0_{split}.jsonl", f"snli/snli_1.0/snli_1.0_{split}.jsonl")
                    for split in SPLITS
                },
                read=read_jsonl,
                convert=classify(
                    "sentence1",
                    "sentence2",
                    label="gold_label",
                    labels=LABELS,
                    id="pairID",
                    dropped={"gold_label": "-"},
                ),
            ),
        ),
        hub=(
            Prepared(
                name="stanfordnlp/snli",
                config="plain_text",
                splits={"train": "train", "dev": "validation", "test": "test"},
                convert=classify("premise", "hypothesis", labels=LABELS, dropped={"label": None}),
            ),
        ),
        tfds=(
            Prepared(
                name="snli",
                splits={"train": "train", "dev": "validation", "test": "test"},
                convert=classify("premise", "hypothesis", labels=LABELS, dropped={"label": None}),
            ),
        ),
    ),
)
