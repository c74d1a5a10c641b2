"""Finds the files of a task under the data root."""

import functools
import glob
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from stilts_jax.errors import DataError

SUFFIXES = (".jsonl", ".json", ".tsv", ".csv", ".txt", ".conllu", ".xml")
_MAGIC = re.compile(r"[*?]")
_LANGUAGE = r"[a-z]{2,3}(?:[-_][A-Za-z]+)?"


def add_language(pattern: str, language: str) -> str:
    """Returns the pattern of a file in another language: for ``train.jsonl``, ``train-de.jsonl``."""
    for suffix in SUFFIXES:
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


def find_languages(root: Path, pattern: str, codes: Mapping[str, str], base: str = "en") -> set[str]:
    """Returns the languages that a pattern has files for."""
    if "{language}" not in pattern:
        found = {base} if find_files(root, pattern) else set()
        suffixed = add_language(pattern, "{language}")
        return found | (find_languages(root, suffixed, codes) if "*" not in pattern else set())
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
