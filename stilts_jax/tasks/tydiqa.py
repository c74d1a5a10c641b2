"""TyDi QA, gold passage: questions of people who wanted to know, in nine languages; trained on English only.

The public dev file is the test set, which is reported. For selection, a tenth of the English training questions is set
apart, whole paragraphs at a time and the same ones everywhere (by a hash of the paragraph). XTREME's download cuts
training ids down to their last part, which is not unique, so there rows are numbered.
"""

from collections.abc import Iterator

from stilts_jax.tasks.sources.converters import share_of, span
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import SpanExample, Task, counts, files, hub, pairs, tfds
from stilts_jax.tasks.xquad import TASK as XQUAD


def _by_language(row: Row) -> Iterator[tuple[str, Row]]:
    yield row.id("id").partition("-")[0], row


_CODES = pairs("""
    en:english ar:arabic bn:bengali fi:finnish id:indonesian ko:korean ru:russian sw:swahili te:telugu
""")
_MIXED = {"by_language": _by_language, "codes": _CODES}
_FOLDER, _ALL = "tydiqa/tydiqa-goldp-v1.1-{split}", "tydiqa-goldp-v1.1-{split}.json"
_CARVED, _SPLITS = "train dev:train", "train dev:train test:validation"


def _keep(example: SpanExample, split: str) -> bool:
    return split == "test" or (share_of(example.context.strip()) < 0.1) == (split == "dev")


TASK = Task(
    name="tydiqa",
    version=2,
    title="TyDiQA",
    kind="span",
    languages=tuple(_CODES),
    split_languages={"dev": ("en",)},
    hyperparameters=XQUAD.hyperparameters,
    counts={
        "train": {"en": 3_338},
        "dev": {"en": 358},
        "test": counts("ar:921 bn:113 en:440 fi:782 id:565 ko:276 ru:812 sw:499 te:669"),
    },
    keep=_keep,
    sources=(
        files(f"{_FOLDER}/tydiqa.goldp.{{language}}.{{split}}.json", span(numbered=True), _CARVED),
        files(f"{_FOLDER}/tydiqa.goldp.{{language}}.{{split}}.json", span(), "test:dev"),
        files(f"{_FOLDER}/tydiqa-goldp-dev-{{language}}.json", span(), "test:dev", codes=_CODES),
        files(f"{_FOLDER}.json {_FOLDER}/{_ALL}", span(), f"{_CARVED} test:dev", **_MIXED),
        hub("google-research-datasets/tydiqa/secondary_task", span(stripped=True), _SPLITS, **_MIXED),
        hub("google/xtreme/tydiqa", span(stripped=True), _SPLITS, **_MIXED),
        tfds("tydi_qa/goldp", span(), _CARVED, **_MIXED),
        tfds("tydi_qa/goldp", span(), "test:validation-{language}", languages=tuple(_CODES)),
    ),
)
