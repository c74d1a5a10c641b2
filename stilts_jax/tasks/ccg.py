"""CCG supertags. CCGbank is licensed (LDC2005T13), so the user brings the files, in jiant's format.

``ccg/train.tsv``, ``ccg/dev.tsv`` and perhaps ``ccg/test.tsv``: one sentence per line, its words joined by spaces, a
tab, its tags joined by spaces. ``ccg/tags_to_id.json``: an object from each tag of the training set to its number.
Words of dev and test whose tag is not among them count as wrong. CCGbank's standard split is sections 2-21, 0 and 23.
"""

from stilts_jax.tasks.sources.converters import tag
from stilts_jax.tasks.sources.readers import Table
from stilts_jax.tasks.spec import Hyperparameters, Task, files

_TABLE = Table(("words", "tags"), optional=1)

TASK = Task(
    name="ccg",
    version=2,
    title="CCG",
    kind="tag",
    group="intermediate",
    labels_file="ccg/tags_to_id.json",
    metric="token_accuracy",
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=15)},
    counts={"train": 38_015, "dev": 5_484},
    sources=(files("ccg/{split}-{language}.tsv ccg/{split}.tsv ccg/ccg.{split}", tag(), read=_TABLE),),
)
