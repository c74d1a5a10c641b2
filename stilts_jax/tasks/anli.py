"""ANLI+: SNLI, MNLI and the three rounds of adversarial NLI as one task with one head.

The parts are laid end to end, so that sampling is proportional to their sizes; dev is laid together likewise.
"""

from stilts_jax.tasks.mnli import LABELS, SPELLINGS
from stilts_jax.tasks.mnli import TASK as MNLI
from stilts_jax.tasks.snli import TASK as SNLI
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.spec import Files, Hyperparameters, Prepared, Sources, Task


def _round(number: int) -> Sources:
    folders = (f"anli/R{number}", f"anli/anli_v1.0/R{number}", f"anli/anli_v0.1/R{number}")
    released = classify("context", "hypothesis", labels=LABELS, renamed=SPELLINGS, id="uid")
    return Sources(
        files=(
            Files(
                paths={
                    split: tuple(f"{folder}/{split}.jsonl" for folder in folders)
                    for split in ("train", "dev")
                },
                read=read_jsonl,
                convert=released,
            ),
        ),
        hub=(
            Prepared(
                name="facebook/anli",
                config="plain_text",
                splits={"train": f"train_r{number}", "dev": f"dev_r{number}"},
                convert=classify("premise", "hypothesis", labels=LABELS),
            ),
        ),
        tfds=(
            Prepared(
                name="anli",
                config=f"r{number}",
                splits={"train": "train", "dev": "validation"},
                convert=released,
            ),
        ),
    )


TASK = Task(
    name="anli",
    version=1,
    kind="classify",
    group="intermediate",
    description="ANLI+: SNLI, MNLI and ANLI rounds 1 to 3 together",
    labels=LABELS,
    reported="dev",
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=2)},
    counts={
        "train": 549_367 + 392_702 + 16_946 + 45_460 + 100_459,
        "dev": 9_842 + 9_815 + 1_000 + 1_000 + 1_200,
    },
    sources=Sources(
        parts=(
            ("snli", SNLI.sources),
            ("mnli", MNLI.sources),
            *((f"anli_r{number}", _round(number)) for number in (1, 2, 3)),
        )
    ),
)
