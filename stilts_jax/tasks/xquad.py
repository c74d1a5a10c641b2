"""XQuAD: 240 paragraphs of SQuAD's dev set in eleven languages (and Romanian), trained on SQuAD 1.1.

XTREME-R's download leaves Romanian out, though it is published beside the others. TFDS's builder is not read: it
downloads 3.3 GB for these 12 MB.
"""

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, names

LANGUAGES = names("en es de el ru tr ar vi th zh hi")
_ALL = (*LANGUAGES, "ro")
_SPLITS = "test:validation"

TASK = Task(
    name="xquad",
    title="XQuAD",
    kind="span",
    languages=_ALL,
    aligned=True,
    train_on=("squad_v1",),
    hyperparameters={
        "paper": Hyperparameters(batch_size=16, epochs=2, max_length=384),
        "xtreme": Hyperparameters(3e-5, 32, 3, max_length=384, warmup=500, weight_decay=1e-4),
    },
    counts={"test": 1_190},
    sources=(
        files("xquad/xquad.{language}.json", span(), "test"),
        hub("google/xquad/xquad.{language}", span(stripped=True), _SPLITS, languages=_ALL),
        hub("google/xtreme/XQuAD.{language}", span(stripped=True), _SPLITS, languages=LANGUAGES),
    ),
)
