"""Tasks on a user's own data, declared in a few lines.

The file ``my_tasks.py`` in the current directory (or on the Python path), used as ``my_tasks:REVIEWS``::

    from stilts_jax.tasks.custom import classify_task

    REVIEWS = classify_task(
        "reviews",
        files={"train": "reviews/train.jsonl", "dev": "reviews/dev.csv", "test": "reviews/test-{language}.csv"},
        labels=("bad", "good"),
        text="review",
        label="verdict",
        languages=("en", "de"),
    )

The end of a file's name says how it is read: ``.jsonl`` (an object per line), ``.csv`` (quoted, with a header),
``.tsv`` (never quoted, with a header), ``.json`` (SQuAD's form), ``.conllu``; ``.gz`` may stand behind any.
Paths are relative to the data root, or absolute. ``dev`` picks the best step (without it the last one is kept), and
``test`` is reported (without it ``dev`` is). A path without ``{language}`` names the file in the task's source
language. In place of ``files`` (or beside it) ``hub="OWNER/NAME/CONFIGURATION"`` and ``tfds="NAME/CONFIGURATION"``
name data sets, and ``splits="train test:theirs"`` their splits. ``codes`` has the language codes of the data by ours,
and ``language_column`` names the column that holds them where a file holds several languages. ``id`` names the column
of ids (rows are numbered where there is none): with ``aligned=True`` rows of one id are translations of each other.
Other fields of ``Task`` (``title``, ``metric``, ``hyperparameters``, ``train_on``, ...) may be given by name. With
``labels=()`` and ``labels_file="labels.json"`` the labels come with the data, as an object from each to its number.
What a function takes besides names columns of the data.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.tasks import spec
from stilts_jax.tasks.sources.converters import choice, classify, pair, span, tag, tag_spans
from stilts_jax.tasks.sources.files import LANGUAGE, reader_of
from stilts_jax.tasks.sources.rows import BadRow, Problems, Row
from stilts_jax.tasks.spec import SPLITS, EmbedExample, Kind, RetrievalSet, Source, Task

# Where the data are, with what stands for each word that is not given.
_DATA = {"files": {}, "hub": "", "tfds": "", "codes": {}, "language_column": "", "id": "", "splits": SPLITS}


def classify_task(
    name: str,
    *,
    labels: Sequence[str],
    text: str = "text",
    pair: str = "",
    label: str = "label",
    **task: Any,
) -> Task:
    """Declares a task with one label for a text or a pair of texts.

    ``labels`` is what the column ``label`` may say. ``pair`` is the column of the second text, if there is one.
    """
    columns = {"text": text, "pair": pair, "label": label}
    return _make_task(name, "classify", classify(text, pair, label=label), columns, labels=labels, **task)


def choice_task(
    name: str,
    *,
    prompt: str | Sequence[str] = "prompt",
    choices: Sequence[str] = ("choice1", "choice2"),
    label: str = "label",
    first: int = 0,
    **task: Any,
) -> Task:
    """Declares a task of choosing a text; ``label`` is the column with the number of the right column of ``choices``.

    ``prompt`` is a column, or several whose texts are joined by spaces; ``first`` is the number of the first choice.
    """
    if isinstance(choices, str) or len(choices) < 2:
        what, fix = f"choices={choices!r} is no sequence of two or more texts.", 'write choices=("a", "b")'
        raise ConfigError(what, where=f"the declaration of task {name!r}", fix=fix)
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    columns = {"label": label, "prompt": prompts, "choices": tuple(choices)}
    spelled = tuple(str(first + number) for number in range(len(choices)))
    convert = choice(prompts, tuple(choices), label=label, spelled=spelled)
    return _make_task(name, "choice", convert, columns, **task)


def tag_task(
    name: str,
    *,
    labels: Sequence[str],
    words: str = "words",
    tags: str = "tags",
    text: str = "text",
    spans: str = "",
    span_fields: Sequence[str] = ("start", "end", "label"),
    in_bytes: bool = False,
    **task: Any,
) -> Task:
    """Declares a task with a tag for each word, from words and tags or from a text and its labelled spans (JSONL).

    Columns of words and tags hold lists, or texts joined by spaces. ``spans`` is the column of a list of objects, whose
    ``span_fields`` say where a span begins, the place behind its end, and its label; the places count characters, or
    ``in_bytes`` those of UTF-8. Then ``labels`` are ``B-LABEL`` (the first word), ``I-LABEL`` and ``O``. Labels of this
    form, and those of a ``labels_file``, are scored by the F1 of whole spans, others word by word (``metric``).
    """
    if not all(one in ("O", ".") or re.match("[BIES]-", str(one)) for one in labels):
        task.setdefault("metric", "token_accuracy")
    if isinstance(span_fields, str) or len(span_fields) != 3:
        what, where = f"span_fields={span_fields!r} is no sequence of three names.", f"task {name!r}"
        raise ConfigError(what, where=f"the declaration of {where}", fix='write ("start", "end", "label")')
    start, end, label = span_fields
    marked = tag_spans(text, spans, start=start, end=end, label=label, in_bytes=in_bytes)
    columns = {"words": words, "tags": tags, "text": text, "spans": spans, "span_fields": tuple(span_fields)}
    return _make_task(name, "tag", marked if spans else tag(words, tags), columns, labels=labels, **task)


def span_task(
    name: str,
    *,
    question: str = "question",
    context: str = "context",
    answer: str = "answer",
    start: str = "answer_start",
    **task: Any,
) -> Task:
    """Declares a task of finding an answer in a context, from SQuAD's form or from rows with one answer each.

    ``start`` is the column of the character of the context where the answer begins, from 0 on.
    """
    columns = {"question": question, "context": context, "answer": answer, "start": start}
    unanswerable = task.get("metric") == "squad_v2"
    convert = span(question, context, answer=answer, start=start, unanswerable=unanswerable)
    return _make_task(name, "span", convert, columns, **task)


def pair_task(name: str, *, first: str = "text", second: str = "positive", id: str = "", **task: Any) -> Task:
    """Declares a retrieval task on pairs: trained as a dual encoder, scored by finding each text's partner.

    Without training files the encoder is scored as it is. A dual encoder is trained to its last step.
    """
    keep = task.get("keep")

    def build(
        rows: Iterable[tuple[Path, Row]], language: str, problems: Problems, split: str = ""
    ) -> RetrievalSet:
        pairs: dict[str, tuple[EmbedExample, EmbedExample]] = {}
        for path, row in rows:
            with problems.skipping(path, row):
                query, answer = (EmbedExample(row.id(id), row[column]) for column in (first, second))
                if keep and not keep(replace(query, positive=answer.text), split):
                    continue
                if query.id in pairs:
                    raise BadRow(f"the id {query.id!r} occurred before")
                pairs[query.id] = query, answer
        queries, candidates = ([both[side] for both in pairs.values()] for side in (0, 1))
        return RetrievalSet(queries, candidates, {name: (name,) for name in pairs})

    task, columns = {"retrieval": "nearest", "id": id, **task}, {"first": first, "second": second}
    return _make_task(name, "embed", pair(first, second), columns, build, **task)


def _make_task(
    name: str,
    kind: Kind,
    convert: Callable[..., Any],
    columns: Mapping[str, Sequence[str]],
    build: Callable[..., RetrievalSet] | None = None,
    **given: Any,
) -> Task:
    where = f"the declaration of task {name!r}"
    data = {word: given.pop(word, default) for word, default in _DATA.items()}
    # These tasks have texts only: pictures would be left out.
    known = {field.name for field in fields(Task)} - {"name", "kind", "sources", "pictures", "reference"}
    for word in given:
        if word not in known:
            fix = nearest(word, known | {*columns, *data})
            raise ConfigError(f"There is no {word!r}.", where=where, fix=fix)
    for word, column in {**columns, "id": data["id"]}.items():
        if not all(isinstance(one, str) for one in (column if isinstance(column, tuple) else [column])):
            raise ConfigError(f"{word}={column!r} is no text.", where=where, fix="name a column")
    listed = ((column,) if isinstance(column, str) else column for column in columns.values())
    read = list(filter(None, chain.from_iterable(listed)))
    if kind != "tag" and len(set(read)) < len(read):  # of tags only some of the columns are read
        what = f"One column stands for two things: {', '.join(read)}."
        raise ConfigError(what, where=where, fix="name each column once")
    language = given.setdefault("source_language", "en")
    languages = (language, *given.setdefault("languages", (language,)))
    # A declared language is found whatever it is called ("german").
    own = {one: one for one in languages if not re.fullmatch(LANGUAGE, one)}
    codes, converted = {**own, **data["codes"]}, _with_id(convert, data["id"])

    def complete(one: Source) -> Source:
        (split,), named = one.splits, "{language}" in f"{one.paths} {one.config} {one.splits}"
        made = build and partial(build, split=split) if given.get("keep") else build
        column = "" if named else data["language_column"]  # a file of one language need not have it
        built = None if split == "train" else made
        return replace(one, codes=codes, convert=converted, by_language=column, build=built)

    sources = tuple(map(complete, _make_sources(data, languages, where)))
    splits = {split for one in sources for split in one.splits}
    for role, usual, other in (("selection", "dev", ""), ("reported", "test", "dev")):
        if given.get(role) and given[role] not in splits:
            what, fix = f"{role}={given[role]!r} has no file.", nearest(given[role], splits)
            raise ConfigError(what, where=where, fix=fix)
        given.setdefault(role, usual if usual in splits else other)
    dev = os.fspath(data["files"].get("dev", ""))
    if dev and "{language}" not in dev and not data["language_column"] and given["reported"] != "dev":
        given.setdefault("split_languages", {"dev": (language,)})
    return Task(name=name, kind=kind, sources=sources, **given)


def _with_id(convert: Callable[..., Any], column: str) -> Callable[..., Any]:
    if not column:
        return convert

    def named(row: Row, labels: tuple[str, ...]) -> Any:
        fields = {**row.fields, "id": row.id(column)}  # questions with answers must have one
        return replace(convert(replace(row, fields=fields), labels), id=row.id(column))

    return named


def _make_sources(data: Mapping[str, Any], languages: Sequence[str], where: str) -> list[Source]:
    """Returns a source for each split of each kind of data that was named."""
    paths, splits, known = data["files"], data["splits"].split(), SPLITS.split()
    found: list[Source] = []
    if not isinstance(paths, Mapping) or not (paths or data["hub"] or data["tfds"]):
        fix = 'write files={"train": "a.csv"}'
        raise ConfigError(f"files={paths!r} names no file of a split.", where=where, fix=fix)
    for split in (*paths, *(one.partition(":")[0] for one in splits)):
        if split not in known:
            raise ConfigError(f"There is no split {split!r}.", where=where, fix=nearest(split, known))
    for split, path in paths.items():
        found.append(spec.files({"": os.fspath(path)}, None, split, language=languages[0]))
        reader_of(found[-1], os.fspath(path))  # raises if the name does not say how it is read
    for kind, make in (("hub", spec.hub), ("tfds", spec.tfds)):
        name, by_name = data[kind], "{language}" in f"{data[kind]} {splits}"
        if not isinstance(name, str) or (name and kind == "hub" and "/" not in name):
            raise ConfigError(f"{kind}={name!r} is no data set.", where=where, fix='write hub="OWNER/NAME"')
        has = tuple(dict.fromkeys(languages)) if by_name else languages[:1]
        found += [make(name, None, split, languages=has, language=languages[0]) for split in splits if name]
    return found
