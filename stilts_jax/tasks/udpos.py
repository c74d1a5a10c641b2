"""Part-of-speech tags of Universal Dependencies in 33 languages (38 in XTREME-R), trained on English.

XTREME reads UD 2.5 (2.7 for the languages of XTREME-R), all treebanks of a language together, with multi-word tokens
fused; on GitHub large ones lie in several files. It is read from files only: the hub's XTREME and the TFDS builder
xtreme_pos take every treebank whose name contains that of the language (Ancient Greek with Greek, Classical Chinese
with Chinese), and they split fused words.
"""

from stilts_jax.tasks.sources.converters import tag
from stilts_jax.tasks.sources.readers import read_tagged
from stilts_jax.tasks.spec import XTREME, Hyperparameters, Task, counts, files, names

UNTAGGED = {"_": "X"}  # a few words of some treebanks have no tag
LANGUAGES = names("""
    af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh
""")
_ALL = (*LANGUAGES, *names("lt pl uk wo ro"))  # with those that only XTREME-R has

TASK = Task(
    name="udpos",
    title="POS",
    kind="tag",
    languages=_ALL,
    split_languages={"dev": tuple(code for code in _ALL if code not in ("kk", "th", "tl", "yo"))},
    labels=names("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"),
    hyperparameters={"paper": Hyperparameters(batch_size=32, epochs=10), "xtreme": XTREME(2e-5, 32, 10)},
    # Sentences of Universal Dependencies 2.5, where all treebanks of the language count as XTREME has them.
    counts={
        "train": {"en": 21_253},
        "dev": counts("""
            af:194 ar:909 bg:1115 el:403 en:3974 es:3054 et:3125 eu:1798 fa:599 fi:3239 he:484 hi:1659 hu:441 id:559
            it:2278 ja:511 ko:3016 mr:46 nl:1394 pt:1770 ta:80 te:131 tr:988 ur:552 vi:800"""),
        "test": counts("""
            af:425 ar:1680 bg:1116 el:456 en:5440 es:3147 et:3760 eu:1799 fa:600 fi:4422 he:491 hi:2684 hu:449 id:1557
            it:3518 ja:2372 kk:1047 ko:4276 mr:47 nl:1471 pt:2681 ta:120 te:146 th:1000 tl:55 tr:4785 ur:535 vi:800
            yo:100"""),
    },
    sources=(
        files("udpos/{split}-{language}.tsv", tag(renamed=UNTAGGED), read=read_tagged),
        files("udpos/**/{language}_*-ud-{split}*.conllu", tag(renamed=UNTAGGED)),
    ),
)
