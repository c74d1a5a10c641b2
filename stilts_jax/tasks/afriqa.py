"""AfriQA: questions in nine African languages, whose answers are in English or French passages; trained on SQuAD 1.1.

In up to a fifth of the rows the answer does not stand at its place. Then it is looked for in the passage; where it is
not there (a yes, another wording), the row is scored, not trained on. Rows without passage or answer are dropped.
"""

from stilts_jax.tasks.languages import codes_of
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.rows import BadRow, Row, describe
from stilts_jax.tasks.spec import SpanExample, Task, files
from stilts_jax.tasks.xquad import TASK as XQUAD

_CODES = codes_of("bem fon hau ibo kin swa twi yor zul")  # of Wolof no passages were released
_PATH = "afriqa/gold_passages/{language}/gold_span_passages.afriqa.{language}.*.{split}.json"


def _convert(row: Row, labels: tuple[str, ...]) -> SpanExample | None:
    if (passage := row.value("context")) in (None, ""):
        return None
    answer = row.part("answer_pivot")
    texts, starts = answer.texts("text"), answer.value("answer_start")
    if type(starts) is not list or any(type(start) is not int for start in starts):
        raise BadRow(f"answer_start is {describe(starts)}, not a list of numbers")
    if not any(texts[:1]):
        return None
    passage, start = row["context"], starts[0] if starts else -1
    if start < 0 or not passage.startswith(texts[0], start):
        start = passage.find(texts[0])
    return SpanExample(row.id("id"), row["question_lang"], passage, ((texts[0], start),))


def _keep(example: SpanExample, split: str) -> bool:
    return split != "train" or example.answers[0][1] >= 0


TASK = Task(
    name="afriqa",
    title="AfriQA",
    kind="span",
    languages=tuple(_CODES),
    split_languages={"dev": tuple(code for code in _CODES if code not in ("sw", "yo"))},
    train_on=("squad_v1",),
    hyperparameters=XQUAD.hyperparameters,
    keep=_keep,
    sources=(files(_PATH, _convert, codes=_CODES, read=read_jsonl),),
)
