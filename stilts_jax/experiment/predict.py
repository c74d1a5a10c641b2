"""Predictions on a user's own texts, from Python or from a file with columns."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.evaluation.evaluate import DECODERS
from stilts_jax.evaluation.predict import predict
from stilts_jax.evaluation.retrieval import Embedder
from stilts_jax.experiment.models import open_model, own_options
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.files import check_out, replacing
from stilts_jax.model import Compute, HeadConfig
from stilts_jax.progress import SILENT, Progress, counted
from stilts_jax.tasks.sources.rows import BadRow, Row, parse_json
from stilts_jax.tasks.spec import ChoiceExample, ClassifyExample, EmbedExample, SpanExample, TagExample

MAX_LENGTH = 256
_SUFFIXES = (".tsv", ".csv", ".jsonl")
_OTHER_FORMS = (".csv", ".json", ".jsonl", ".gz", ".parquet", ".xlsx")  # what is written is a plain .tsv
_CHUNK = 16384  # rows of a file that are in memory at once
# By kind of head: what one of the texts must be, and what a file has it in.
_FORMS = {
    "classify": ("a text, or a pair (text, text)", "the column text, or text and pair"),
    "tag": ("a list of words", "the column words, a text with blanks between them (in .jsonl also a list)"),
    "span": ("a pair (question, context)", "the columns question and context"),
    "choice": ("a pair (prompt, [choice, choice, ...])", "the columns prompt, choice1, choice2, ..."),
    "embed": ("a text", "the column text"),
}


def predict_texts(
    model: str | Path,
    texts: Sequence[Any],
    *,
    head: str | None = None,
    max_length: int | None = None,
    tokens_per_batch: int = 0,
    progress: Progress = SILENT,
) -> Any:
    """Predicts the user's own texts with a finished model, in the precision that it was trained with.

        >>> import stilts_jax as sj
        >>> (model,) = (workdir / "grid" / "phases").glob("mnli.s0-*")
        >>> sj.predict_texts(model, [("a premise", "a hypothesis")])[0] in sj.get_task("mnli").labels
        True

    Args:
        model: a phase's folder, a transformers folder or a hub name.
        texts: by kind of head; classify: texts, or pairs of them; tag: lists of words; span: (question, context);
            choice: (prompt, [choices]); embed, or a model without a head: texts. Another form is a ConfigError.
        head: which head, where the model has several; "" takes none of them and embeds.
        max_length: tokens of a row at most; if not given, as the phase was trained (or scored, without a head), or 256.
        tokens_per_batch: padded tokens of a batch; 0: by the device.

    Returns:
        A list with a label's name a text, a tuple of names a list of words, an answer a question, or the number
        of the best choice from 0; for texts that are embedded an array [N, D]. Outputs that the model does not
        name are called LABEL_0, LABEL_1, and so on. A phase that was trained on questions without an answer
        (SQuAD 2.0) answers "" where "no answer" wins at the threshold that was tuned on its dev set.
    """
    return _open(str(model), head, max_length, tokens_per_batch, progress)[1](texts)


def predict_file(model: str, path: Path, out: Path, **options: Any) -> int:
    """Writes the rows of a table with one more column, ``prediction`` (vectors: as .npy); returns their number.

    All rows are looked at first, so that a bad one is named before anything is computed; then they are read again,
    predicted and written some thousands at a time. ``options`` are those of ``predict_texts``.
    """
    check_out(out, path)
    kind, predict_all = _open(model, **options)
    ending = out.suffix.lower()
    writable = ending not in _OTHER_FORMS and (kind == "embed") == (ending == ".npy")
    if not writable or path.suffix.lower() not in _SUFFIXES:
        makes = "vectors, as it has no head" if kind == "embed" else f"predictions of the kind {kind}"
        what = f"The model makes {makes}: {out.name} can't be made of {path.name}."
        fix = f"read from {', '.join(_SUFFIXES)}; write vectors to .npy, all else to .tsv"
        raise ConfigError(what, where="--input, --out", fix=fix)
    columns = dict[str, None]()
    count = sum(1 for _ in _read_texts(path, kind, columns))
    if not columns:
        raise DataError("The table is empty.", where=str(path), fix=f"give it {_FORMS[kind][1]}")
    if "prediction" in columns and kind != "embed":
        what = "The table has a column prediction already."
        raise DataError(what, where=str(path), fix="rename or remove it")
    rows = _read_texts(path, kind, {})
    with replacing(out) as partial, partial.open("xb") as file:
        for start in range(0, max(count, 1), _CHUNK):
            chunk = list(islice(rows, _CHUNK))
            found = predict_all([text for _, text in chunk])
            if kind == "embed":
                if not start:
                    form = {"descr": "<f4", "fortran_order": False, "shape": (count, found.shape[1])}
                    np.lib.format.write_array_header_1_0(file, form)
                file.write(np.ascontiguousarray(found, "<f4").tobytes())
                continue
            if not start:
                file.write(_line([*columns, "prediction"]))
            for (row, _), value in zip(chunk, found):
                shown = " ".join(value) if kind == "tag" else str(value)
                file.write(_line([*(row.fields.get(name, "") for name in columns), shown]))
    return count


def _line(cells: Sequence[Any]) -> bytes:
    """Returns a row of the table; what is no text is spelt as in JSON, and null is an empty cell."""
    plain = ("" if cell is None else cell for cell in cells)
    texts = (cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False) for cell in plain)
    return ("\t".join(" ".join(text.split()) for text in texts) + "\n").encode(errors="replace")


def _open(
    model: str, head: str | None, max_length: int | None, tokens_per_batch: int, progress: Progress
) -> tuple[str, Callable[[Sequence[Any]], Any]]:
    """Opens a model with one of its heads; returns the head's kind, and what predicts texts."""
    own, opened = own_options(model), open_model(model, progress=progress)
    # Of masked language modelling nobody would read a prediction.
    heads = {one: opened.heads[one] for one in opened.heads if opened.heads[one].config.kind != "mlm"}
    name = next(iter(heads), "") if head is None and len(heads) < 2 else head
    if name is None or name not in ("", *heads):
        what = f"The model has no head {name!r}." if name else "The model has several heads."
        fix = nearest(name or "", heads) if heads else "leave it out: the model has no head"
        raise ConfigError(what, where="head", fix=fix)
    found = heads.get(name)
    config = found.config if found else HeadConfig(kind="embed")
    if config.kind == "classify" and config.num_labels == 1:
        what = "The head has one output, a score, and no labels to choose from."
        fix = "take a classifier, or no head at all ('') to embed"
        raise ConfigError(what, where=f"head {name!r}", fix=fix)
    labels = (found and found.labels) or [f"LABEL_{n}" for n in range(config.num_labels)]
    usual = {"max_length": own.get("evaluation.max_length") or MAX_LENGTH}
    cut = FeatureSettings(**opened.rows.get(name, usual))
    length = min(cut.max_length if max_length is None else max_length, opened.config.max_length)
    cut = replace(cut, max_length=length, max_query_length=min(cut.max_query_length, length // 2))
    compute = Compute(dtype=own["compute.dtype"], matmul_precision=own.get("compute.matmul_precision", ""))
    predictor, tokenizer = opened.with_head(name, found, compute), opened.tokenizer
    options: dict[str, Any] = {"head": name or None, "mesh": opened.mesh, "progress": progress}
    options["tokens_per_batch"] = tokens_per_batch

    def predict_all(texts: Sequence[Any]) -> Any:
        examples = _make_examples(config.kind, texts)
        if config.kind == "embed":
            layer = own.get("model.retrieval_layer") or None
            embed = Embedder(*predictor, tokenizer, max_length=length, layer=layer, **options)
            return embed([example.text for example in examples])
        if not examples:
            return []
        features = build_features(config.kind, {"": examples}, tokenizer, cut, training=False)
        rows = predict(*predictor, features, length_multiple=16, **options)
        decoded = DECODERS[config.kind](rows, features, examples)
        if config.kind == "classify":
            return [labels[label] for label in decoded]
        if config.kind == "tag":
            return [tuple(labels[tag] for tag in tags) for tags in decoded]
        if config.kind == "span":
            return [answer.at(opened.thresholds.get(name, np.inf)) for answer in decoded]
        return decoded

    return config.kind, predict_all


def _read_texts(path: Path, kind: str, columns: dict[str, None]) -> Iterator[tuple[Row, Any]]:
    """Yields each row of a table with the text in it, without holding the file: .tsv without quoting, .csv with it.

    ``columns`` gets the names of a header, or of all rows: of JSON each may have its own.
    """
    line, names, suffix, is_empty = 0, list[str](), path.suffix.lower(), False

    def read_lines() -> Iterator[str]:
        nonlocal line
        with path.open("rb") as file:
            for line, content in enumerate(file, 1):
                text = content.decode("utf-8-sig" if line == 1 else "utf-8")
                yield text.removesuffix("\n").removesuffix("\r")

    # An empty line counts as a row, and is refused, unless none follows.
    records: Iterator[Any] = (text.split("\t") for text in read_lines() if text or names)
    if suffix == ".csv":
        records = filter(None, csv.reader((text + "\n" for text in read_lines()), strict=True))
    elif suffix == ".jsonl":
        records = (parse_json(text) for text in read_lines() if text.strip())
    try:
        for values in records:
            if suffix == ".jsonl" and not isinstance(values, dict):
                raise BadRow("this is not a JSON object")
            if suffix != ".jsonl":
                if not names:
                    names = values
                    if len(set(names)) < len(names):
                        raise BadRow("two columns have one name")
                    columns |= dict.fromkeys(names)
                    continue
                if suffix == ".tsv" and (values == [""] or is_empty):
                    if is_empty := values == [""]:
                        continue
                    raise BadRow("the line before it is empty: remove that, or give .jsonl")
                if len(values) != len(names):
                    raise BadRow(f"{counted(len(names), 'column')} expected, {len(values)} found")
                values = dict(zip(names, values))
            if kind == "classify" and columns and ("pair" in values) != ("pair" in columns):
                raise BadRow("some rows have a pair, and others none")
            columns |= dict.fromkeys(values)
            row = Row(line, 0, values)
            yield row, _text_of(kind, row)
    except (BadRow, csv.Error, UnicodeDecodeError) as error:
        reason: object = error
        fix = f"a head of the kind {kind} reads {_FORMS[kind][1]} (`stilts predict --help`)"
        if isinstance(error, UnicodeDecodeError):
            reason = f"byte {error.start + 1} of the line is not UTF-8"
            fix = "give a table that is text in UTF-8, and not packed"
        raise DataError(f"The row can't be used: {reason}.", where=f"{path}:{line}", fix=fix) from error


def _text_of(kind: str, row: Row) -> Any:
    if kind == "tag":
        return row.texts("words") if isinstance(row.fields.get("words"), list) else row["words"].split()
    if kind == "span":
        return row["question"], row["context"]
    if kind == "choice":
        count = sum(name.startswith("choice") and name[6:].isdecimal() for name in row.fields)
        # The prediction is a choice's number, whatever the order of the columns; none may be left out.
        return row["prompt"], [row[f"choice{number}"] for number in range(1, max(count, 1) + 1)]
    return (row["text"], row["pair"]) if "pair" in row.fields and kind == "classify" else row["text"]


def _make_examples(kind: str, texts: Sequence[Any]) -> list[Any]:
    form, made = _FORMS[kind][0], list[Any]()
    is_table = isinstance(texts, Mapping) or hasattr(texts, "columns")  # it yields the names of its columns
    if is_table or isinstance(texts, str):
        what = f"{'A table' if is_table else 'One text'} was given where a list of texts is wanted."
        raise ConfigError(what, where="texts", fix=f"give a list of them: each is {form}")
    for number, text in enumerate(texts):
        try:
            if kind == "tag":
                made.append(TagExample(str(number), _texts(text)))
            elif kind == "choice":
                prompt, choices = text
                made.append(ChoiceExample(str(number), _texts([prompt])[0], _texts(choices)))
            elif kind == "embed":
                made.append(EmbedExample(str(number), *_texts([text])))
            elif kind == "classify" and isinstance(text, str):
                made.append(ClassifyExample(str(number), text))
            else:
                first, second = _texts(text)
                made.append((SpanExample if kind == "span" else ClassifyExample)(str(number), first, second))
        except (TypeError, ValueError) as error:
            what = f"This model predicts {form}, and this is {str(text)[:60]!r}."
            fix = f"give {form} for each prediction"
            raise ConfigError(what, where=f"texts[{number}]", fix=fix) from error
    return made


def _texts(values: Any) -> tuple[str, ...]:
    """Returns the values if all of them are texts in an order."""
    found = () if isinstance(values, str | Mapping | Set) else tuple(values)  # once: it may be an iterator
    if not found or not all(isinstance(value, str) for value in found):
        raise TypeError
    return found
