"""What tasks there are, where their data was found and what is missing; examples as a model reads them; fetching."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from textwrap import fill
from typing import Any, NamedTuple

from stilts_jax.errors import ConfigError, DataError, nearest
from stilts_jax.progress import SILENT, Progress
from stilts_jax.tasks.languages import our_code
from stilts_jax.tasks.sources import read
from stilts_jax.tasks.sources.hub import SourceFailure
from stilts_jax.tasks.sources.read import MODULES, DataSource
from stilts_jax.tasks.spec import UNKNOWN_LABEL, ChoiceExample, Example, RetrievalSet, Source, Task

_ORDER = ("train", "dev", "dev_mismatched", "test")
_MOST_SHOWN = 6  # languages of one split that the table lists as missing; `stilts tasks TASK` lists them all
_TEXTS = ("text", "pair", "words", "prompt", "question", "context")  # the fields whose pieces are shown
_LONGEST = 400  # characters of a text and pieces of it that are shown
_MOST_PIECES = 60
_SHORTEST = 20  # characters; shorter texts are the same in two splits by chance


def list_splits(task: Task, source: DataSource) -> tuple[str, ...]:
    """Returns the splits that a task can have in its kind of source, and in another where that lacks them."""
    named = {split for one in task.sources for split in one.splits}
    known = {split for split in named if any(read.sources_of(task, split, source).values())}
    return (*(split for split in _ORDER if split in known), *sorted(known.difference(_ORDER)))


def wanted_languages(task: Task, split: str) -> tuple[str, ...]:
    """Returns the languages that a split is needed in; none if the task does without it."""
    if split == "train":  # in one language; a task that is trained on others needs none of its own
        return () if task.train_on or not task.languages else (task.source_language,)
    # What was only translated for training is selected on English.
    if split not in (task.selection, task.reported) or ("@" in task.name and split == task.selection):
        return ()
    return task.split_languages.get(split, task.languages)


def _needed(task: Task, split: str, source: DataSource) -> tuple[str, ...]:
    """Returns the languages that a split is needed in; of "mnli@de" the one that will select among them."""
    with suppress(DataError):  # of a file that can't be read, which is said elsewhere
        if "@" in task.name and split == task.selection:
            return (read.selection_language(task, source),)
    return wanted_languages(task, split)


def expected_count(task: Task, split: str, language: str) -> int | None:
    """Returns how many examples the released data has; None where that isn't known."""
    count = task.counts.get(split)
    return count.get(language) if isinstance(count, Mapping) else count


def _look(task: Task, split: str, source: DataSource) -> tuple[tuple[str, ...], list[str]]:
    """Returns the languages that a split is there in (of "mnli@de", only those that it can use), and the missing."""
    there = read.available_languages(task, split, source, beyond="@" not in task.name)
    return there, [language for language in _needed(task, split, source) if language not in there]


def _available(task: Task, split: str, source: DataSource) -> tuple[str, ...]:
    """Returns the languages that a split is there in; none where a file can't be read, which is said elsewhere."""
    with suppress(DataError):
        return read.available_languages(task, split, source)
    return ()


def _read_pools(task: Task, split: str, language: str, source: DataSource) -> RetrievalSet | None:
    """Returns what a split of a retrieval task is scored on; None where its rows become examples."""
    if any(one.build for part in read.sources_of(task, split, source).values() for one in part):
        return read.read_retrieval(task, split, language, source)
    return None


def read_part(task: Task, split: str, language: str, source: DataSource) -> tuple[Sequence[Any], int, int]:
    """Returns examples (or queries), how many there are of what is counted, and how many rows were skipped."""
    if pools := _read_pools(task, split, language, source):
        # Only a mining task's count is of pairs: its pools hold much besides, and a query may have several.
        pairs = sum(map(len, (pools.gold or {}).values())) if task.retrieval == "mining" else 0
        return pools.queries, pairs or len(pools.queries), len(pools.skipped)
    reading = read.read_counted(task, split, language, source)
    return reading.examples, len(reading.examples), len(reading.skipped)


def format_inventory(tasks: Iterable[Task], source: DataSource) -> str:
    """Returns a table with a row for each task, without reading data."""
    header = ("task", "kind", "metric", "languages", "rows, released", "languages found", "fetched from")
    rows = []
    for task in tasks:
        found, missing, sizes = [], [], []
        for split in list_splits(task, source):
            try:
                there, absent = _look(task, split, source)
            except DataError:  # of a file of several languages; `stilts prepare` says what is wrong with it
                missing.append(f"{split} can't be read")
                continue
            found += [f"{split} {len(there)}"] * bool(there)
            if absent:
                listed = f"{len(absent)} languages" if len(absent) > _MOST_SHOWN else " ".join(absent)
                missing.append(f"{split} {listed}" if there else split)
        for split, count in task.counts.items():
            numbers = count.values() if isinstance(count, Mapping) else [count]
            ends = dict.fromkeys((min(numbers), max(numbers)))  # one where they are equal
            sizes.append(f"{split} " + "-".join(f"{number:,}" for number in ends))
        languages = len(task.languages or _available(task, "train", source))
        kinds = dict.fromkeys(one.kind for one in task.sources if one.kind != "files")
        lists = (", ".join(part) or "-" for part in (sizes, found, kinds, missing))
        rows.append((task.name, task.kind, task.metric, str(languages), *lists))
    return format_table((*header, "missing"), rows)


