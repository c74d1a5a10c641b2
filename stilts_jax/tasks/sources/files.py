"""Finds the files of a task under the data root, and opens their rows."""

import fnmatch
import functools
import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.tasks.sources.readers import Table, read_conllu, read_csv, read_jsonl, read_squad
from stilts_jax.tasks.sources.rows import Opened, Problems
from stilts_jax.tasks.spec import Source

_READERS: Mapping[str, Callable[..., Any]] = {
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": Table(),
    ".json": read_squad,
    ".conllu": read_conllu,
}
LANGUAGE = r"[a-z]{2,3}(?:[-_][A-Za-z0-9]+)*"
_WILDCARDS = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
States = tuple[tuple[Path, int, int, int], ...]


def _add_language(pattern: str, language: str) -> str:
    """Returns the pattern of a file in another language: for ``train.jsonl``, ``train-de.jsonl``."""
    return re.sub(r"((?:\.(?:jsonl?|tsv|csv|txt|conllu))?(?:\.gz)?)$", rf"-{language}\1", pattern, count=1)


def find_files(root: Path, pattern: str) -> tuple[Path, ...]:
    """Returns the files that a filled pattern names; a ``.gz`` is taken where the plain file is missing."""
    whole = os.path.join(glob.escape(str(root)), pattern.replace("[", "[[]"))
    # A broken link is there: whoever reads it says so, while a language that is not found is left out.
    folder, last = os.path.split(whole)
    if glob.has_magic(last) and last != "**":  # one walk finds both: that of all treebanks takes a while
        wanted = [re.compile(fnmatch.translate(last + end)) for end in ("", ".gz")]
        every = glob.glob(os.path.join(folder, f"{last}*"), recursive=True)
        found = {name for name in every if any(one.match(os.path.basename(name)) for one in wanted)}
    else:
        found = {name for end in ("", ".gz") for name in glob.glob(whole + end, recursive=True)}
    names = {name for name in found if not os.path.isdir(name)}
    ordered = sorted(names, key=lambda name: (os.path.basename(name), name))  # as XTREME joins treebanks
    return tuple(Path(name) for name in ordered if not name.endswith(".gz") or name[:-3] not in names)


def reader_of(source: Source, path: str) -> Callable[..., Any]:
    """Returns what reads a file: what is declared, or what the end of its name says."""
    reader = source.read or _READERS.get(Path(path.removesuffix(".gz")).suffix)
    if not reader:
        what = f"the name of a file does not say how it is read: {path!r}"
        raise ConfigError(what, fix=f"end it in {', '.join(_READERS)}")
    return reader


def _fill(source: Source, path: str, language: str) -> str:
    # A pool of all languages has no language in its name, nor has a file of several languages.
    one_file = source.kind == "files" and "" in source.paths and not source.by_language
    if one_file and language != source.language and "{language}" not in path:
        return _add_language(path, language)
    return path.replace("{language}", source.codes.get(language, language))


def list_paths(source: Source, split: str, language: str) -> dict[str, tuple[str, ...]]:
    """Returns the paths of a split in one language by role."""
    by_role = source.patterns(split).items()
    return {role: tuple(_fill(source, path, language) for path in paths) for role, paths in by_role}


def find(source: Source, split: str, language: str, root: Path) -> dict[str, tuple[Path, ...]]:
    """Returns the files of a split in a language by role; nothing if one is missing."""
    found = {
        role: next(filter(None, (find_files(root, path) for path in paths)), ())
        for role, paths in list_paths(source, split, language).items()
    }
    complete = all(paths or role == "gold" for role, paths in found.items())
    return {role: paths for role, paths in found.items() if paths and complete}


def find_languages(source: Source, split: str, root: Path) -> set[str]:
    """Returns the languages that a split has files in."""
    by_role = source.patterns(split)
    if "" in by_role:
        return set[str]().union(*(_languages(source, path, root) for path in by_role[""]))
    needed = [path for role, (path,) in by_role.items() if role != "gold" and "{language}" in path]
    named = set.intersection(*(_languages(source, path, root) for path in needed))
    return {one for one in named if find(source, split, one, root)}


def open_rows(source: Source, split: str, language: str, paths: Sequence[Path], problems: Problems) -> Opened:
    """Yields files, each with its rows."""
    code = source.codes.get(language, language)
    return ((path, reader_of(source, path.name)(path, code, problems)) for path in paths)


def _languages(source: Source, pattern: str, root: Path) -> set[str]:
    """Returns the languages that a pattern has files for, under the names that `list_paths` gives them."""
    declared = pattern = os.path.normpath(pattern)
    found: set[str] = set()
    if "{language}" not in pattern:
        found |= {source.language} if find_files(root, pattern) else set()
        if "*" in pattern:
            return found
        pattern = _add_language(pattern, "{language}")
    ours = {code: language for language, code in source.codes.items()}
    group = f"(?P<language>{'|'.join((LANGUAGE, *map(re.escape, ours)))})"
    expression = re.escape(pattern.removesuffix(".gz"))
    for sign, meaning in _WILDCARDS.items():
        expression = expression.replace(re.escape(sign), meaning)
    expression = expression.replace(r"\{language\}", group, 1).replace(r"\{language\}", "(?P=language)")
    for path in find_files(root, pattern.replace("{language}", "*")):
        name = path.as_posix() if os.path.isabs(pattern) else path.relative_to(root).as_posix()
        if match := re.fullmatch(expression, name.removesuffix(".gz")):
            language = ours.get(match["language"], match["language"])
            if _fill(source, declared, language) == pattern.replace("{language}", match["language"]):
                found.add(language)
    return found


def state_of(paths: Iterable[Path]) -> States:
    """Returns files with size and time of change: the key under which what they hold may be kept."""
    try:
        found = [(path, path.stat()) for path in paths]
    except OSError as error:
        what = f"the file can't be read: {error.strerror}"
        raise DataError(what, where=str(error.filename), fix="fetch or copy it again") from error
    return tuple((path, state.st_size, state.st_ctime_ns, state.st_ino) for path, state in found)


def hash_files(paths: Iterable[Path]) -> str:
    """Returns a hash of the bytes of files, in their order."""
    hashes = b"".join(_hash_file(*state) for state in state_of(paths))
    return hashlib.blake2b(hashes, digest_size=16).hexdigest()


@functools.lru_cache(maxsize=4096)
def _hash_file(path: Path, size: int, changed: int, inode: int) -> bytes:
    # The arguments but the first make the cache forget a file that has changed.
    with path.open("rb") as file:
        return hashlib.file_digest(file, functools.partial(hashlib.blake2b, digest_size=16)).digest()
