"""Tatoeba: which sentence of a language translates an English one? Nearest neighbours, untrained, test only.

Queries are English, candidates the other language. In XTREME the English side is sorted, and the hidden gold
of English line i is the line of its translation; LASER's release has both sides in the same order, and is
read into the same form.
"""

from stilts_jax.tasks.languages import ISO_639_3
from stilts_jax.tasks.panx import LANGUAGES as PANX
from stilts_jax.tasks.sources.retrieval import build_numbered, build_parallel, build_translated
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, pairs, tfds

LASER = ISO_639_3 | pairs("fa:pes lv:lvs ms:zsm sw:swh zh:cmn")
LANGUAGES = tuple(language for language in PANX if language not in ("en", "ms", "my", "yo"))
_XTREME, _RELEASE = "tatoeba/{language}-en", "tatoeba/tatoeba.{language}-eng"

TASK = Task(
    name="tatoeba",
    title="Tatoeba",
    kind="embed",
    group="retrieval",
    languages=LANGUAGES,
    retrieval="nearest",
    hyperparameters={"paper": Hyperparameters(max_length=512)},
    sources=(
        files(
            {"queries": f"{_XTREME}.en", "candidates": f"{_XTREME}.{{language}}", "gold": f"{_XTREME}.gold"},
            splits="test",
            build=build_numbered,
        ),
        files(
            {"queries": f"{_RELEASE}.eng", "candidates": f"{_RELEASE}.{{language}}"},
            splits="test",
            build=build_parallel,
            codes=LASER,
        ),
        hub(
            "google/xtreme/tatoeba.{language}",
            splits={"test": "validation"},
            build=build_translated,
            codes=LASER,
            languages=LANGUAGES,
        ),
        tfds(
            "tatoeba/tatoeba_{language}",
            splits={"test": "train"},
            build=build_translated,
            languages=LANGUAGES,
        ),
    ),
)
