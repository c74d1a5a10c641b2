"""XNLI: natural language inference in fifteen languages, trained on MNLI. Ids are row numbers, so that items pair.

XTREME's download has no test labels; the original release and copies with a third column do.
"""

from collections.abc import Iterator
from dataclasses import replace

from stilts_jax.tasks.mnli import COLUMNS, LABELS, LANGUAGES, SENTENCES, SPELLINGS, prepared, xtreme
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import Table
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import XTREME, Hyperparameters, Task, files, hub, tfds

_released = classify(*SENTENCES, label="gold_label", renamed=SPELLINGS, id="pairID")
_STEMS = ("xnli/xnli.{split}", "xnli/XNLI-1.0/xnli.{split}")
_RELEASE = " ".join(f"{stem}.{end}" for end in ("tsv", "jsonl") for stem in _STEMS)


def _translations(row: Row) -> Iterator[tuple[str, Row]]:
    """Yields the pair in each language; a row of TFDS holds all languages."""
    premises, hypothesis = row.part("premise"), row.part("hypothesis")
    hypotheses = dict(zip(hypothesis.texts("language"), hypothesis.texts("translation")))
    for language, premise in premises.fields.items():
        fields = dict(zip(COLUMNS, (premise, hypotheses.get(language), row.value("label"))))
        yield language, replace(row, fields=fields)


TASK = Task(
    name="xnli",
    title="XNLI",
    kind="classify",
    languages=LANGUAGES,
    aligned=True,
    labels=LABELS,
    train_on=("mnli",),
    hyperparameters={"paper": Hyperparameters(batch_size=32, epochs=2), "xtreme": XTREME(3e-5, 32, 5)},
    counts={"dev": 2_490, "test": 5_010},
    sources=(
        files("xnli/{split}-{language}.tsv", xtreme, read=Table(COLUMNS, optional=1)),
        files(_RELEASE, _released, "dev test", by_language="language"),
        hub("facebook/xnli/{language}", prepared, "dev test", languages=LANGUAGES),
        tfds("xnli", prepared, "dev test", by_language=_translations),
    ),
)
