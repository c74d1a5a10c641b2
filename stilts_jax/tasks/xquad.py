"""XQuAD: 240 paragraphs of SQuAD's dev set in eleven languages (and Romanian), trained on SQuAD 1.1.

There is only a test split. XTREME-R's download leaves Romanian out, though it is published beside the others.
TFDS's builder is not read: it downloads 3.3 GB for these 12 MB.
"""

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.sources.readers import read_squad
from stilts_jax.tasks.spec import Files, Hyperparameters, Prepared, Sources, Task, names

LANGUAGES = names("en es de el ru tr ar vi th zh hi")

TASK = Task(
    name="xquad",
    version=1,
    kind="span",
    group="qa",
    description="extractive question answering, SQuAD paragraphs translated into 11 languages",
    languages=LANGUAGES,
    metric="squad",
    train_on=("squad_v1",),
    hyperparameters={
        "paper": Hyperparameters(batch_size=16, epochs=2, max_length=384),
        "xtreme": Hyperparameters(3e-5, 32, 3, max_length=384, warmup=500, weight_decay=1e-4),
    },
    counts={"test": 1_190},
    sources=Sources(
        files=(Files(paths={"test": ("xquad/xquad.{language}.json",)}, read=read_squad, convert=span()),),
        hub=(
            Prepared(
                name="google/xquad",
                config="xquad.{language}",
                splits={"test": "validation"},
                languages=(*LANGUAGES, "ro"),
                convert=span(stripped=True),
            ),
            Prepared(
                name="google/xtreme",
                config="XQuAD.{language}",
                splits={"test": "validation"},
                languages=LANGUAGES,
                convert=span(stripped=True),
            ),
        ),
    ),
)
