"""Universal NER: persons, places and organisations in treebanks of Universal Dependencies; trained on English (EWT).

All treebanks of a language are read together (Chinese-GSDSIMP says GSD's sentences again in the other script: leave one
of the two out, or each counts twice). Names of other kinds (OTH) and words that were not annotated count as O.
"""

from stilts_jax.tasks.panx import TASK as PANX
from stilts_jax.tasks.sources.converters import tag
from stilts_jax.tasks.sources.readers import Columns
from stilts_jax.tasks.spec import Hyperparameters, Task, files, names, pairs

_READ, _CODES = Columns(word=1, tag=2, comments=True), pairs("nb:nob nn:nno")
_convert = tag(renamed={"B-OTH": "O", "I-OTH": "O", "-": "O"})

TASK = Task(
    name="uner",
    title="UNER",
    kind="tag",
    languages=names("ceb da de en hr nb nn pt qaf ru sk sr sv tl zh"),
    split_languages={"dev": ("en",)},
    labels=PANX.labels,
    hyperparameters={"paper": Hyperparameters(2e-5, 32, 10)},
    counts={"train": {"en": 12_543}, "dev": {"en": 2_001}},
    sources=(files("uner/**/{language}_*-ud-{split}.iob2", _convert, read=_READ, codes=_CODES),),
)
