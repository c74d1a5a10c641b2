"""Fetches data, and checks what is there.

This is the only part of the package that downloads. The same command after an interruption fetches only what is not
complete. At the end come the counts beside those of the released data, and where training text is also evaluation text.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources import read
from stilts_jax.tasks.sources.hub import SourceFailure
from stilts_jax.tasks.sources.inventory import (
    expected_count,
    format_table,
    list_splits,
    read_part,
    wanted_languages,
)
from stilts_jax.tasks.sources.read import DataSource
from stilts_jax.tasks.spec import Example, Task

_SHORTEST = 20  # characters; shorter texts are the same by chance
_Texts = dict[tuple[str, str], set[bytes]]  # hashes by task and split


@dataclass(frozen=True)
class PreparedSplit:
    """What was found of one split in one language."""

    task: str
    split: str
    language: str
    found: int | None  # examples (queries of a retrieval set); None if the split is missing
    expected: int | None  # examples of the released data; None where that isn't known
    skipped: int  # rows that couldn't be used
    note: str  # what is wrong, or empty


@dataclass(frozen=True)
class Preparation:
    """What ``stilts prepare`` found; ``overlaps`` says how much evaluation text is training text too."""

    splits: tuple[PreparedSplit, ...]
    overlaps: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and all counts are as expected."""
        return not any(split.note for split in self.splits)


def prepare(
    tasks: Sequence[Task],
    source: DataSource,
    *,
    languages: Sequence[str] = (),
    download: bool = False,
    progress: Progress = SILENT,
) -> Preparation:
    """Fetches what is missing (if ``download``), reads everything once, and says what is there.

    Only hub and TFDS data can be fetched. ``languages``: only these, and the one that each task is trained in.
    """
    known = {language for task in tasks for language in (*task.languages, task.source_language)}
    for language in languages:
        if language not in known:
            fix = f"codes are joined by +; {nearest(language, known)}"
            raise ConfigError(f"no task here has the language {language!r}", where="--languages", fix=fix)
    wanted = [
        (task, split, language)
        for task in tasks
        for split in list_splits(task, source)
        for language in dict.fromkeys(
            (*wanted_languages(task, split), *read.available_languages(task, split, source))
        )
        if not languages or language in (task.source_language, *languages)
    ]
    splits: list[PreparedSplit] = []
    texts: _Texts = {}
    failures: dict[str, str] = {}
    with progress.track("prepare", len(wanted), "splits") as bar:
        for task, split, language in wanted:
            note = _fetch(task, split, language, source, failures, progress) if download else ""
            expected, found, skipped = expected_count(task, split, language), None, 0
            try:
                if language in read.available_languages(task, split, source, beyond=True):
                    examples, found, skipped = read_part(task, split, language, source)
                    texts.setdefault((task.name, split), set()).update(_hash_texts(examples))
                    note = "another count" if expected not in (None, found) else ""
                elif not note:
                    note = f"missing; looked for {', '.join(read.list_patterns(task, split, source))}"
            except DataError as error:
                note = str(error).replace("\n", " ")
            splits.append(PreparedSplit(task.name, split, language, found, expected, skipped, note))
            bar.advance(task=task.name)
    return Preparation(tuple(splits), tuple(_find_overlaps(texts)))


def _fetch(
    task: Task, split: str, language: str, source: DataSource, failures: dict[str, str], progress: Progress
) -> str:
    """Fetches each part of a split from the first data set that has it.

    ``failures`` holds what went wrong with data sets that can't be had at all; they are not tried again. Returns what
    went wrong with the data sets that were tried, if a part can't be had.
    """
    problems: list[str] = []
    for part in read.sources_of(task, split, source).values():
        data_sets = [one for one in part if one.kind != "files" and one.has(language)]
        if any(read.MODULES[one.kind].find(one, split, language, source.root) for one in data_sets):
            continue
        tried: list[str] = []
        for one in data_sets:
            if one.name in failures:
                tried.append(failures[one.name])
                continue
            progress.say(f"{task.name}: fetching {split} in {language} from {one.name}")
            try:
                read.MODULES[one.kind].fetch(one, split, language, source.root)
                break
            except DataError as error:
                progress.say(str(error))
                tried.append(error.what)
                if isinstance(error, SourceFailure):
                    failures[one.name] = error.what
        else:
            problems += tried
    return "; ".join(problems)


def _hash_texts(examples: Iterable[Example]) -> Iterator[bytes]:
    for example in examples:
        texts = (getattr(example, name, "") for name in ("context", "prompt", "text"))
        text = " ".join(getattr(example, "words", ())) or next(filter(None, texts), "")
        text = " ".join(text.lower().split())
        if len(text) >= _SHORTEST:
            yield hashlib.blake2b(text.encode(), digest_size=8).digest()


def _find_overlaps(texts: _Texts) -> list[str]:
    """Returns a line for each evaluation split with texts of a training split, the largest share first."""
    found = []
    for (training, train), seen in texts.items():
        for (evaluation, split), asked in texts.items():
            shared = len(seen & asked)
            if train == "train" != split and shared:
                line = f"{shared} of {len(asked)} texts of {evaluation} {split} are in {training} {train}"
                found.append((shared / len(asked), line))
    return [line for _, line in sorted(found, key=lambda item: -item[0])]


def format_preparation(preparation: Preparation) -> str:
    """Returns what was found as a table to print, missing languages of a split in one line."""
    rows: list[Sequence[str]] = []
    missing: dict[tuple[str, str, str], list[str]] = {}
    for row in preparation.splits:
        if row.found is None:
            missing.setdefault((row.task, row.split, row.note), []).append(row.language)
        else:
            counts = (str(row.found), "-" if row.expected is None else str(row.expected), str(row.skipped))
            rows.append((row.task, row.split, row.language, *counts, row.note))
    header = ("task", "split", "language", "found", "expected", "skipped", "")
    parts = [format_table(header, rows)] if rows else []
    lines = [f"{task} {split} ({' '.join(codes)}): {note}" for (task, split, note), codes in missing.items()]
    overlap = "Evaluation text that is also training text (do not report one after the other)"
    for title, listed in (("Missing", lines), (overlap, preparation.overlaps)):
        if listed:
            parts.append("\n  ".join((f"{title}:", *listed)))
    return "\n\n".join(parts)