def format_paths(task: Task, source: DataSource) -> str:
    """Returns every path of a task that was found, by split and language, and what was looked for in vain."""
    lines = [f"{task.name}, below {source.root}:"]
    for split in list_splits(task, source):
        there, absent = _look(task, split, source)
        groups: dict[str, dict[str, str]] = {}  # of paths that differ by the language's code only
        for language in there:
            paths = read.find_paths(task, split, language, source)
            exact = ", ".join(str(path).removeprefix(f"{source.root}/") for path in paths)
            code, shown = _spell(language, [one for one, _ in read.locate(task, split, language, source)])
            pattern = re.sub(rf"(?<![a-zA-Z]){re.escape(code)}(?![a-zA-Z])", "{language}", exact)
            groups.setdefault(pattern, {})[shown] = exact
        for pattern, found in groups.items():
            paths_shown = pattern if len(found) > 1 else "".join(found.values())
            lines.append(_list_languages(f"{split}: {paths_shown}", list(found)))
        if absent or not there:
            patterns = ", ".join(read.list_patterns(task, split, source))
            codes = [_spell(language, task.sources)[1] for language in absent]
            lines.append(_list_languages(f"{split} not found; looked for {patterns}", codes))
    offers = dict.fromkeys(f"{one.kind}: {one.name}" for one in task.sources if one.kind != "files")
    if commands := read.fetching(task, [one.kind for one in task.sources], source):
        lines.append(f"  fetched from {', '.join(offers)}, by {commands}")
    if task.train_on:
        lines.append(f"  trained on {', then '.join(task.train_on)}")
    return "\n".join(lines)


def _list_languages(text: str, codes: Sequence[str]) -> str:
    if len(codes) < 2:
        return " ".join((f"  {text}", *(f"({code})" for code in codes)))
    below = fill(" ".join(codes), 118, initial_indent="    ", subsequent_indent="    ")
    return f"  {text}, {len(codes)} languages:\n{below}"


def _spell(language: str, sources: Iterable[Source]) -> tuple[str, str]:
    """Returns the code that data use for a language, and what is shown: ``OURS=THEIRS`` where theirs is another."""
    code = next((one.codes[language] for one in sources if language in one.codes), language)
    return code, language if code == language else f"{language}={code}"


def format_examples(task: Task, source: DataSource, cut: Callable[[str], Sequence[str]] | None = None) -> str:
    """Returns three examples as a model will read them, of the reported split if it is there; ``cut`` gives pieces."""
    for split in filter(None, (task.reported, task.selection, "train")):
        languages, _ = _look(task, split, source)
        if not languages:
            continue
        task = read.with_labels(task, source)
        language = task.source_language if task.source_language in languages else languages[0]
        pools = _read_pools(task, split, language, source)
        examples = pools.queries if pools else read.read_examples(task, split, language, source)
        lines = [f"{task.name} {split} {language}, {len(examples[:3])} of {len(examples)} examples:"]
        for example in _find_partners(pools) if pools else examples[:3]:
            shown = ((one.name, _show(task, example, one.name)) for one in fields(example))
            for name, text in ((name, text) for name, text in shown if text):
                more = f" ... ({len(text):,} characters)" if len(text) > _LONGEST else ""
                lines.append(f"  {name}: {text[:_LONGEST]}{more}")
                if cut and name in _TEXTS:
                    pieces = cut(text)
                    more = " ..." if len(pieces) > _MOST_PIECES else ""
                    lines.append(f"    {len(pieces)} pieces: {' '.join(pieces[:_MOST_PIECES])}{more}")
            lines.append("")
        return "\n".join(lines[:-1])
    return f"{task.name}: no split is there"


def _find_partners(pools: RetrievalSet) -> Iterator[Example]:
    """Yields the first three queries of a retrieval set with their right partners, where these are known."""
    for query in pools.queries[:3]:
        right = (pools.gold or {}).get(query.id, ())
        texts = [candidate.text for candidate in pools.candidates if candidate.id in right]
        yield replace(query, positive=" | ".join(texts) or None)


