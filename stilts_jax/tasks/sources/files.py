"""Finds the files of a task under the data root, and reads their rows."""

import functools
import glob
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.tasks.sources.readers import Table, read_conllu, read_csv, read_jsonl, read_squad
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.spec import Source

_SUFFIXES = (".jsonl", ".json", ".tsv", ".csv", ".txt", ".conllu")
_MAGIC = re.compile(r"[*?]")
_READERS: Mapping[str, Callable[..., Any]] = {
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": Table(),
    ".json": read_squad,
    ".conllu": read_conllu,
}
_LANGUAGE = r"[a-z]{2,3}(?:[-_][A-Za-z]+)?"


def add_language(pattern: str, language: str) -> str:
    """Returns the pattern of a file in another language: for ``train.jsonl``, ``train-de.jsonl``."""
    for suffix in _SUFFIXES:
        if pattern.endswith(suffix):
            return f"{pattern.removesuffix(suffix)}-{language}{suffix}"
    return f"{pattern}-{language}"


def fill(pattern: str, language: str, codes: Mapping[str, str], base: str = "en") -> str:
    """Returns a path pattern for one language; ``base`` is that of patterns that don't name theirs."""
    if "{language}" in pattern:
        return pattern.replace("{language}", codes.get(language, language))
    return pattern if language == base else add_language(pattern, language)


def find_files(root: Path, pattern: str) -> tuple[Path, ...]:
    """Returns the files that a filled pattern names; a ``.gz`` is taken where the plain file is missing."""
    if not _MAGIC.search(pattern):
        path = root / pattern
        zipped = path.with_name(path.name + ".gz")
        return (path,) if _is_there(path) else (zipped,) if _is_there(zipped) else ()
    whole = pattern if pattern.startswith("/") else f"{glob.escape(str(root))}/{pattern}"
    names = set(glob.glob(whole, recursive=True))
    names |= {name for name in glob.glob(f"{whole}.gz", recursive=True) if name[:-3] not in names}
    return tuple(path for path in map(Path, sorted(names)) if _is_there(path))


def _is_there(path: Path) -> bool:
    # A broken link is there: whoever reads it says so, while a language that is not found is left out.
    return path.is_file() or (path.is_symlink() and not path.exists())


def check_suffix(path: str) -> str:
    """Returns the end of a file's name, if that says how it is read."""
    suffix = Path(path.removesuffix(".gz")).suffix
    if suffix not in _READERS:
        raise ConfigError(
            f"the name of a file does not say how it is read: {path!r}",
            fix=f"end it in {', '.join(_READERS)}",
        )
    return suffix


def reader_of(source: Source, path: Path) -> Callable[..., Any]:
    """Returns what reads a file: what is declared, or what the end of its name says."""
    return source.read or _READERS[check_suffix(path.name)]


def list_paths(source: Source, split: str, language: str) -> dict[str, tuple[str, ...]]:
    """Returns the paths of a split in one language by role."""
    # A pool of all languages has no language in its name, nor has a file of several languages.
    base = language if source.roles or source.by_language else source.language
    return {
        role: tuple(fill(path, language, source.codes, base) for path in paths)
        for role, paths in source.role_paths(split).items()
    }


def find(source: Source, split: str, language: str, root: Path) -> dict[str, tuple[Path, ...]]:
    """Returns the files of a split in a language by role; nothing if one is missing."""
    found = {
        role: next(filter(None, (find_files(root, path) for path in paths)), ())
        for role, paths in list_paths(source, split, language).items()
    }
    if not all(paths or role == "gold" for role, paths in found.items()):
        return {}
    return {role: paths for role, paths in found.items() if paths}


def find_languages(source: Source, split: str, root: Path) -> set[str]:
    """Returns the languages that a split has files in."""
    roles = source.role_paths(split)
    if "" in roles:
        return set[str]().union(*(_languages(root, one, source.codes, source.language) for one in roles[""]))
    needed = [path for role, paths in roles.items() for path in paths if role != "gold"]
    named = [_languages(root, path, source.codes) for path in needed if "{language}" in path]
    return {one for one in set.intersection(*named) if find(source, split, one, root)}


def read_rows(
    source: Source, split: str, language: str, root: Path, problems: Problems
) -> Iterator[tuple[Path, Row]]:
    """Yields the rows of a split in a language with the file that they are in."""
    before = 0
    code = source.codes.get(language, language)
    for path in find(source, split, language, root).get("", ()):
        last = -1
        for row in reader_of(source, path)(path, code, problems):
            last = row.number
            yield path, replace(row, number=before + last) if before else row
        before += last + 1


def _languages(root: Path, pattern: str, codes: Mapping[str, str], base: str = "en") -> set[str]:
    """Returns the languages that a pattern has files for."""
    if "{language}" not in pattern:
        found = {base} if find_files(root, pattern) else set()
        suffixed = add_language(pattern, "{language}")
        return found | (_languages(root, suffixed, codes) if "*" not in pattern else set())
    theirs = {code: language for language, code in codes.items()}
    language_group = f"(?P<language>{'|'.join((_LANGUAGE, *map(re.escape, theirs)))})"
    parts = re.split(r"(\{language\}|\*\*/|\*|\?)", pattern)
    expression, wildcards = "", {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    for part in parts:
        if part == "{language}":
            expression += "(?P=language)" if "(?P<" in expression else language_group
        else:
            expression += wildcards.get(part) or re.escape(part)
    found = set()
    for path in find_files(root, pattern.replace("{language}", "*")):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        match = re.fullmatch(expression, name.removesuffix(".gz"))
        if match:
            code = match["language"]
            found.add(theirs.get(code, code))
    return found


def state_of(paths: Iterable[Path]) -> tuple[tuple[Path, int, int], ...]:
    """Returns files with size and time of change: the key under which what they hold may be kept."""
    found = []
    for path in paths:
        try:
            state = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        found.append((path, state.st_size, state.st_mtime_ns))
    return tuple(found)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"the file can't be read: {error.strerror}", where=str(path), fix="fetch or copy it again"
    )


def hash_files(paths: Iterable[Path]) -> str:
    """Returns a hash of the bytes of files, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            state = path.stat()
            digest.update(_hash_file(path, state.st_size, state.st_mtime_ns, state.st_ino))
        except OSError as error:
            raise _unreadable(path, error) from error
    return digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def _hash_file(path: Path, size: int, modified: int, inode: int) -> bytes:
    # The arguments but the first make the cache forget a file that has changed.
    with path.open("rb") as file:
        return hashlib.file_digest(file, functools.partial(hashlib.blake2b, digest_size=16)).digest()
