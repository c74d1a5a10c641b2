"""MLQA: questions about Wikipedia in seven languages, each in the language of its text; trained on SQuAD 1.1.

Dev and test; test is reported. The files that mix languages lie beside these and are not read.
"""

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.sources.readers import read_squad
from stilts_jax.tasks.spec import Files, Prepared, Sources, Task, names
from stilts_jax.tasks.xquad import TASK as XQUAD

LANGUAGES = names("en es de ar hi vi zh")

TASK = Task(
    name="mlqa",
    version=1,
    kind="span",
    group="qa",
    description="extractive question answering in 7 languages (MLQA)",
    languages=LANGUAGES,
    metric="mlqa",
    train_on=("squad_v1",),
    hyperparameters=XQUAD.hyperparameters,
    counts={
        "dev": {"en": 1_148, "de": 512, "es": 500, "ar": 517, "zh": 504, "vi": 511, "hi": 507},
        "test": {"en": 11_590, "de": 4_517, "es": 5_253, "ar": 5_335, "zh": 5_137, "vi": 5_495, "hi": 4_918},
    },
    sources=Sources(
        files=(
            Files(
                paths={
                    split: (f"mlqa/MLQA_V1/{split}/{split}-context-{{language}}-question-{{language}}.json",)
                    for split in ("dev", "test")
                },
                read=read_squad,
                convert=span(),
            ),
        ),
        hub=(
            Prepared(
                name="google/xtreme",
                config="MLQA.{language}.{language}",
                splits={"dev": "validation", "test": "test"},
                languages=LANGUAGES,
                convert=span(stripped=True),
            ),
        ),
        tfds=(
            Prepared(
                name="mlqa",
                config="{language}",
                splits={"dev": "validation", "test": "test"},
                languages=LANGUAGES,
                convert=span(),
            ),
        ),
    ),
)
