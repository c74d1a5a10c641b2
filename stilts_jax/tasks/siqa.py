"""Social IQa: what people do, feel or want, three answers. The first of the two steps of XCOPA's training."""

from stilts_jax.tasks.sources.converters import choice
from stilts_jax.tasks.spec import XTREME, Task, files, hub, names

_COLUMNS = (("context", "question"), names("answerA answerB answerC"))
_released = choice(*_COLUMNS, label="correct", spelled="ABC")
_prepared = choice(*_COLUMNS, spelled="123")

TASK = Task(
    name="siqa",
    title="SIQA",
    kind="choice",
    group="intermediate",
    hyperparameters={"paper": XTREME(3e-5, 32, 5)},
    counts={"train": 33_410, "dev": 1_954},
    sources=(
        files("siqa/socialIQa_v1.4_{split}.jsonl", _released, "train:trn dev test:tst"),
        hub("lighteval/siqa", _prepared, "train dev"),
        hub("allenai/social_i_qa", _prepared, "train dev"),  # a script, converted by the hub
    ),
)
