"""Makes data ready: the only part of the package that downloads.

The same command after an interruption fetches only what is not complete. At the end come the counts beside those
of the released data, and where training text is also evaluation text.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.sources.inventory import expected_count, format_table, list_splits, wanted_languages
from stilts_jax.tasks.sources.prepared import SourceFailure, has_language
from stilts_jax.tasks.sources.read import (
    DataSource,
    available_languages,
    list_patterns,
    module_of,
    read_counted,
    read_retrieval,
    sources_of,
)
from stilts_jax.tasks.spec import Example, Task

_SHORTEST = 20  # characters; shorter texts are the same by chance


@dataclass(frozen=True)
class PreparedSplit:
    """What was found of one split in one language.

    Attributes:
        found: examples (queries of a retrieval set); None if the split is missing.
        expected: examples of the released data; None where that isn't known.
        skipped: rows that couldn't be used.
        note: what is wrong, or empty.
    """

    task: str
    split: str
    language: str
    found: int | None
    expected: int | None
    skipped: int
    note: str


@dataclass(frozen=True)
class Overlap:
    """Evaluation text that is training text too.

    Attributes:
        shared: how many distinct texts of the evaluation split are in the training split.
        texts: how many distinct texts the evaluation split has.
    """

    training: str
    evaluation: str
    shared: int
    texts: int


@dataclass(frozen=True)
class Preparation:
    """What ``stilts prepare`` found."""

    splits: tuple[PreparedSplit, ...]
    overlaps: tuple[Overlap, ...]

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

    Args:
        tasks: the tasks.
        source: where they are read from; only hub and TFDS data can be fetched.
        languages: only these, and the language that each task is trained in; all if empty.
        download: whether to fetch what is missing.
        progress: shows what is being done.
    """
    _check_languages(tasks, languages)
    wanted = [
        (task, split, language)
        for task in tasks
        for split in list_splits(task, source)
        for language in _languages(task, split, source)
        if not languages or language in (task.source_language, *languages)
    ]
    splits: list[PreparedSplit] = []
    texts: dict[tuple[str, str], set[bytes]] = {}
    failures: dict[str, str] = {}
    with progress.track("prepare", len(wanted), "splits") as bar:
        for task, split, language in wanted:
            problem = _fetch(task, split, language, source, failures, progress) if download else ""
            splits.append(_read(task, split, language, source, problem, texts))
            bar.advance(task=task.name)
    totals = list(_check_totals(tasks, splits))
    return Preparation((*splits, *totals), tuple(_find_overlaps(texts)))


def _check_languages(tasks: Sequence[Task], languages: Sequence[str]) -> None:
    known = {language for task in tasks for language in (*task.languages, task.source_language)}
    for language in languages:
        if known and language not in known:
            raise ConfigError(
                f"no task here has the language {language!r}",
                where="--languages",
                fix=f"codes are joined by +; {nearest(language, known)}",
            )


def _languages(task: Task, split: str, source: DataSource) -> tuple[str, ...]:
    """Returns the languages that a split is needed in, and others of the task that it is there in."""
    wanted = wanted_languages(task, split)
    there = available_languages(task, split, source)
    return (*wanted, *(language for language in there if language not in wanted))


def _fetch(
    task: Task, split: str, language: str, source: DataSource, failures: dict[str, str], progress: Progress
) -> str:
    """Fetches each part of a split from the first data set that has it.

    Args:
        failures: what went wrong with data sets that can't be had at all; they are not tried again.

    Returns:
        What went wrong with the data sets that were tried, if a part can't be had.
    """
    kind = source.kind_of(task, split)
    if kind == "files":
        return ""
    module = module_of(kind)
    problems: list[str] = []
    for part in sources_of(task, split, source).values():
        data_sets = [data_set for data_set in part if has_language(data_set, language)]
        if any(module.find(data_set, split, language, source.root) for data_set in data_sets):
            continue
        tried: list[str] = []
        for data_set in data_sets:
            if data_set.name in failures:
                tried.append(failures[data_set.name])
                continue
            progress.say(f"{task.name}: fetching {split} in {language} from {data_set.name}")
            try:
                module.fetch(data_set, split, language, source.root)
                tried = []
                break
            except DataError as error:
                progress.say(str(error))
                tried.append(error.what)
                if isinstance(error, SourceFailure):
                    failures[data_set.name] = error.what
        problems += tried
    return "; ".join(problems)


