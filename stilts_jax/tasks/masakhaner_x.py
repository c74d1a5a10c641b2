"""MasakhaNER-X (XTREME-UP): persons, places, organisations and dates in twenty African languages, as spans of texts.

Spans count bytes. There are training data in each language and none in English: ``masakhaner_x@ha`` is trained in
Hausa. That is few-shot in the language, not zero-shot. Most of its test sentences are in MasakhaNER 2.0 too.
"""

from dataclasses import replace

from stilts_jax.tasks.masakhaner2 import TASK as MASAKHANER2
from stilts_jax.tasks.sources.converters import tag_spans
from stilts_jax.tasks.spec import files, names

_PATHS = "masakhaner_x/{split}/{language}.jsonl masakhaner_x/{language}/{split}.jsonl"
_convert = tag_spans(start="start_byte", end="limit_byte", in_bytes=True, id="example_id")

TASK = replace(
    MASAKHANER2,
    name="masakhaner_x",
    title="MasakhaNER-X",
    version=2,  # marks are parts of words
    languages=names("am bbj bm ee ha ig lg luo mos ny pcm rw sn sw tn tw wo xh yo zu"),
    sources=(files(_PATHS, _convert, "train dev:validation test"),),
)
