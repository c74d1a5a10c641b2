"""MasakhaNEWS: the topic of a news article, headline and text, in sixteen languages of Africa; trained on English.

Scored by accuracy; its authors report weighted F1.
"""

from stilts_jax.tasks.languages import codes_of
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import read_quoted
from stilts_jax.tasks.spec import Hyperparameters, Task, files, names

_CODES = codes_of("amh eng fra hau ibo lin lug orm pcm run sna som swa tir xho yor")
_convert = classify(("headline", "text"), label="category")
_PATHS = "masakhanews/{language}/{split}.tsv masakhanews/data/{language}/{split}.tsv"

TASK = Task(
    name="masakhanews",
    title="MasakhaNEWS",
    kind="classify",
    languages=tuple(_CODES),
    split_languages={"dev": ("en",)},
    labels=names("business entertainment health politics religion sports technology"),
    hyperparameters={"paper": Hyperparameters(2e-5, 32, 20)},
    sources=(files(_PATHS, _convert, read=read_quoted, codes=_CODES),),
)
