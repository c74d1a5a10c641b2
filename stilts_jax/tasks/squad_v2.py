"""SQuAD 2.0: questions of which some have no answer, where a model has to say so."""

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.sources.readers import read_squad
from stilts_jax.tasks.spec import Files, Prepared, Sources, Task
from stilts_jax.tasks.squad_v1 import TASK as SQUAD

_PREPARED = {"train": "train", "dev": "validation"}

TASK = Task(
    name="squad_v2",
    version=1,
    kind="span",
    group="intermediate",
    description="extractive question answering with unanswerable questions (SQuAD 2.0)",
    metric="squad_v2",
    reported="dev",
    hyperparameters=SQUAD.hyperparameters,
    counts={"train": 130_319, "dev": 11_873},
    sources=Sources(
        files=(
            Files(
                paths={"train": ("squad/train-v2.0.json",), "dev": ("squad/dev-v2.0.json",)},
                read=read_squad,
                convert=span(unanswerable=True),
            ),
        ),
        hub=(
            Prepared(
                name="rajpurkar/squad_v2",
                config="squad_v2",
                splits=_PREPARED,
                convert=span(unanswerable=True, stripped=True),
            ),
        ),
        tfds=(Prepared(name="squad", config="v2.0", splits=_PREPARED, convert=span(unanswerable=True)),),
    ),
)
