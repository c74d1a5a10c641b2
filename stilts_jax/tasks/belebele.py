"""Belebele: questions about passages of FLORES-200 with four answers, in 122 languages; trained on Cosmos QA.

Its passages hold 860 of SIB-200's 1,004 sentences: do not train on one and report the other.
"""

from stilts_jax.tasks.languages import codes_of
from stilts_jax.tasks.sources.converters import choice
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, names

CODES = codes_of("""
    Latn afr als arb azj bam ben cat ceb ces dan deu eng est eus fin fra fuv gaz grn hat hau hin hrv hun ibo ilo ind
    isl ita jav kac kea kin lin lit lug luo lvs mlt mri nld nob npi nso nya plt pol por ron sin slk slv sna som sot
    spa ssw sun swe swh tgl tsn tso tur urd uzn vie war wol xho yor zsm zul Arab acm apc arb ars ary arz ckb pbt pes
    snd urd Cyrl bul kaz khk kir mkd rus srp tgk ukr Deva hin mar npi Beng asm ben Ethi amh tir Mymr mya shn Armn
    hye Geor kat Grek ell Gujr guj Guru pan Hang kor Hans zho Hant zho Hebr heb Jpan jpn Khmr khm Knda kan Laoo lao
    Mlym mal Orya ory Sinh sin Taml tam Telu tel Thai tha Tibt bod
""")
_COLUMNS = (("flores_passage", "question"), names("mc_answer1 mc_answer2 mc_answer3 mc_answer4"))
_convert = choice(*_COLUMNS, label="correct_answer_num", spelled="1234", id=("link", "question_number"))

TASK = Task(
    name="belebele",
    title="Belebele",
    kind="choice",
    group="qa",
    languages=tuple(CODES),
    aligned=True,
    train_on=("cosmosqa",),
    hyperparameters={"paper": Hyperparameters(max_length=384)},
    counts={"test": 900},
    sources=(
        files("belebele/{language}.jsonl belebele/data/{language}.jsonl", _convert, "test", codes=CODES),
        hub("facebook/belebele/{language}", _convert, "test", codes=CODES, languages=tuple(CODES)),
    ),
)
