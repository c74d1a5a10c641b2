"""Tasks on a user's own files, declared in a few lines.

The file ``my_tasks.py`` in the current directory (or on the Python path), used as ``my_tasks:REVIEWS``::

    from stilts_jax.tasks.custom import classify_task

    REVIEWS = classify_task(
        "reviews",
        files={
            "train": "reviews/train.jsonl",
            "dev": "reviews/dev.jsonl",
            "test": "reviews/test-{language}.csv",
        },
        labels=("bad", "good"),
        text="review",
        label="verdict",
        languages=("en", "de"),
    )

The end of a file's name says how it is read: ``.jsonl`` (an object per line), ``.csv`` (quoted, with a header),
``.tsv`` (never quoted, with a header), ``.json`` (SQuAD's form), ``.conllu``; ``.gz`` may stand behind any.
Paths are relative to the data root, or absolute. ``dev`` picks the best step (without it the last one is kept), and
``test`` is reported (without it ``dev`` is). A path without ``{language}`` names the file in the task's source
language. Other fields of ``Task`` (``title``, ``metric``, ``hyperparameters``, ``train_on``, ...) may be given by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.tasks.sources.converters import classify, pick_label, span, tag
from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.readers import Table, read_conllu, read_csv, read_jsonl, read_squad
from stilts_jax.tasks.sources.rows import Problems, Row, describe
from stilts_jax.tasks.spec import (
    ChoiceExample,
    EmbedExample,
    Example,
    Files,
    Kind,
    Pools,
    RetrievalSet,
    Sources,
    Task,
)

_DIGITS = 9  # of the place of an answer
_READERS: Mapping[str, Callable[..., Any]] = {
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": Table(),
    ".json": read_squad,
    ".conllu": read_conllu,
}


_SPLITS = ("train", "dev", "test")


def classify_task(
    name: str,
    *,
    files: Mapping[str, str],
    labels: Sequence[str],
    text: str = "text",
    pair: str = "",
    label: str = "label",
    id: str = "",
    **task: Any,
) -> Task:
    """Declares a task with one label for a text or a pair of texts.

    Args:
        name: what the task is called in results.
        files: path patterns by split.
        labels: what the label column may say.
        text: column of the (first) text.
        pair: column of the second text; empty if there is none.
        label: column of the label.
        id: column of the id; rows are numbered where there is none.
        **task: other fields of ``Task``.
    """
    columns = {"text": text, "pair": pair, "label": label, "id": id}
    labels = _texts(name, "labels", labels)
    convert = classify(text, pair, label=label, labels=labels, id=id)
    settings = {"group": "classification", "labels": labels, **task}
    return _make_task(name, "classify", files, convert, settings, columns)


def choice_task(
    name: str,
    *,
    files: Mapping[str, str],
    prompt: str = "prompt",
    choices: Sequence[str] = ("choice1", "choice2"),
    label: str = "label",
    **task: Any,
) -> Task:
    """Declares a task of choosing a text; the label is the number of the right column, from 0 on.

    Args:
        name: what the task is called in results.
        files: path patterns by split.
        prompt: column of the prompt.
        choices: columns of the choices.
        label: column of the label.
        **task: other fields of ``Task``.
    """
    choices = _texts(name, "choices", choices)
    numbers = [str(number) for number in range(len(choices))]

    def convert(row: Row) -> ChoiceExample:
        index = pick_label(row, label, numbers)
        return ChoiceExample(str(row.number), row[prompt], tuple(row[choice] for choice in choices), index)

    columns = {"prompt": prompt, "label": label}
    return _make_task(name, "choice", files, convert, {"group": "classification", **task}, columns)


def tag_task(
    name: str,
    *,
    files: Mapping[str, str],
    labels: Sequence[str],
    words: str = "words",
    tags: str = "tags",
    **task: Any,
) -> Task:
    """Declares a task with a tag for each word; words and tags are lists (JSONL) or joined by spaces.

    Args:
        name: what the task is called in results.
        files: path patterns by split.
        labels: what tags may say.
        words: column of the words.
        tags: column of the tags.
        **task: other fields of ``Task``.
    """
    labels = _texts(name, "labels", labels)
    by_list = tag(labels, words=words, tags=tags)

    def convert(row: Row) -> Example:
        columns = {words: row.value(words), tags: row.get(tags) or None}
        lists = {key: value.split() if isinstance(value, str) else value for key, value in columns.items()}
        return by_list(Row(row.line, row.number, lists))

    settings = {"group": "tagging", "labels": _texts(name, "labels", labels), "metric": "chunk_f1", **task}
    return _make_task(name, "tag", files, convert, settings, {"words": words, "tags": tags})


def span_task(
    name: str,
    *,
    files: Mapping[str, str],
    question: str = "question",
    context: str = "context",
    answer: str = "answer",
    start: str = "answer_start",
    **task: Any,
) -> Task:
    """Declares a task of finding an answer in a context, from SQuAD's form or from rows with one answer each.

    Args:
        name: what the task is called in results.
        files: path patterns by split.
        question: column of the question.
        context: column of the context.
        answer: column of the answer's text.
        start: column of the character of the context where the answer begins, from 0 on.
        **task: other fields of ``Task``.
    """
    by_squad = span(unanswerable=task.get("metric") == "squad_v2")

    def convert(row: Row) -> Example:
        if "answers" in row.fields:
            return by_squad(row)
        text = row.get(answer) or ""
        answers = [{"text": text, "answer_start": _read_place(row, start) if text else 0}]
        identifier = row.id("id") if "id" in row.fields else str(row.number)
        fields = {"id": identifier, "question": row[question], "context": row[context], "answers": answers}
        return by_squad(Row(row.line, row.number, fields))

    columns = {"question": question, "context": context, "answer": answer, "start": start}
    return _make_task(name, "span", files, convert, {"group": "qa", "metric": "squad", **task}, columns)


def _read_place(row: Row, name: str) -> int:
    text = row.id(name)  # a number in JSON, digits in tables
    if not text.isdecimal() or len(text) > _DIGITS:
        raise BadRow(f"{name} is {describe(text)}, not a number of characters")
    return int(text)


def pair_task(
    name: str, *, files: Mapping[str, str], first: str = "text", second: str = "positive", **task: Any
) -> Task:
    """Declares a retrieval task on pairs: trained as a dual encoder, scored by finding each text's partner.

    Without training files the encoder is scored as it is. A dual encoder is trained to its last step.

    Args:
        name: what the task is called in results.
        files: path patterns by split.
        first: column of the text that looks for its partner.
        second: column of the partner.
        **task: other fields of ``Task``.
    """

    def convert(row: Row) -> EmbedExample:
        return EmbedExample(str(row.number), row[first], row[second])

    def build(paths: Mapping[str, tuple[Path, ...]], language: str, problems: Problems) -> RetrievalSet:
        texts: list[tuple[str, str]] = []
        for path in paths["pairs"]:
            for row in _reader_of(path.name)(path, language, problems):
                with problems.skipping(path, row):
                    texts.append((row[first], row[second]))
        queries = [EmbedExample(f"query-{index}", text) for index, (text, _) in enumerate(texts)]
        candidates = [EmbedExample(f"candidate-{index}", text) for index, (_, text) in enumerate(texts)]
        gold = {query.id: (candidate.id,) for query, candidate in zip(queries, candidates)}
        return RetrievalSet(queries, candidates, gold)

    pools = {split: {"pairs": pattern} for split, pattern in files.items() if split != "train"}
    settings = {"group": "retrieval", "metric": "nearest_accuracy", "retrieval": "nearest", **task}
    made = Pools(paths=pools, build=build)
    return _make_task(name, "embed", files, convert, settings, {"first": first, "second": second}, (made,))


def _make_task(
    name: str,
    kind: Kind,
    files: Mapping[str, str],
    convert: Callable[[Row], Example | None],
    settings: Mapping[str, Any],
    columns: Mapping[str, str],
    pools: tuple[Pools, ...] = (),
) -> Task:
    where = f"the declaration of task {name!r}"
    known = {field.name for field in fields(Task)} - {"name", "kind", "sources"}
    for word in settings:
        if word not in known:
            raise ConfigError(
                f"There is no {word!r}.", where=where, fix=nearest(word, known | {*columns, "files"})
            )
    for word, column in columns.items():
        if not isinstance(column, str):
            raise ConfigError(f"{word}={column!r} is no text.", where=where, fix="name a column")
    if not isinstance(files, Mapping) or not files:
        raise ConfigError(
            f"files={files!r} is no mapping.", where=where, fix='write files={"train": "a.csv"}'
        )
    for split in files:
        if split not in _SPLITS:
            raise ConfigError(f"There is no split {split!r}.", where=where, fix=nearest(split, _SPLITS))
    language = settings.get("source_language", "en")
    layouts = tuple(
        Files(paths={split: (pattern,)}, read=_reader_of(pattern), convert=convert, language=language)
        for split, pattern in files.items()
    )
    given = {
        "version": 1,
        "description": f"{kind} task on the user's own files",
        "languages": (language,),
        "selection": "dev" if "dev" in files else "",
        "reported": "test" if "test" in files else "dev",
        **settings,
    }
    for role in ("selection", "reported"):
        if role in settings and given[role] not in files:
            raise ConfigError(
                f"{role}={given[role]!r} has no file.", where=where, fix=nearest(given[role], files)
            )
    for word in ("languages", "train_on"):
        if isinstance(given.get(word), list):
            given[word] = tuple(given[word])
    return Task(name=name, kind=kind, sources=Sources(files=layouts, pools=pools), **given)


def _texts(name: str, word: str, values: Sequence[str]) -> tuple[str, ...]:
    many = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 1
    if not many or not all(isinstance(value, str) for value in values):
        raise ConfigError(
            f"{word}={values!r} is no sequence of two or more texts.",
            where=f"the declaration of task {name!r}",
            fix=f'write {word}=("a", "b")',
        )
    return tuple(values)


def _reader_of(pattern: str) -> Callable[..., Any]:
    suffix = Path(pattern.removesuffix(".gz")).suffix
    if suffix not in _READERS:
        raise ConfigError(
            f"the name of a file does not say how it is read: {pattern!r}",
            fix=f"end it in {', '.join(_READERS)}",
        )
    return _READERS[suffix]
