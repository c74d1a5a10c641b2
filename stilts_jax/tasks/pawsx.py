"""PAWS-X: are two sentences of much the same words paraphrases? Trained on English, seven languages.

The released files have a header, ids and rows where a sentence is only ``NS`` (none could be translated). XTREME's have
these rows too, and scores them; they are not trained on. XTREME's test files have no labels. Not read are the TFDS
builder and the copy in the hub's XTREME: both were made with quoting, which merged rows (49,175 in English).
"""

from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import Table
from stilts_jax.tasks.spec import XTREME, ClassifyExample, Hyperparameters, Task, files, hub, names

LANGUAGES = names("de en es fr ja ko zh")
_SENTENCES = ("sentence1", "sentence2")
_FILE = "{language}/{split}.tsv"
_PATHS = f"pawsx/{_FILE} pawsx/x-final/{_FILE}"
_xtreme, _released = classify(*_SENTENCES), classify(*_SENTENCES, id="id")


def _keep(example: ClassifyExample, split: str) -> bool:
    return split != "train" or "NS" not in (example.text, example.pair)


TASK = Task(
    name="pawsx",
    title="PAWS-X",
    kind="classify",
    languages=LANGUAGES,
    aligned=True,
    labels=("0", "1"),
    hyperparameters={"paper": Hyperparameters(batch_size=32, epochs=5), "xtreme": XTREME(2e-5, 32, 5)},
    version=2,
    keep=_keep,
    counts={"train": {"en": 49_401}, "dev": 2_000, "test": 2_000},
    sources=(
        files("pawsx/{split}-{language}.tsv", _xtreme, read=Table((*_SENTENCES, "label"), optional=1)),
        files(_PATHS, _released, "train dev:dev_2k test:test_2k"),
        files(_PATHS, _released, "train:translated_train"),
        hub("google-research-datasets/paws-x/{language}", _released, languages=LANGUAGES),
    ),
)
