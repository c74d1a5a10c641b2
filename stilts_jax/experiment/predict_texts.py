"""Predictions on a user's own texts, from Python or from a file with columns."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.evaluation.decode import DECODERS
from stilts_jax.evaluation.predict import predict
from stilts_jax.evaluation.retrieval import Embedder
from stilts_jax.experiment.finished import open_model, own_options
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.files import write_whole
from stilts_jax.model import Compute, HeadConfig, Model, TaskHead
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.readers import Table, read_csv, read_jsonl
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.spec import ChoiceExample, ClassifyExample, EmbedExample, SpanExample, TagExample

READERS: Mapping[str, Callable[..., Any]] = {".tsv": Table(), ".csv": read_csv, ".jsonl": read_jsonl}
MAX_LENGTH = 256
# By kind of head: what one of the texts must be.
_FORMS = {
    "classify": "a text, or a pair (text, text)",
    "tag": "a list of words",
    "span": "a pair (question, context)",
    "choice": "a pair (prompt, [choice, choice, ...])",
    "embed": "a text",
}


def predict_texts(
    model: str | Path,
    texts: Sequence[Any],
    *,
    head: str | None = None,
    max_length: int | None = None,
    tokens_per_batch: int = 16384,
    progress: Progress = SILENT,
) -> Any:
    """Predicts the user's own texts with a finished model, in the precision that it was trained with.

    Args:
        model: a phase's folder, a transformers folder or a hub name.
        texts: by kind of head; classify: texts, or pairs of them; tag: lists of words; span: (question, context);
            choice: (prompt, [choices]); embed, or a model without a head: texts.
        head: which head, where the model has several; "" takes none of them and embeds.
        max_length: tokens of a row at most; as the phase was trained, else 256, if not given.
        tokens_per_batch: padded tokens of a batch.
        progress: counts tokens.

    Returns:
        A list with a label's name a text, a tuple of names a list of words, an answer a question, or the number
        of the best choice from 0; for texts that are embedded an array [N, D]. Outputs that the model does not
        name are called LABEL_0, LABEL_1, and so on.

    Raises:
        ConfigError: the texts do not have the form that the head needs; the first that does not is named.
    """
    return _Predictor(str(model), head, max_length, tokens_per_batch, progress)(texts)


def predict_file(model: str, path: Path, out: Path, head: str | None, *options: Any) -> int:
    """Writes the rows of a table with one more column, ``prediction`` (vectors: as .npy); returns their number."""
    predictor = _Predictor(model, head, *options)
    if (predictor.kind == "embed") != (out.suffix == ".npy") or path.suffix not in READERS:
        raise ConfigError(
            f"A model of the kind {predictor.kind} can't make {out.name} of {path.name}.",
            where="--input, --out",
            fix=f"read from {', '.join(READERS)}; write vectors to .npy, all else to .tsv",
        )
    rows = list(READERS[path.suffix](path, "", Problems("--input")))
    found = predictor(list(_read_columns(predictor.kind, rows, path)))
    if predictor.kind == "embed":
        buffer = io.BytesIO()
        np.save(buffer, found)
        write_whole(out, buffer.getvalue())
        return len(rows)
    lines = ["\t".join([*(rows[0].fields if rows else ()), "prediction"])]
    for row, value in zip(rows, found):
        shown = " ".join(value) if predictor.kind == "tag" else str(value)
        lines.append("\t".join(" ".join(str(cell).split()) for cell in (*row.fields.values(), shown)))
    write_whole(out, "\n".join(lines) + "\n")
    return len(rows)


class _Predictor:
    """A model that is open for predictions with one of its heads."""

    def __init__(
        self, model: str, head: str | None, max_length: int | None, tokens: int, progress: Progress
    ) -> None:
        own, self._opened = own_options(model), open_model(model, progress=progress)
        self._name = _pick_head(self._opened.heads, head)
        self._head = self._opened.heads.get(self._name) or TaskHead(HeadConfig(kind="embed"), {})
        self.kind = self._head.config.kind
        longest = self._opened.config.max_length
        self._length = min(max_length or own.get("train.max_length") or MAX_LENGTH, longest)
        compute = Compute(
            dtype=own["compute.dtype"], matmul_precision=own.get("compute.matmul_precision", "")
        )
        heads = ((self._name, self._head.config),) if self._name else ()
        self._model = Model(self._opened.config, heads, compute)
        self._params = {"encoder": self._opened.params, "head": self._head.params}
        self._options: dict[str, Any] = {
            "head": self._name or None,
            "tokens_per_batch": tokens,
            "mesh": self._opened.mesh,
            "progress": progress,
        }

    def __call__(self, texts: Sequence[Any]) -> Any:
        examples, tokenizer = _make_examples(self.kind, texts), self._opened.tokenizer
        if self.kind == "embed":
            params = self._params if self._name else {"encoder": self._params["encoder"]}
            embed = Embedder(self._model, params, tokenizer, max_length=self._length, **self._options)
            return embed([example.text for example in examples])
        if not examples:
            return []
        settings = FeatureSettings(max_length=self._length, max_query_length=min(64, self._length // 2))
        features = build_features(self.kind, {"": examples}, tokenizer, settings, training=False)
        rows = predict(self._model, self._params, features, **self._options)
        found = DECODERS[self.kind](rows, features, examples)
        labels = self._head.labels or tuple(f"LABEL_{n}" for n in range(self._head.config.num_labels))
        if self.kind == "classify":
            return [labels[index] for index in found]
        if self.kind == "tag":
            return [tuple(labels[index] for index in tags) for tags in found]
        return [answer.text for answer in found] if self.kind == "span" else found


def _read_columns(kind: str, rows: Sequence[Row], path: Path) -> Iterator[Any]:
    for row in rows:
        try:
            if kind == "tag":
                yield row["words"].split()
            elif kind == "span":
                yield row["question"], row["context"]
            elif kind == "choice":
                names = [name for name in row.fields if name.startswith("choice")]
                yield row["prompt"], [row[name] for name in names or ["choice1"]]
            else:
                yield (
                    (row["text"], row["pair"]) if "pair" in row.fields and kind == "classify" else row["text"]
                )
        except BadRow as error:
            raise DataError(
                f"The row can't be used: {error}.",
                where=f"{path}:{row.line}",
                fix=f"a head of the kind {kind} reads {_FORMS[kind]}; `stilts predict --help` names the columns",
            ) from error


def _pick_head(heads: Mapping[str, Any], asked: str | None) -> str:
    if asked is None and len(heads) < 2:
        return next(iter(heads), "")
    if asked is None or asked not in ("", *heads):
        raise ConfigError(
            f"The model has no head {asked!r}." if asked else "The model has several heads.",
            where="head",
            fix=nearest(asked or "", heads) if heads else "leave it out: the model has no head",
        )
    return asked


def _make_examples(kind: str, texts: Sequence[Any]) -> list[Any]:
    made: list[Any] = []
    for number, text in enumerate(texts):
        name = str(number)
        try:
            if kind == "tag":
                made.append(TagExample(name, _texts(text)))
            elif kind == "span":
                question, context = _texts(text)
                made.append(SpanExample(name, question, context))
            elif kind == "choice":
                prompt, choices = text
                made.append(ChoiceExample(name, _texts([prompt])[0], _texts(choices)))
            elif kind == "embed":
                made.append(EmbedExample(name, _texts([text])[0]))
            else:
                first, second = _texts(text) if not isinstance(text, str) else (text, None)
                made.append(ClassifyExample(name, first, second))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"This model predicts {_FORMS[kind]}, and this is {str(text)[:60]!r}.",
                where=f"texts[{number}]",
                fix=f"give {_FORMS[kind]} for each prediction",
            ) from error
    return made


def _texts(values: Any) -> tuple[str, ...]:
    """Returns the values if all of them are texts."""
    if isinstance(values, str) or not values or not all(isinstance(value, str) for value in values):
        raise TypeError
    return tuple(values)