def _show(task: Task, example: Example, name: str) -> str:
    """Returns a field of an example as text; labels and tags are names, answers are texts."""
    value, labels = getattr(example, name), (*task.labels, UNKNOWN_LABEL)
    if value is None or value is False:
        return ""
    if name == "label":
        return f"{value} ({example.choices[value]})" if isinstance(example, ChoiceExample) else labels[value]
    if name in ("tags", "votes"):
        value = tuple(labels[one] for one in value)
    if name == "answers" and task.kind == "span":
        value = tuple(f"{text} (at {start})" for text, start in value)
    joint = " " if name in ("words", "tags") else " | "
    return joint.join(value) if isinstance(value, tuple) else str(value)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns aligned columns; columns of numbers stand on the right."""
    columns = []
    for name, *cells in zip(header, *rows):
        width = max(map(len, (name, *cells)))
        numeric = all(cell.replace(",", "").isdecimal() or cell in ("", "-") for cell in cells)
        columns.append([cell.rjust(width) if numeric else cell.ljust(width) for cell in (name, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns))


class PreparedSplit(NamedTuple):
    """What was found of one split in one language: a row of the table."""

    task: str
    split: str
    language: str
    found: int | None  # examples (queries of a retrieval set); None if the split is missing
    expected: int | None  # examples of the released data; None where that isn't known
    skipped: int  # rows that couldn't be used
    note: str  # what is wrong, or empty


def prepare(
    tasks: Sequence[Task],
    source: DataSource,
    *,
    languages: Sequence[str] = (),
    download: bool = False,
    progress: Progress = SILENT,
) -> tuple[list[PreparedSplit], list[str]]:
    """Fetches what is missing (if ``download``), reads everything once, and says what is there.

    Returns the splits, and how much evaluation text is training text too. Nothing else downloads, and only what is on
    the hub or in TFDS can be had. The same command after an interruption fetches only what is not complete.
    ``languages``: only these, and the one that each task is trained in.
    """
    known = {task.source_language for task in tasks}
    known.update(*(task.languages or _available(task, "train", source) for task in tasks))
    languages = [language if language in known else our_code(language) for language in languages]
    for language in languages:
        if language not in known:
            fix = f"codes are joined by +; {nearest(language, known)}"
            raise ConfigError(f"no task here has the language {language!r}", where="--languages", fix=fix)
    wanted = [
        (task, split, language)
        for task in tasks
        for split in list_splits(task, source)
        for needed in [_needed(task, split, source)]
        for language in dict.fromkeys((*needed, *_available(task, split, source)))
        if not languages or language in (task.source_language, *languages) or "@" in task.name
    ]
    splits: list[PreparedSplit] = []
    texts: dict[tuple[str, str], set[bytes]] = {}  # hashes by task and split
    failures: dict[str, str] = {}  # of data sets that can't be had at all, and are not tried again
    with progress.track("prepare", len(wanted), "splits") as bar:
        for task, split, language in wanted:
            expected, found, skipped, note = expected_count(task, split, language), None, 0, ""
            try:
                if download:
                    note = _fetch(task, split, language, source, failures, progress)
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
    overlaps = []  # evaluation splits with texts of a training split
    for ((training, train), seen), ((evaluation, split), asked) in itertools.product(texts.items(), repeat=2):
        shared = len(seen & asked)
        if train == "train" != split and shared:
            line = f"{shared} of {len(asked)} texts of {evaluation} {split} are in {training} {train}"
            overlaps.append((shared / len(asked), line))
    overlaps.sort(key=lambda item: -item[0])
    return splits, [line for _, line in overlaps]


def _fetch(
    task: Task, split: str, language: str, source: DataSource, failures: dict[str, str], progress: Progress
) -> str:
    """Fetches each part of a split from the first data set that has it; returns what went wrong with others."""
    problems: list[str] = []
    for part in read.sources_of(task, split, source).values():
        data_sets = [one for one in part if one.kind != "files" and one.has(language)]
        if any(MODULES[one.kind].find(one, split, language, source.root) for one in data_sets):
            continue
        tried: list[str] = []
        for one in data_sets:
            if one.name in failures:
                tried.append(failures[one.name])
                continue
            progress.say(f"{task.name}: fetching {split} in {language} from {one.name}")
            try:
                MODULES[one.kind].fetch(one, split, language, source.root)
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
            # A question that is asked of another picture is another one.
            text = "\n".join((text, *getattr(example, "pictures", ())))
            yield hashlib.blake2b(text.encode(), digest_size=8).digest()


def format_preparation(splits: Sequence[PreparedSplit], overlaps: Sequence[str]) -> str:
    """Returns what was found as a table to print, missing languages of a split in one line."""
    rows: list[Sequence[str]] = []
    missing: dict[tuple[str, str, str], list[str]] = {}
    for row in splits:
        if row.found is None:
            missing.setdefault((row.task, row.split, row.note), []).append(row.language)
        else:
            rows.append(["-" if value is None else str(value) for value in row])
    header = ("task", "split", "language", "found", "expected", "skipped", "")
    parts = [format_table(header, rows)] if rows else []
    lines = [f"{task} {split} ({' '.join(codes)}): {note}" for (task, split, note), codes in missing.items()]
    overlap = "Evaluation text that is also training text (do not report one after the other)"
    for title, listed in (("Missing", lines), (overlap, overlaps)):
        if listed:
            parts.append("\n  ".join((f"{title}:", *listed)))
    return "\n\n".join(parts)
