"""Masked language modelling on the user's text: ``text/LL.txt``, with one piece of running text per line.

Languages are those that have a file, by codes of two or three letters (``de``, ``zh-min-nan``). It is trained to the
last step: one line in a hundred, by a hash of the line, is left for a measure of your own. ``text/de-en.tsv`` with a
sentence and its translation in each line is read as language "de-en", both halves as one text, so that either can be
predicted from the other.
"""

from stilts_jax.tasks.sources.converters import share_of
from stilts_jax.tasks.sources.readers import Table, read_text
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import Hyperparameters, Task, TextExample, files


def _line(row: Row, labels: tuple[str, ...]) -> TextExample | None:
    return TextExample(str(row.number), row["text"]) if row.text("text").strip() else None


def _pair(row: Row, labels: tuple[str, ...]) -> TextExample:
    return TextExample(str(row.number), f"{row['text']} {row['translation']}")


def _keep(example: TextExample, split: str) -> bool:
    return (share_of(example.text) < 0.01) == (split == "dev")


TASK = Task(
    name="mlm",
    title="MLM",
    kind="mlm",
    languages=(),
    hyperparameters={"paper": Hyperparameters(batch_size=8, epochs=1)},
    keep=_keep,
    sources=(
        files("text/{language}.txt", _line, "train dev", read=read_text),
        files("text/{language}.tsv", _pair, "train dev", read=Table(("text", "translation"))),
    ),
)
