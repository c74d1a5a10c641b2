"""PAN-X (WikiANN): names of persons, places and organisations in Wikipedia, 40 languages (48 in XTREME-R).

English trains and its dev set selects; test is reported. As released, each token stands behind ``LL:``.
"""

from stilts_jax.tasks.sources.converters import tag
from stilts_jax.tasks.sources.readers import read_tagged
from stilts_jax.tasks.spec import Files, Prepared, Sources, Task, names
from stilts_jax.tasks.udpos import SPLITS
from stilts_jax.tasks.udpos import TASK as UDPOS

LABELS = ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")
LANGUAGES = names(
    "ar he vi id jv ms tl eu ml ta te af nl en de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw "
    "yo my zh kk tr et fi hu"
)
ADDED = names("qu pl uk az lt pa gu ro")  # those of XTREME-R
_PREPARED = {"train": "train", "dev": "validation", "test": "test"}

TASK = Task(
    name="panx",
    version=1,
    kind="tag",
    group="tagging",
    description="named entities in Wikipedia (WikiANN)",
    languages=LANGUAGES,
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
        hub=(
            Prepared(
                name="google/xtreme",
                config="PAN-X.{language}",
                splits=_PREPARED,
                languages=LANGUAGES,
                convert=tag(LABELS, words="tokens", tags="ner_tags"),
            ),
            Prepared(
                name="unimelb-nlp/wikiann",
                config="{language}",
                splits=_PREPARED,
                languages=(*LANGUAGES, *ADDED),
                convert=tag(LABELS, words="tokens", tags="ner_tags"),
            ),
        ),
        tfds=(
            Prepared(
                name="wikiann",
                config="{language}",
                splits=_PREPARED,
                languages=(*LANGUAGES, *ADDED),
                convert=tag(LABELS, words="tokens"),
            ),
        ),
    ),
)
