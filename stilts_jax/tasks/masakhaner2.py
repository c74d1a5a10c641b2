"""MasakhaNER 2.0: names and dates in news of twenty African languages; ``masakhaner2@ha`` is trained in Hausa."""

from stilts_jax.tasks.languages import codes_of
from stilts_jax.tasks.sources.converters import tag
from stilts_jax.tasks.sources.readers import Columns
from stilts_jax.tasks.spec import Hyperparameters, Task, files, names

_CODES = codes_of("bam bbj ewe fon hau ibo kin lug luo mos nya pcm sna swa tsn twi wol xho yor zul")

TASK = Task(
    name="masakhaner2",
    title="MasakhaNER 2.0",
    kind="tag",
    languages=tuple(_CODES),
    split_languages={"dev": ("sw",)},
    source_language="sw",
    labels=names("B-DATE B-LOC B-ORG B-PER I-DATE I-LOC I-ORG I-PER O"),
    hyperparameters={"paper": Hyperparameters(2e-5, 32, 10)},
    sources=(files("masakhaner2/{language}/{split}.txt", tag(), codes=_CODES, read=Columns(separator=" ")),),
)
