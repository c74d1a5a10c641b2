"""XNLI: natural language inference in fifteen languages, trained on MNLI.

The same 2,490 dev and 5,010 test items in every language, in the same order: ids are row numbers, so that
items pair. Test is reported. XTREME's download has no test labels; the original release and copies with a
third column do.
"""

from stilts_jax.tasks.mnli import LABELS, SPELLINGS
from stilts_jax.tasks.sources.converters import classify, pick_label
from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.readers import Table, read_jsonl
from stilts_jax.tasks.sources.rows import LANGUAGE, Row
from stilts_jax.tasks.spec import ClassifyExample, Files, Hyperparameters, Prepared, Sources, Task, names


def _convert_translated(row: Row) -> ClassifyExample:
    """Returns the pair in the language that is read; a row of TFDS holds all languages."""
    language, hypothesis = row[LANGUAGE], row.part("hypothesis")
    translations = dict(zip(hypothesis.texts("language"), hypothesis.texts("translation")))
    if language not in translations:
        raise BadRow(f"there is no translation of the hypothesis into {language!r}")
    label = pick_label(row, "label", LABELS, SPELLINGS)
    return ClassifyExample(str(row.number), row.part("premise")[language], translations[language], label)


_released = classify(
    "sentence1", "sentence2", label="gold_label", labels=LABELS, renamed=SPELLINGS, id="pairID"
)

LANGUAGES = names("ar bg de el en es fr hi ru sw th tr ur vi zh")
_PREPARED = {"dev": "validation", "test": "test"}

TASK = Task(
    name="xnli",
    version=1,
    kind="classify",
    group="classification",
    description="natural language inference in 15 languages (XNLI 1.0)",
    languages=LANGUAGES,
    labels=LABELS,
    train_on=("mnli",),
    hyperparameters={
        "paper": Hyperparameters(batch_size=32, epochs=2),
        "xtreme": Hyperparameters(3e-5, 32, 5, max_length=128, warmup=0, weight_decay=0),
    },
    counts={"dev": 2_490, "test": 5_010},
    sources=Sources(
        files=(
            Files(
                paths={split: (f"xnli/{split}-{{language}}.tsv",) for split in ("train", "dev", "test")},
                read=Table(("premise", "hypothesis", "label"), optional=1),
                convert=classify("premise", "hypothesis", labels=LABELS, renamed=SPELLINGS),
            ),
            Files(
                paths={
                    split: (f"xnli/xnli.{split}.tsv", f"xnli/XNLI-1.0/xnli.{split}.tsv")
                    for split in ("dev", "test")
                },
                read=Table(wanted=("language", "gold_label", "sentence1", "sentence2")),
                convert=_released,
                language_of=lambda row: row["language"],
            ),
            Files(
                paths={
                    split: (f"xnli/xnli.{split}.jsonl", f"xnli/XNLI-1.0/xnli.{split}.jsonl")
                    for split in ("dev", "test")
                },
                read=read_jsonl,
                convert=_released,
                language_of=lambda row: row["language"],
            ),
        ),
        hub=(
            Prepared(
                name="facebook/xnli",
                config="{language}",
                splits=_PREPARED,
                languages=LANGUAGES,
                convert=classify("premise", "hypothesis", labels=LABELS),
            ),
            Prepared(
                name="google/xtreme",
                config="XNLI",
                splits=_PREPARED,
                languages=LANGUAGES,
                language_of=lambda row: row["language"],
                convert=classify(
                    "sentence1", "sentence2", label="gold_label", labels=LABELS, renamed=SPELLINGS
                ),
            ),
        ),
        tfds=(Prepared(name="xnli", splits=_PREPARED, languages=LANGUAGES, convert=_convert_translated),),
    ),
)
