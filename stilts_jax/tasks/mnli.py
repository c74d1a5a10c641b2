"""MultiNLI: does a premise entail, contradict or say nothing about a hypothesis?

The label order is contradiction, entailment, neutral. Data of the hub has another one, so labels are matched by name.
"""

from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import Table, read_jsonl
from stilts_jax.tasks.spec import Files, Hyperparameters, Prepared, Sources, Task, names

LABELS = ("contradiction", "entailment", "neutral")
SPELLINGS = {"contradictory": "contradiction", "c": "contradiction", "e": "entailment", "n": "neutral"}

_released = classify(
    "sentence1", "sentence2", label="gold_label", labels=LABELS, id="pairID", dropped={"gold_label": "-"}
)
_glue = classify("sentence1", "sentence2", label="gold_label", labels=LABELS)
_xtreme = classify("premise", "hypothesis", labels=LABELS, renamed=SPELLINGS)
_prepared = classify("premise", "hypothesis", labels=LABELS)
_SPLITS = {"train": "train", "dev": "validation_matched", "dev_mismatched": "validation_mismatched"}
_TRANSLATIONS = names("ar bg de el en es fr hi ru sw th tr ur vi zh")


TASK = Task(
    name="mnli",
    version=1,
    kind="classify",
    group="intermediate",
    description="natural language inference, ten genres of English (MultiNLI 1.0)",
    labels=LABELS,
    reported="dev",
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=2)},
    counts={"train": 392_702, "dev": 9_815, "dev_mismatched": 9_832},
    sources=Sources(
        files=(
            Files(
                paths={
                    "train": ("mnli/multinli_1.0_train.jsonl", "mnli/multinli_1.0/multinli_1.0_train.jsonl"),
                    "dev": (
                        "mnli/multinli_1.0_dev_matched.jsonl",
                        "mnli/multinli_1.0/multinli_1.0_dev_matched.jsonl",
                    ),
                    "dev_mismatched": (
                        "mnli/multinli_1.0_dev_mismatched.jsonl",
                        "mnli/multinli_1.0/multinli_1.0_dev_mismatched.jsonl",
                    ),
                },
                read=read_jsonl,
                convert=_released,
            ),
            Files(
                paths={
                    "train": ("mnli/train.tsv", "MNLI/train.tsv"),
                    "dev": ("mnli/dev_matched.tsv", "MNLI/dev_matched.tsv"),
                    "dev_mismatched": ("mnli/dev_mismatched.tsv", "MNLI/dev_mismatched.tsv"),
                },
                read=Table(wanted=("sentence1", "sentence2", "gold_label")),
                convert=_glue,
            ),
            # XNLI's translations of the training set, and the English one as XTREME has it.
            Files(
                paths={
                    "train": (
                        "mnli/multinli.train.{language}.tsv",
                        "XNLI-MT-1.0/multinli/multinli.train.{language}.tsv",
                    )
                },
                read=Table(wanted=("premise", "hypo", "label")),
                convert=classify("premise", "hypo", labels=LABELS, renamed=SPELLINGS),
            ),
            Files(
                paths={"train": ("xnli/train-{language}.tsv",)},
                read=Table(("premise", "hypothesis", "label")),
                convert=_xtreme,
            ),
        ),
        hub=(
            Prepared(name="nyu-mll/glue", config="mnli", splits=_SPLITS, convert=_prepared),
            Prepared(
                name="facebook/xnli",
                config="{language}",
                splits={"train": "train"},
                languages=_TRANSLATIONS,
                convert=_prepared,
            ),
        ),
        # The builder xtreme_xnli is not read: it lost 132 of the 392,702 rows of each translation.
        tfds=(Prepared(name="multi_nli", splits=_SPLITS, convert=_prepared),),
    ),
)
