"""Social IQa: what people do, feel or want, three answers. The first of the two steps of XCOPA's training."""

from stilts_jax.tasks.sources.converters import pick_label
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ChoiceExample, Files, Hyperparameters, Prepared, Sources, Task


def _convert(row: Row) -> ChoiceExample:
    answers = tuple(row[f"answer{letter}"] for letter in "ABC")
    label = pick_label(row, "correct", "ABC") if "correct" in row.fields else pick_label(row, "label", "123")
    return ChoiceExample(str(row.number), f"{row['context']} {row['question']}", answers, label)


XTREME_CHOICE = Hyperparameters(3e-5, 32, 5, max_length=128, warmup=0, weight_decay=0)

TASK = Task(
    name="siqa",
    version=1,
    kind="choice",
    group="intermediate",
    description="commonsense about people, three answers (Social IQa 1.4)",
    reported="dev",
    hyperparameters={"paper": XTREME_CHOICE, "xtreme": XTREME_CHOICE},
    counts={"train": 33_410, "dev": 1_954},
    sources=Sources(
        files=(
            Files(
                paths={
                    "train": ("siqa/socialIQa_v1.4_trn.jsonl",),
                    "dev": ("siqa/socialIQa_v1.4_dev.jsonl",),
                    "test": ("siqa/socialIQa_v1.4_tst.jsonl",),
                },
                read=read_jsonl,
                convert=_convert,
            ),
        ),
        hub=tuple(
            Prepared(
                name=name, config="default", splits={"train": "train", "dev": "validation"}, convert=_convert
            )
            for name in (
                "lighteval/siqa",
                "allenai/social_i_qa",
            )  # the second is a script, converted by the hub
        ),
    ),
)
