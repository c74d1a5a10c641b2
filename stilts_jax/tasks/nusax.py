"""NusaX: sentiment in English, Indonesian and ten languages of Indonesia; trained on 500 English sentences.

Scored by accuracy; its authors report macro F1.
"""

from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.spec import Hyperparameters, Task, files, names, pairs

_CODES = pairs("""
    ace:acehnese ban:balinese bbc:toba_batak bjn:banjarese bug:buginese en:english id:indonesian jv:javanese
    mad:madurese min:minangkabau nij:ngaju su:sundanese
""")
_convert = classify("text", id="id")

TASK = Task(
    name="nusax",
    title="NusaX",
    kind="classify",
    languages=tuple(_CODES),
    aligned=True,
    split_languages={"dev": ("en",)},
    labels=names("negative neutral positive"),
    hyperparameters={"paper": Hyperparameters(batch_size=16, epochs=20, max_length=128)},
    counts={"train": 500, "dev": 100, "test": 400},
    sources=(files("nusax/{language}/{split}.csv", _convert, "train dev:valid test", codes=_CODES),),
)
