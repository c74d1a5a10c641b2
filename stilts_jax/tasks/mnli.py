"""MultiNLI: does a premise entail, contradict or say nothing about a hypothesis?"""

from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import Table
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub, names, pairs, tfds

LABELS = names("contradiction entailment neutral")  # the hub has another order: labels are matched by name
SPELLINGS = pairs("contradictory:contradiction c:contradiction e:entailment n:neutral")
SENTENCES = ("sentence1", "sentence2")
released = classify(*SENTENCES, label="gold_label", id="pairID", dropped={"gold_label": "-"})
COLUMNS = ("premise", "hypothesis", "label")
prepared = classify("premise", "hypothesis")
xtreme = classify("premise", "hypothesis", renamed=SPELLINGS)
_translated = classify("premise", "hypo", renamed=SPELLINGS)
_SPLITS = "train dev:dev_matched dev_mismatched"
_PREPARED = "train dev:validation_matched dev_mismatched:validation_mismatched"
_NAME = "multinli_1.0_{split}.jsonl"
_TRANSLATED = "multinli.train.{language}.tsv"
LANGUAGES = names("ar bg de el en es fr hi ru sw th tr ur vi zh")

TASK = Task(
    name="mnli",
    title="MNLI",
    kind="classify",
    group="intermediate",
    labels=LABELS,
    hyperparameters={"paper": Hyperparameters(batch_size=24, epochs=2)},
    counts={"train": 392_702, "dev": 9_815, "dev_mismatched": 9_832},
    sources=(
        files(f"mnli/{_NAME} mnli/multinli_1.0/{_NAME}", released, _SPLITS),
        files("mnli/{split}.tsv MNLI/{split}.tsv", classify(*SENTENCES, label="gold_label"), _SPLITS),
        # XNLI's translations of the training set, and the English one as XTREME has it.
        files(f"mnli/{_TRANSLATED} XNLI-MT-1.0/multinli/{_TRANSLATED}", _translated, "train"),
        files("xnli/train-{language}.tsv", xtreme, "train", read=Table(COLUMNS)),
        hub("nyu-mll/glue/mnli", prepared, _PREPARED),
        hub("facebook/xnli/{language}", prepared, "train", languages=LANGUAGES),
        # The builder xtreme_xnli is not read: it lost 132 of the 392,702 rows of each translation.
        tfds("multi_nli", prepared, _PREPARED),
    ),
)
