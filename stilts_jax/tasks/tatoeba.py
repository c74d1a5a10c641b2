"""Tatoeba: which sentence of a language translates an English one? Nearest neighbours, untrained, test only.

Queries are English, candidates the other language. In XTREME the English side is sorted, and the hidden gold
of English line i is the line of its translation; LASER's release has both sides in the same order, and is
read into the same form.
"""

from stilts_jax.tasks.panx import LANGUAGES as PANX
from stilts_jax.tasks.sources.retrieval import build_numbered, build_parallel, build_translated
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, pairs, tfds

LASER = pairs("""
    af:afr ar:ara az:aze be:bel bg:bul bn:ben br:bre bs:bos ca:cat cs:ces cy:cym da:dan de:deu el:ell eo:epo
    es:spa et:est eu:eus fa:pes fi:fin fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg he:heb hi:hin hr:hrv hu:hun
    hy:hye ia:ina id:ind io:ido is:isl it:ita ja:jpn jv:jav ka:kat kk:kaz km:khm ko:kor ku:kur kw:cor la:lat
    lt:lit lv:lvs mk:mkd ml:mal mn:mon mr:mar ms:zsm nb:nob nl:nld nn:nno oc:oci pl:pol pt:por ro:ron ru:rus
    sk:slk sl:slv sq:sqi sr:srp sv:swe sw:swh ta:tam te:tel th:tha tk:tuk tl:tgl tr:tur tt:tat ug:uig uk:ukr
    ur:urd uz:uzb vi:vie yi:yid zh:cmn
""")
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
