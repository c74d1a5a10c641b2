"""Finds where a split of a task is, whatever kind of source it comes from, and opens its rows."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from stilts_jax.errors import DataError
from stilts_jax.settings import SourceKind
from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.files import fill, find_files, find_languages, state_of
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.spec import Example, Files, Pools, Prepared, Sources, Task


@dataclass(frozen=True)
class Found:
    """The data of one split in one language, found and ready to be read.

    Attributes:
        paths: the files that it is in.
        open_rows: ``open_rows(problems)`` yields rows with the file that they stand in.
        convert: makes an example of a row; None where that takes labels which come with the data.
        language_of: the language of a row, where there are several; None where all rows are in the one that
            is read.
        tolerated: rows that can't be used in the released files themselves.
        layout: what was declared of these files.
    """

    paths: tuple[Path, ...]
    open_rows: Callable[[Problems], Iterator[tuple[Path, Row]]]
    convert: Callable[[Row], Example | None] | None
    language_of: Callable[[Row], str] | None
    tolerated: int = 0
    layout: Files | Prepared | None = None


def prepared_module(kind: SourceKind) -> ModuleType:
    """Returns the module that reads one kind of prepared data; it and its library are imported only here."""
    if kind == "hub":
        from stilts_jax.tasks.sources import hub

        return hub
    from stilts_jax.tasks.sources import tfds

    return tfds


def prepared_sources(sources: Sources, kind: SourceKind) -> tuple[Prepared, ...]:
    """Returns a task's data sets of one kind."""
    return sources.hub if kind == "hub" else sources.tfds


def source_kinds(sources: Sources, split: str) -> tuple[SourceKind, ...]:
    """Returns the kinds of source that a split can be read from."""

    def has(part: Sources, kind: SourceKind) -> bool:
        return any(split in data_set.splits for data_set in prepared_sources(part, kind))

    parts = [part for _, part in sources.parts] or [sources]
    kinds: tuple[SourceKind, ...] = ("hub", "tfds")
    return ("files", *(kind for kind in kinds if all(has(part, kind) for part in parts)))


def find(sources: Sources, split: str, language: str, kind: SourceKind, root: Path) -> Found | None:
    """Returns the first layout (or data set) that has a split in a language; None if there is none."""
    if kind == "files":
        for layout in sources.files:
            for pattern in layout.paths.get(split, ()):
                paths = find_files(root, _fill(layout, pattern, language))
                if paths:
                    return _found_files(layout, paths, language)
        return None
    for data_set in prepared_sources(sources, kind):
        paths = prepared_module(kind).find(data_set, split, language, root)
        if paths and data_set.convert:
            return _found_prepared(data_set, paths, split, language, kind, root)
    return None


def _found_prepared(
    data_set: Prepared, paths: tuple[Path, ...], split: str, language: str, kind: SourceKind, root: Path
) -> Found:
    def open_rows(problems: Problems) -> Iterator[tuple[Path, Row]]:
        yield from prepared_module(kind).read_rows(data_set, split, language, root)

    return Found(paths, open_rows, data_set.convert, data_set.language_of, data_set.tolerated, data_set)


def _fill(layout: Files, pattern: str, language: str) -> str:
    # A file of several languages has none in its name.
    return fill(pattern, language, layout.codes, base=language if layout.language_of else layout.language)


def _found_files(layout: Files, paths: tuple[Path, ...], language: str) -> Found:
    def open_rows(problems: Problems) -> Iterator[tuple[Path, Row]]:
        before = 0
        for path in paths:
            last = -1
            for row in layout.read(path, layout.codes.get(language, language), problems):
                last = row.number
                yield path, replace(row, number=before + last) if before else row
            before += last + 1

    return Found(paths, open_rows, layout.convert, layout.language_of, layout.tolerated, layout)


def find_pool(
    sources: Sources, split: str, language: str, root: Path
) -> tuple[Pools, Mapping[str, tuple[Path, ...]]] | None:
    """Returns the first layout of a retrieval evaluation that is there, with its files by role."""
    for layout in sources.pools:
        roles = {
            # A pool of all languages has no language in its name.
            role: find_files(root, fill(pattern, language, layout.codes, base=language))
            for role, pattern in layout.paths.get(split, {}).items()
        }
        if roles and all(paths or role in layout.optional for role, paths in roles.items()):
            return layout, {role: paths for role, paths in roles.items() if paths}
    return None


