"""PAWS-X: are two sentences of much the same words paraphrases? Trained on English, seven languages.

English dev selects, test is reported. The released files have a header, ids and rows where a sentence is only
``NS`` (none could be translated), which are dropped; XTREME's have neither, and no test labels. Not read are the
TFDS builder and the copy in the hub's XTREME: both were made with quoting, which merged rows (49,175 in English).
"""

from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import Table
from stilts_jax.tasks.spec import Files, Hyperparameters, Prepared, Sources, Task, names

LABELS = ("0", "1")
LANGUAGES = names("de en es fr ja ko zh")
NO_SENTENCE = {"sentence1": "NS", "sentence2": "NS"}

_numbered = classify("sentence1", "sentence2", labels=LABELS, dropped=NO_SENTENCE)
_released = classify("sentence1", "sentence2", labels=LABELS, id="id", dropped=NO_SENTENCE)

TASK = Task(
    name="pawsx",
    version=1,
    kind="classify",
    group="classification",
    description="adversarial paraphrases in 7 languages (PAWS-X)",
    languages=LANGUAGES,
    labels=LABELS,
    hyperparameters={
        "paper": Hyperparameters(batch_size=32, epochs=5),
        "xtreme": Hyperparameters(2e-5, 32, 5, max_length=128, warmup=0, weight_decay=0),
    },
    counts={
        "train": {"en": 49_401},
        "dev": {"en": 2_000},
        "test": {"de": 1_967, "en": 2_000, "es": 1_999, "fr": 1_985, "ja": 1_946, "ko": 1_972, "zh": 1_975},
    },
    sources=Sources(
        files=(
            Files(
                paths={split: (f"pawsx/{split}-{{language}}.tsv",) for split in ("train", "dev", "test")},
                read=Table(("sentence1", "sentence2", "label"), optional=1),
                convert=_numbered,
            ),
            Files(
                paths={
                    "train": tuple(
                        f"pawsx/{folder}{{language}}/{name}.tsv"
                        for folder in ("", "x-final/")
                        for name in ("train", "translated_train")
                    ),
                    "dev": ("pawsx/{language}/dev_2k.tsv", "pawsx/x-final/{language}/dev_2k.tsv"),
                    "test": ("pawsx/{language}/test_2k.tsv", "pawsx/x-final/{language}/test_2k.tsv"),
                },
                read=Table(wanted=("id", "sentence1", "sentence2")),
                convert=_released,
            ),
        ),
        hub=(
            Prepared(
                name="google-research-datasets/paws-x",
                config="{language}",
                splits={"train": "train", "dev": "validation", "test": "test"},
                languages=LANGUAGES,
                convert=_released,
            ),
        ),
    ),
)
