"""Part-of-speech tags of Universal Dependencies in 33 languages (38 in XTREME-R), trained on English.

Dev selects (English) and test is reported; kk, th, tl and yo have no dev set. XTREME reads UD 2.5 (2.7 for
the languages of XTREME-R), all treebanks of a language together, with multi-word tokens fused.
"""

from stilts_jax.data.converters import tag
from stilts_jax.data.readers import read_conllu, read_tagged
from stilts_jax.tasks.spec import Files, Hyperparameters, Prepared, Sources, Task, names

LABELS = names("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X")
SPLITS = ("train", "dev", "test")
UNTAGGED = {"_": "X"}  # a few words of some treebanks have no tag
LANGUAGES = names(
    "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh"
)
SPELLED_OUT = dict(
    zip(
        LANGUAGES,
        names(
            "Afrikaans Arabic Bulgarian German Greek English Spanish Estonian Basque Persian Finnish "
            "French Hebrew Hindi Hungarian Indonesian Italian Japanese Kazakh Korean Marathi Dutch "
            "Portuguese Russian Tamil Telugu Thai Tagalog Turkish Urdu Vietnamese Yoruba Chinese"
        ),
        strict=True,
    )
)
_PREPARED = {"train": "train", "dev": "validation", "test": "test"}

TASK = Task(
    name="udpos",
    version=1,
    kind="tag",
    group="tagging",
    description="part-of-speech tagging (Universal Dependencies)",
    languages=LANGUAGES,
    split_languages={"dev": tuple(code for code in LANGUAGES if code not in ("kk", "th", "tl", "yo"))},
    labels=LABELS,
    metric="chunk_f1",
    hyperparameters={
        "paper": Hyperparameters(batch_size=32, epochs=10),
        "xtreme": Hyperparameters(2e-5, 32, 10, max_length=128, warmup=0, weight_decay=0),
    },
    counts={"train": {"en": 21_253}, "dev": {"en": 3_974}},
    sources=Sources(
        files=(
            Files(
                paths={split: (f"udpos/{split}-{{language}}.tsv",) for split in SPLITS},
                read=read_tagged,
                convert=tag(LABELS, renamed=UNTAGGED),
            ),
            Files(
                paths={split: (f"udpos/**/{{language}}_*-ud-{split}.conllu",) for split in SPLITS},
                read=read_conllu,
                convert=tag(LABELS, renamed=UNTAGGED),
            ),
        ),
        hub=(
            Prepared(
                name="google/xtreme",
                config="udpos.{language}",
                splits=_PREPARED,
                codes=SPELLED_OUT,
                languages=LANGUAGES,
                convert=tag(LABELS, words="tokens", tags="pos_tags"),
            ),
        ),
        tfds=(
            Prepared(
                name="xtreme_pos",
                config="xtreme_pos_{language}",
                splits={"train": "train", "dev": "dev", "test": "test"},
                codes={"ta": "tl", "tl": "ta"},  # the builder has Tamil and Tagalog the wrong way round
                languages=LANGUAGES,
                convert=tag(LABELS, words="tokens", tags="upos", renamed=UNTAGGED),
            ),
        ),
    ),
)
