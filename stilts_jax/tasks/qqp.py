"""QQP: do two questions that were asked on Quora mean the same?"""

from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, tfds

_QUESTIONS = ("question1", "question2")
_released = classify(*_QUESTIONS, label="is_duplicate")
_by_name = classify(*_QUESTIONS, renamed={"not_duplicate": "0", "duplicate": "1"})

TASK = Task(
    name="qqp",
    title="QQP",
    kind="classify",
    group="intermediate",
    labels=("0", "1"),
    metric="accuracy_f1",
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=3)},
    counts={"train": 363_846, "dev": 40_430},
    sources=(
        # GLUE's files hold a few lines that break off, and a few questions without text.
        files("qqp/{split}.tsv QQP/{split}.tsv", _released, "train dev", tolerated=8),
        hub("nyu-mll/glue/qqp", _by_name, "train dev", tolerated=8),
        tfds("glue/qqp", _by_name, "train dev", tolerated=8),
    ),
)