def _read(
    task: Task,
    split: str,
    language: str,
    source: DataSource,
    problem: str,
    texts: dict[tuple[str, str], set[bytes]],
) -> PreparedSplit:
    expected = expected_count(task, split, language)
    found, skipped, note = None, 0, ""
    try:
        if language not in available_languages(task, split, source, beyond=True):
            note = problem or f"missing; looked for {', '.join(list_patterns(task, split, source))}"
        elif any(one.build for part in sources_of(task, split, source).values() for one in part):
            pool = read_retrieval(task, split, language, source)
            # Only a mining task's count is of pairs: its pools hold much besides.
            found = len(pool.gold) if task.retrieval == "mining" and pool.gold else len(pool.queries)
            texts.setdefault((task.name, split), set()).update(_hash_texts(pool.queries))
        else:
            reading = read_counted(task, split, language, source)
            found, skipped = len(reading.examples), len(reading.skipped)
            texts.setdefault((task.name, split), set()).update(_hash_texts(reading.examples))
    except DataError as error:
        note = str(error).replace("\n", " ")
    if found is not None and expected is not None and found != expected:
        note = "another count"
    return PreparedSplit(task.name, split, language, found, expected, skipped, note)


def _check_totals(tasks: Sequence[Task], splits: Sequence[PreparedSplit]) -> Iterator[PreparedSplit]:
    """Yields counts of splits that are carved out of one released split, such as ``train+dev``."""
    found = {(row.task, row.split, row.language): row.found for row in splits}
    for task in tasks:
        for name in task.counts:
            parts = name.split("+")
            if len(parts) == 1:
                continue
            language = task.source_language
            counts = [found.get((task.name, part, language)) for part in parts]
            expected = expected_count(task, name, language)
            if None in counts or expected is None:
                continue
            total = sum(count or 0 for count in counts)
            note = "" if total == expected else "another count"
            yield PreparedSplit(task.name, name, language, total, expected, 0, note)


def _hash_texts(examples: Iterable[Example]) -> Iterator[bytes]:
    for example in examples:
        text = " ".join(_main_text(example).lower().split())
        if len(text) >= _SHORTEST:
            yield hashlib.blake2b(text.encode(), digest_size=8).digest()


def _main_text(example: Example) -> str:
    words = getattr(example, "words", ())
    found = (getattr(example, name, "") for name in ("context", "prompt", "text"))
    return " ".join(words) or next(filter(None, found), "")


def _find_overlaps(texts: dict[tuple[str, str], set[bytes]]) -> Iterator[Overlap]:
    for (training, train), seen in texts.items():
        if train != "train":
            continue
        for (evaluation, split), asked in texts.items():
            shared = len(seen & asked)
            if split != "train" and shared:
                yield Overlap(f"{training} {train}", f"{evaluation} {split}", shared, len(asked))


def format_preparation(preparation: Preparation) -> str:
    """Returns what was found as a table to print, missing languages of a split in one line."""
    rows: list[Sequence[str]] = []
    missing: dict[tuple[str, str, str], list[str]] = {}
    for row in preparation.splits:
        if row.found is None:
            missing.setdefault((row.task, row.split, row.note), []).append(row.language)
            continue
        counts = [str(row.found), "-" if row.expected is None else str(row.expected), str(row.skipped)]
        rows.append((row.task, row.split, row.language, *counts, row.note))
    parts = (
        [format_table(("task", "split", "language", "found", "expected", "skipped", ""), rows)]
        if rows
        else []
    )
    if missing:
        lines = [
            f"  {task} {split} ({' '.join(codes)}): {note}" for (task, split, note), codes in missing.items()
        ]
        parts.append("Missing:\n" + "\n".join(lines))
    if preparation.overlaps:
        lines = [
            f"  {overlap.shared} of {overlap.texts} texts of {overlap.evaluation} are in {overlap.training}"
            for overlap in sorted(preparation.overlaps, key=lambda overlap: -overlap.shared / overlap.texts)
        ]
        parts.append(
            "Evaluation text that is also training text (do not report one after the other):\n"
            + "\n".join(lines)
        )
    return "\n\n".join(parts)
