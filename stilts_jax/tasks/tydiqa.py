"""TyDi QA, gold passage: questions of people who wanted to know, in nine languages; trained on English only.

The public dev file is the test set, which is reported. For selection, a tenth of the English training
questions is set apart, whole paragraphs at a time and the same ones everywhere (by a hash of the paragraph).
XTREME's download cuts training ids down to their last part, which is not unique, so there rows are numbered.
"""

from stilts_jax.tasks.sources.converters import share_of, span
from stilts_jax.tasks.sources.readers import read_squad
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import Example, Files, Prepared, Sources, SpanExample, Task, names
from stilts_jax.tasks.xquad import TASK as XQUAD

LANGUAGES = names("en ar bn fi id ko ru sw te")
SPELLED_OUT = dict(
    zip(LANGUAGES, names("english arabic bengali finnish indonesian korean russian swahili telugu"))
)
_CODES = {name: code for code, name in SPELLED_OUT.items()}
_TRAIN, _DEV = "tydiqa/tydiqa-goldp-v1.1-train", "tydiqa/tydiqa-goldp-v1.1-dev"


def _language_of(row: Row) -> str:
    name = row.id("id").partition("-")[0]
    return _CODES.get(name, name)


def _keep(example: Example, split: str) -> bool:
    if split == "test":
        return True
    assert isinstance(example, SpanExample)
    return (share_of(example.context) < 0.1) == (split == "dev")


TASK = Task(
    name="tydiqa",
    version=1,
    kind="span",
    group="qa",
    description="extractive question answering in 9 languages (TyDi QA, gold passage)",
    languages=LANGUAGES,
    split_languages={"dev": ("en",)},
    metric="squad",
    hyperparameters=XQUAD.hyperparameters,
    counts={
        "train+dev": {"en": 3_696},
        "test": {
            "ar": 921,
            "bn": 113,
            "en": 440,
            "fi": 782,
            "id": 565,
            "ko": 276,
            "ru": 812,
            "sw": 499,
            "te": 669,
        },
    },
    sources=Sources(
        files=(
            Files(
                paths=dict.fromkeys(("train", "dev"), (f"{_TRAIN}/tydiqa.goldp.{{language}}.train.json",)),
                read=read_squad,
                convert=span(numbered=True),
            ),
            Files(
                paths={"test": (f"{_DEV}/tydiqa.goldp.{{language}}.dev.json",)},
                read=read_squad,
                convert=span(),
            ),
            Files(
                paths={"test": (f"{_DEV}/tydiqa-goldp-dev-{{language}}.json",)},
                read=read_squad,
                convert=span(),
                codes=SPELLED_OUT,
            ),
            Files(
                paths={
                    **dict.fromkeys(("train", "dev"), (f"{_TRAIN}.json", f"{_TRAIN}{_TRAIN[6:]}.json")),
                    "test": (f"{_DEV}.json",),
                },
                read=read_squad,
                convert=span(),
                language_of=_language_of,
            ),
        ),
        hub=tuple(
            Prepared(
                name=name,
                config=config,
                splits={"train": "train", "dev": "train", "test": "validation"},
                languages=LANGUAGES,
                language_of=_language_of,
                convert=span(stripped=True),
            )
            for name, config in (
                ("google-research-datasets/tydiqa", "secondary_task"),
                ("google/xtreme", "tydiqa"),
            )
        ),
        tfds=(
            Prepared(
                name="tydi_qa",
                config="goldp",
                splits={"train": "train", "dev": "train", "test": "validation-{language}"},
                languages=LANGUAGES,
                language_of=_language_of,
                convert=span(),
            ),
        ),
        keep=_keep,
    ),
)
