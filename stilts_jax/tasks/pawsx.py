"""PAWS-X: are two sentences of much the same words paraphrases? Trained on English, seven languages.

The released files have a header and ids, XTREME's neither, nor labels of test. Rows where a sentence is only ``NS``
(none could be translated) are left out of training; XTREME's evaluator wants a line for each of them, so they are
scored. Not read are the TFDS builder and the copy in the hub's XTREME: both were made with quoting, which merged rows
(49,175 in English).
"""

from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import Table
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import XTREME, ClassifyExample, Hyperparameters, Task, files, hub, names

LANGUAGES = names("de en es fr ja ko zh")
_SENTENCES = ("sentence1", "sentence2")
_FILE = "{language}/{split}.tsv"
_PATHS = f"pawsx/{_FILE} pawsx/x-final/{_FILE}"
_HUB = "google-research-datasets/paws-x/{language}"
_xtreme = classify(*_SENTENCES)
_released = classify(*_SENTENCES, id="id")


def _translated(row: Row, labels: tuple[str, ...]) -> ClassifyExample | None:
    # Where the machine translated nothing, sentences are empty; the hub has no label where that was lost.
    lost = "" in map(row.get, _SENTENCES) or row.get("label") is None
    return None if lost else _released(row, labels)


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
        files(_PATHS, _translated, "train:translated_train"),
        hub(_HUB, _translated, "train", languages=tuple(one for one in LANGUAGES if one != "en")),
        hub(_HUB, _released, languages=LANGUAGES),
    ),
)
