"""Reads the splits of a task from release files, from prepared hub data or from prepared TFDS data.

Nothing here downloads; ``stilts_jax.tasks.sources.prepare`` does.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.tasks.declaration import describe
from stilts_jax.tasks.sources.checks import check_example
from stilts_jax.tasks.sources.converters import tag
from stilts_jax.tasks.sources.documents import BadRow, read_object
from stilts_jax.tasks.sources.files import find_files, hash_files
from stilts_jax.tasks.sources.locate import (
    Found,
    SourceKind,
    find,
    find_pool,
    list_languages,
    missing,
    prepared_module,
    prepared_sources,
    source_kinds,
)
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.spec import UNKNOWN_LABEL, Example, Files, Pools, Prepared, RetrievalSet, Task


@dataclass(frozen=True)
class DataSource:
    """Where tasks are read from.

    Attributes:
        root: the data root; hub data lies in its folder ``hub``, TFDS data in ``tfds``.
        kind: how all tasks are read that ``per_task`` does not name. A split that no source of this kind has
            (LAReQA's pools, Universal Dependencies) is read from files.
        per_task: how single tasks are read.
        skip_budget: rows of one split and language that may be unusable; they are skipped and counted.
    """

    root: Path
    kind: SourceKind = "files"
    per_task: Mapping[str, SourceKind] = field(default_factory=dict)
    skip_budget: int = 0

    def kind_of(self, task: Task, split: str) -> SourceKind:
        """Returns how a split is read."""
        kind = self.per_task.get(task.name, self.per_task.get(task.name.partition("@")[0], self.kind))
        if kind not in ("files", "hub", "tfds"):
            raise ConfigError(
                f"unknown kind of source {kind!r}", where=task.name, fix="take files, hub or tfds"
            )
        return kind if kind in source_kinds(task.sources, split) else "files"


@dataclass(frozen=True)
class Reading:
    """What was read of one split in one language.

    Attributes:
        examples: in the order of the files.
        has_gold: whether they have their gold; all have it, or none has.
        skipped: place and reason of each row that can't be used.
        dropped: how many rows do not belong to the data by the task's rules (SNLI's ``-``, PAWS-X's ``NS``).
    """

    examples: list[Example]
    has_gold: bool = True
    skipped: tuple[str, ...] = ()
    dropped: int = 0


def read_examples(task: Task, split: str, language: str, source: DataSource) -> list[Example]:
    """Returns the examples of one split in one language.

    Raises:
        DataError: the data is not there, or more rows than ``source.skip_budget`` can't be used.
    """
    return read_counted(task, split, language, source).examples


def read_counted(task: Task, split: str, language: str, source: DataSource) -> Reading:
    """Returns the examples of one split in one language, with what was left out."""
    labels = read_labels(task, source)
    examples: list[Example] = []
    blank: dict[int, tuple[Path, Row]] = {}  # examples without gold, by index
    problems = Problems(f"{task.name}, {split}, {language}", source.skip_budget)
    dropped = 0
    for part, found in _locate(task, split, language, source):
        problems.budget += found.tolerated
        # Labels that come with the data are known only here.
        gold_tags = labels if split == "train" else (*labels, UNKNOWN_LABEL)
        convert = found.convert or tag(gold_tags, unknown=None if split == "train" else UNKNOWN_LABEL)
        seen: set[str] = set()
        rows_in_language = 0
        for path, row in found.open_rows(problems):
            try:
                if found.language_of and found.language_of(row) != language:
                    continue
                rows_in_language += 1
                example = convert(row)
                if example is None:
                    dropped += 1
                elif task.sources.keep is None or task.sources.keep(example, split):
                    has_gold = check_example(example)
                    if example.id in seen:
                        raise BadRow(f"the id {example.id!r} occurred before")
                    seen.add(example.id)
                    if not has_gold:
                        blank[len(examples)] = path, row
                    examples.append(replace(example, id=f"{part}/{example.id}") if part else example)
            except BadRow as error:
                problems.report_row(path, row, error)
        if found.language_of and not rows_in_language:
            raise missing(task, split, language, source.kind_of(task, split), source.root, part)
    if blank and (split == "train" or len(blank) < len(examples)):
        reason = "training needs it" if split == "train" else "other rows of the file have it"
        for path, row in blank.values():
            problems.report_row(path, row, BadRow(f"gold is blank, and {reason}"))
        examples = [example for index, example in enumerate(examples) if index not in blank]
        blank = {}
    if not examples and task.kind != "mlm":  # of a few lines of text none may be kept for dev
        paths = ", ".join(map(str, find_paths(task, split, language, source)))
        left_out = f": {dropped} rows are dropped, {len(problems.found)} skipped"
        left_out += f"; {problems.found[0]}" if problems.found else ""
        raise DataError(
            f"there are no examples{left_out}",
            where=f"{problems.what}, {paths}",
            fix="fetch or copy the file again, or remove it to leave this language out",
        )
    return Reading(examples, not blank, tuple(problems.found), dropped)


def read_retrieval(task: Task, split: str, language: str, source: DataSource) -> RetrievalSet:
    """Returns queries, candidates and gold of one language of a retrieval task."""
    kind = source.kind_of(task, split)
    problems = Problems(f"{task.name}, {split}, {language}", source.skip_budget)
    found = None
    if kind == "files":
        pool = find_pool(task.sources, split, language, source.root)
        if pool:
            found = pool[0].build(pool[1], language, problems)
    else:
        module = prepared_module(kind)
        for data_set in prepared_sources(task.sources, kind):
            if data_set.build and module.find(data_set, split, language, source.root):
                rows = module.read_rows(data_set, split, language, source.root)
                found = data_set.build(rows, language, problems)
                break
    if found is None:
        raise missing(task, split, language, kind, source.root)
    if not found.queries or not found.candidates or found.gold == {}:
        empty = "queries" if not found.queries else "candidates" if not found.candidates else "gold"
        paths = ", ".join(map(str, find_paths(task, split, language, source)))
        raise DataError(
            f"the {empty} are empty" if empty != "gold" else "the file of gold is empty",
            where=f"{problems.what}, {paths}",
            fix="fetch or copy the files again, or remove them to leave this language out",
        )
    return replace(found, skipped=tuple(problems.found))


_CONVERSION = (
    "read",
    "convert",
    "build",
    "language_of",
    "codes",
)  # what a layout says of how rows are understood


def fingerprint(task: Task, split: str, language: str, source: DataSource) -> str:
    """Returns a hash of what a split is read from: its bytes, and how the task declares that they become examples.

    Paths and languages are not in it: a file of another name with the same bytes is the same data, and what a task
    is evaluated in has a fingerprint for each language.
    """
    paths, layouts = _find(task, split, language, source)
    declared = [
        task.kind,
        # Those of a labels file are in its bytes.
        [] if task.sources.labels_file else task.labels,
        task.sources.keep,
        *(getattr(layout, role, None) for layout in layouts for role in _CONVERSION),
    ]
    text = json.dumps(describe(declared), ensure_ascii=True)
    made_of = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{task.name}-{task.version}-{split}-{language}-{made_of}-{hash_files(paths)}"


def find_paths(task: Task, split: str, language: str, source: DataSource) -> tuple[Path, ...]:
    """Returns the files that a split is read from.

    Raises:
        DataError: there are none.
    """
    return _find(task, split, language, source)[0]


def _find(
    task: Task, split: str, language: str, source: DataSource
) -> tuple[tuple[Path, ...], list[Files | Pools | Prepared | None]]:
    """Returns the files that a split is read from, and what is declared of them."""
    kind = source.kind_of(task, split)
    if kind == "files":
        pool = find_pool(task.sources, split, language, source.root)
        if pool:
            return tuple(path for role in sorted(pool[1]) for path in pool[1][role]), [pool[0]]
    else:
        for data_set in prepared_sources(task.sources, kind):
            paths = prepared_module(kind).find(data_set, split, language, source.root)
            if data_set.build and paths:
                return paths, [data_set]
    located = _locate(task, split, language, source)
    labels = find_files(source.root, task.sources.labels_file) if task.sources.labels_file else ()
    paths = (*(path for _, found in located for path in found.paths), *labels)
    return paths, [found.layout for _, found in located]


def available_languages(
    task: Task, split: str, source: DataSource, *, beyond: bool = False
) -> tuple[str, ...]:
    """Returns the languages that a split has data for, in the task's order.

    Args:
        task: the task.
        split: the split.
        source: where it is read from.
        beyond: whether languages that the benchmark does not have are returned too (behind the others). A
            task that names no languages (mlm) has all that are there.
    """
    found = list_languages(task.sources, split, source.kind_of(task, split), source.root)
    listed = tuple(language for language in task.languages if language in found)
    if not listed and split != "train" and "@" in task.name:
        listed = tuple({"en"} & found)
    if beyond or not task.languages:
        return (*listed, *sorted(found - set(listed)))
    return listed


def selection_language(task: Task, source: DataSource) -> str:
    """Returns the language of the dev set that selects: what the task is trained in, or English if there is none.

    "mnli@de" without a translated dev set is selected, and as an intermediate scored, on English.
    """
    found = available_languages(task, task.selection, source, beyond=True)
    return "en" if "@" in task.name and task.source_language not in found else task.source_language


def read_labels(task: Task, source: DataSource) -> tuple[str, ...]:
    """Returns the labels of a task; those of CCG come with its data."""
    if not task.sources.labels_file:
        return task.labels
    paths = find_files(source.root, task.sources.labels_file)
    if not paths:
        raise DataError(
            f"{task.name} has no labels file",
            where=str(source.root / task.sources.labels_file),
            fix="write a JSON object there from each tag to its number, as jiant has it",
        )
    return _read_labels(paths[0], paths[0].stat().st_mtime_ns)


def with_labels(task: Task, source: DataSource) -> Task:
    """Returns a task whose ``labels`` are filled in from its data, where they come with it."""
    return replace(task, labels=read_labels(task, source)) if task.sources.labels_file else task


@functools.lru_cache(maxsize=16)
def _read_labels(path: Path, modified: int) -> tuple[str, ...]:
    content = read_object(path)
    numbers = [number for number in content.values() if type(number) is int]
    if len(numbers) < len(content) or sorted(numbers) != list(range(len(content))):
        raise DataError(
            "labels are not numbered 0, 1, 2, ...",
            where=str(path),
            fix="give each label one number from 0 on",
        )
    return tuple(sorted(content, key=content.__getitem__))


def _locate(task: Task, split: str, language: str, source: DataSource) -> list[tuple[str, Found]]:
    """Returns the parts of a task with where each is found."""
    kind, located = source.kind_of(task, split), []
    for name, part in task.sources.parts or (("", task.sources),):
        found = find(part, split, language, kind, source.root)
        if not found:
            raise missing(task, split, language, kind, source.root, name)
        located.append((name, found))
    return located
