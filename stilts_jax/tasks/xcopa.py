"""XCOPA: COPA in eleven languages. Training has two steps: Social IQa, then COPA with the same head."""

from stilts_jax.tasks.copa import SPLITS, convert, read_copa
from stilts_jax.tasks.siqa import TASK as SIQA
from stilts_jax.tasks.spec import Task, files, hub, names

LANGUAGES = names("et ht id it qu sw ta th tr vi zh")
_NAME = "{language}/{split}.{language}.jsonl"
_PATHS = f"xcopa/{{split}}-{{language}}.jsonl xcopa/data/{_NAME} xcopa/{_NAME}"

TASK = Task(
    name="xcopa",
    title="XCOPA",
    kind="choice",
    languages=LANGUAGES,
    aligned=True,
    train_on=("siqa", "copa"),
    hyperparameters=SIQA.hyperparameters,
    counts={"dev": 100, "test": 500},
    sources=(
        files(_PATHS, convert, SPLITS, read=read_copa),
        hub("cambridgeltl/xcopa/{language}", convert, "dev test", languages=LANGUAGES),
    ),
)
