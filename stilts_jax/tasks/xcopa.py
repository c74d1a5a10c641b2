"""XCOPA: COPA in eleven languages. Training has two steps: Social IQa, then COPA with the same head.

English COPA trains and selects; test is reported. Items pair across languages.
"""

from stilts_jax.tasks.copa import convert, read_copa
from stilts_jax.tasks.siqa import TASK as SIQA
from stilts_jax.tasks.spec import Files, Prepared, Sources, Task, names

TASK = Task(
    name="xcopa",
    version=1,
    kind="choice",
    group="classification",
    description="cause or effect in 11 languages, two answers (XCOPA)",
    languages=names("et ht id it qu sw ta th tr vi zh"),
    train_on=("siqa", "copa"),
    hyperparameters=SIQA.hyperparameters,
    counts={"dev": 100, "test": 500},
    sources=Sources(
        files=(
            Files(
                paths={
                    split: (
                        f"xcopa/{name}-{{language}}.jsonl",
                        f"xcopa/data/{{language}}/{name}.{{language}}.jsonl",
                        f"xcopa/{{language}}/{name}.{{language}}.jsonl",
                    )
                    for split, name in (("train", "train"), ("dev", "val"), ("test", "test"))
                },
                read=read_copa,
                convert=convert,
            ),
        ),
        hub=(
            Prepared(
                name="cambridgeltl/xcopa",
                config="{language}",
                splits={"dev": "validation", "test": "test"},
                languages=names("et ht id it qu sw ta th tr vi zh"),
                convert=convert,
            ),
        ),
    ),
)
