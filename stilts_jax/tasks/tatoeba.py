"""Tatoeba: which sentence of a language translates an English one? Nearest neighbours, untrained, test only.

Queries are English, candidates the other language. In XTREME the English side is sorted, and the hidden gold of English
line i is the line of its translation; LASER's release has both sides in the same order, and is read into the same form.
"""

from stilts_jax.tasks.languages import ISO_639_3
from stilts_jax.tasks.panx import LANGUAGES as PANX
from stilts_jax.tasks.sources.retrieval import build_numbered, build_parallel, build_translated
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, names, pairs, tfds

LASER = ISO_639_3 | pairs("fa:pes lv:lvs ms:zsm sw:swh zh:cmn")
LANGUAGES = tuple(language for language in PANX if language not in ("en", "ms", "my", "yo"))
_ALL = (*LANGUAGES, *names("az lt pl uk ro"))  # with those that only XTREME-R has
_STEM, _LASER_STEM = "tatoeba/{language}-en", "tatoeba/tatoeba.{language}-eng"
_XTREME = {"queries": f"{_STEM}.en", "candidates": f"{_STEM}.{{language}}", "gold": f"{_STEM}.gold"}
_RELEASE = {"queries": f"{_LASER_STEM}.eng", "candidates": f"{_LASER_STEM}.{{language}}"}
_TRANSLATED = {"build": build_translated, "languages": LANGUAGES}

TASK = Task(
    name="tatoeba",
    title="Tatoeba",
    kind="embed",
    languages=_ALL,
    retrieval="nearest",
    hyperparameters={"paper": Hyperparameters(max_length=512)},
    sources=(
        files(_XTREME, splits="test", build=build_numbered),
        files(_RELEASE, splits="test", build=build_parallel, codes=LASER),
        hub("google/xtreme/tatoeba.{language}", splits="test:validation", codes=LASER, **_TRANSLATED),
        tfds("tatoeba/tatoeba_{language}", splits="test:train", **_TRANSLATED),
    ),
)
