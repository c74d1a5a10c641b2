"""PAN-X (WikiANN): names of persons, places and organisations in Wikipedia, 40 languages (48 in XTREME-R).

English trains and its dev set selects; test is reported. As released, each token stands behind ``LL:``.
"""

from stilts_jax.data.converters import tag
from stilts_jax.data.readers import read_tagged
from stilts_jax.tasks.spec import Files, Sources, Task, names
from stilts_jax.tasks.udpos import SPLITS
from stilts_jax.tasks.udpos import TASK as UDPOS

LABELS = ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")

TASK = Task(
    name="panx",
    version=1,
    kind="tag",
    group="tagging",
    description="named entities in Wikipedia (WikiANN)",
    languages=names(
        "ar he vi id jv ms tl eu ml ta te af nl en de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw "
        "yo my zh kk tr et fi hu"
    ),
    labels=LABELS,
    metric="chunk_f1",
    hyperparameters=UDPOS.hyperparameters,
    counts={"train": {"en": 20_000}, "dev": {"en": 10_000}, "test": {"en": 10_000}},
    sources=Sources(
        files=(
            Files(
                paths={
                    split: (
                        f"panx/{split}-{{language}}.tsv",
                        f"panx/{{language}}-{split}",
                        f"panx/{{language}}/{split}",
                    )
                    for split in SPLITS
                },
                read=read_tagged,
                convert=tag(LABELS),
            ),
        ),
    ),
)
