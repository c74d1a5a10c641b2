"""CCG supertags. CCGbank is licensed (LDC2005T13), so the user brings the files, in jiant's format.

``ccg/train.tsv``, ``ccg/dev.tsv`` and perhaps ``ccg/test.tsv``: one sentence per line, its words joined by
spaces, a tab, its tags joined by spaces. ``ccg/tags_to_id.json``: an object from each tag of the training set
to its number. Words of dev and test whose tag is not among them count as wrong. CCGbank's standard split is
sections 2-21, 0 and 23.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stilts_jax.tasks.sources.readers import Table
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.spec import Files, Hyperparameters, Sources, Task

_LINES = Table(("words", "tags"), optional=1)


def _read(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    for row in _LINES(path, language, problems):
        words, tags = row.fields["words"], row.get("tags")
        yield replace(row, fields={"words": words.split(" "), "tags": tags.split(" ") if tags else None})


TASK = Task(
    name="ccg",
    version=2,
    kind="tag",
    group="intermediate",
    description="CCG supertagging (the user's CCGbank files, or others in their format)",
    metric="token_accuracy",
    reported="dev",
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=15)},
    counts={"train": 38_015, "dev": 5_484},
    sources=Sources(
        files=(
            Files(
                paths={
                    "train": ("ccg/train.tsv", "ccg/ccg.train"),
                    "dev": ("ccg/dev.tsv", "ccg/ccg.dev"),
                    "test": ("ccg/test-{language}.tsv", "ccg/test.tsv", "ccg/ccg.test"),
                },
                read=_read,
                convert=None,
            ),
        ),
        labels_file="ccg/tags_to_id.json",
    ),
)