def list_languages(sources: Sources, split: str, kind: SourceKind, root: Path) -> set[str]:
    """Returns every language that a split has data for."""
    if sources.parts:
        return set.intersection(*(list_languages(part, split, kind, root) for _, part in sources.parts))
    found: set[str] = set()
    if kind != "files":
        for data_set in prepared_sources(sources, kind):
            languages = data_set.languages or ("en",)
            find_split = prepared_module(kind).find
            found |= {language for language in languages if find_split(data_set, split, language, root)}
        return found
    for layout in sources.files:
        for pattern in layout.paths.get(split, ()):
            if layout.language_of is None:
                found |= find_languages(root, pattern, layout.codes, layout.language)
                continue
            for path, size, changed in state_of(find_files(root, pattern)):
                found |= _languages_in(path, size, changed, layout.read, layout.language_of)
    for pool in sources.pools:
        roles = pool.paths.get(split, {})
        named = [
            find_languages(root, pattern, pool.codes)
            for role, pattern in roles.items()
            if role not in pool.optional and "{language}" in pattern
        ]
        if named:
            found |= {
                language for language in set.intersection(*named) if find_pool(sources, split, language, root)
            }
    return found


def list_patterns(sources: Sources, split: str, kind: SourceKind) -> list[str]:
    """Returns every path that is looked for, as it is declared (with ``{language}``), or the names of data sets."""
    parts = [part for _, part in sources.parts] or [sources]
    if kind != "files":
        named = (one for part in parts for one in prepared_sources(part, kind) if split in one.splits)
        return [f"{kind}/{data_set.name}" for data_set in named]
    found = [pattern for part in parts for layout in part.files for pattern in layout.paths.get(split, ())]
    pools = (pool.paths.get(split, {}) for part in parts for pool in part.pools)
    found += [pattern for roles in pools for pattern in roles.values()]
    found += [part.labels_file for part in parts if part.labels_file]
    return list(dict.fromkeys(found))


@functools.lru_cache(maxsize=64)
def _languages_in(
    path: Path, size: int, changed: int, read: Callable[..., Iterable[Row]], language_of: Callable[[Row], str]
) -> set[str]:
    """Returns the languages of a file that holds several; a changed file is read again."""
    problems = Problems("rows in any language", budget=sys.maxsize)  # reading a language reports them
    found = set()
    for row in read(path, "", problems):
        with contextlib.suppress(BadRow):
            found.add(language_of(row))
    return found


def missing(task: Task, split: str, language: str, kind: SourceKind, root: Path, part: str = "") -> DataError:
    """Returns the error that says what was looked for, and where."""
    sources = dict(task.sources.parts)[part] if part else task.sources
    what = f"no {split} data of {task.name} in language {language!r}" + (f": part {part}" if part else "")
    there = list_languages(sources, split, kind, root)
    if there - {language}:
        fix = f"take a language that is there: {' '.join(sorted(there))}"
    elif kind == "files":
        fix = "copy the released files there"
        offers = [f"--source={other}" for other in source_kinds(task.sources, split)[1:]]
        if offers:
            fix += f", or fetch it: stilts prepare {task.name} {' or '.join(offers)} --data_root=..."
    else:
        fix = f"fetch it: stilts prepare {task.name} --source={kind} --data_root=..."
    if kind == "files":
        tried = [
            _fill(layout, pattern, language)
            for layout in sources.files
            for pattern in layout.paths.get(split, ())
        ]
        tried += [
            fill(pattern, language, pool.codes, base=language)
            for pool in sources.pools
            for role, pattern in pool.paths.get(split, {}).items()
            if role not in pool.optional
        ]
    else:
        tried = [f"{kind}/{data_set.name}" for data_set in prepared_sources(sources, kind)]
    where = f"{root}: looked for {', '.join(tried)}" if tried else f"{task.name} has no {split} from {kind}"
    return DataError(what, where=where, fix=fix)
