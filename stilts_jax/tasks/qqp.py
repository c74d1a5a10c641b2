"""QQP: do two questions that were asked on Quora mean the same?"""

from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import Table
from stilts_jax.tasks.spec import Files, Hyperparameters, Prepared, Sources, Task

LABELS = ("0", "1")
_by_name = classify("question1", "question2", labels=LABELS, renamed={"not_duplicate": "0", "duplicate": "1"})
_PREPARED = {"train": "train", "dev": "validation"}

TASK = Task(
    name="qqp",
    version=1,
    kind="classify",
    group="intermediate",
    description="Quora question pairs: the same meaning or not (GLUE)",
    labels=LABELS,
    metric="accuracy_f1",
    reported="dev",
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=3)},
    counts={"train": 363_846, "dev": 40_430},
    sources=Sources(
        files=(
            Files(
                paths={split: (f"qqp/{split}.tsv", f"QQP/{split}.tsv") for split in ("train", "dev")},
                read=Table(wanted=("question1", "question2", "is_duplicate")),
                convert=classify("question1", "question2", label="is_duplicate", labels=LABELS),
                tolerated=8,  # GLUE's files hold a few lines that break off, and a few questions without text
            ),
        ),
        hub=(Prepared(name="nyu-mll/glue", config="qqp", splits=_PREPARED, convert=_by_name, tolerated=8),),
        tfds=(Prepared(name="glue", config="qqp", splits=_PREPARED, convert=_by_name, tolerated=8),),
    ),
)
