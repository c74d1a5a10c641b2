"""SIB-200: the topic of a sentence of FLORES-200, one of seven, in 205 languages; trained on 701 English ones."""

from stilts_jax.tasks.languages import FLORES
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import read_quoted
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, names

_convert = classify("text", label="category", id="index_id")

TASK = Task(
    name="sib200",
    title="SIB-200",
    kind="classify",
    languages=tuple(FLORES),
    aligned=True,
    split_languages={"dev": ("en",)},
    labels=names("science/technology travel politics sports health entertainment geography"),
    hyperparameters={"paper": Hyperparameters(batch_size=16, epochs=20, max_length=164)},
    counts={"train": 701, "dev": 99, "test": 204},
    sources=(
        files("sib200/{language}/{split}.tsv", _convert, read=read_quoted, codes=FLORES),
        hub("Davlan/sib200/{language}", _convert, codes=FLORES, languages=tuple(FLORES)),
    ),
)
