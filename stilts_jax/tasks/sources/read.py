"""Reads the splits of a task from release files, prepared hub data or prepared TFDS data; nothing here downloads."""

import functools
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from stilts_jax.errors import DataError
from stilts_jax.settings import SourceKind
from stilts_jax.tasks.sources import files, hub, tfds
from stilts_jax.tasks.sources.pictures import check_picture, hash_pictures
from stilts_jax.tasks.sources.rows import EVERY_ROW, BadRow, Problems, Row, check_example
from stilts_jax.tasks.spec import UNKNOWN_LABEL, Example, RetrievalSet, Source, Task, describe

KINDS: tuple[SourceKind, ...] = get_args(SourceKind)
# Each has ``find`` and ``open_rows``, data sets also ``fetch``.
MODULES: Mapping[SourceKind, Any] = {"files": files, "hub": hub, "tfds": tfds}
Rows = Iterable[tuple[Path, Row]]
Found = dict[str, tuple[Path, ...]]  # files by role


@dataclass(frozen=True)
class DataSource:
    """Where tasks are read from."""

    root: Path  # the data root; hub data lies in its folder ``hub``, TFDS data in ``tfds``
    kind: SourceKind = "files"  # how all tasks are read that ``per_task`` does not name
    per_task: Mapping[str, SourceKind] = field(default_factory=dict)
    skip_budget: int = 0  # rows of one split and language that may be unusable; they are skipped and counted
    pictures: str = ""  # the encoder whose features stand for pictures; empty: the pictures themselves

    def kind_of(self, task: Task, split: str) -> SourceKind:
        """Returns how a split is read: as is wanted, else from files (LAReQA's pools, UD), else from what has it.

        A translation that was made for training may lie in files, whatever English is read from.
        """
        said = self.per_task.get(task.name, self.per_task.get(task.name.partition("@")[0]))
        kinds = [
            one for one in dict.fromkeys((said or self.kind, *KINDS)) if one in source_kinds(task, split)
        ]
        first: SourceKind = next(iter(kinds), "files")
        if "@" in task.name and split == "train" and not said and "files" in kinds[1:]:
            has = {kind: self._has(task, split, kind) for kind in kinds}
            return "files" if has["files"] and not has[first] else first
        return first

    def hint(self) -> str:
        """Returns what to add to a ``fix``: data were fetched from a place that is not read."""
        unread = [kind for kind in ("hub", "tfds") if kind != self.kind and (self.root / kind).is_dir()]
        fix = "; add --config.data.source={} where they were fetched from there"
        return "".join(fix.format(kind) for kind in unread)

    def _has(self, task: Task, split: str, kind: SourceKind) -> bool:
        places = [one for one in task.sources if one.kind == kind and split in one.splits]
        return any(MODULES[kind].find(one, split, task.source_language, self.root) for one in places)


class Reading(NamedTuple):
    """What was read of one split in one language."""

    examples: list[Example]  # in the order of the files
    skipped: tuple[str, ...] = ()  # place and reason of each row that can't be used
    dropped: int = 0  # rows that are no part of the data by the task's rules (SNLI's ``-``, PAWS-X's ``NS``)


def sources_of(task: Task, split: str, source: DataSource) -> dict[str, list[Source]]:
    """Returns the sources that a split is read from, by part ("" where a task has no parts)."""
    kind = source.kind_of(task, split)
    usable = [one for one in task.sources if one.kind == kind and split in one.splits]
    return {part: [one for one in usable if one.part == part] for part in (one.part for one in task.sources)}


def source_kinds(task: Task, split: str) -> list[SourceKind]:
    """Returns the kinds of source that a split (each of its parts) can be read from."""
    parts = {one.part for one in task.sources}
    has = {(one.kind, one.part) for one in task.sources if split in one.splits}
    return [kind for kind in KINDS if parts and all((kind, part) in has for part in parts)]


def locate(task: Task, split: str, language: str, source: DataSource) -> list[tuple[Source, Found]]:
    """Returns, for each part, the first source that has a split in a language, with its files by role."""
    located = []
    for part, sources in sources_of(task, split, source).items() or [("", [])]:
        found = ((one, MODULES[one.kind].find(one, split, language, source.root)) for one in sources)
        first = next((item for item in found if item[1]), None)
        if not first:
            raise _missing(task, split, language, source, part)
        located.append(first)
    return located


def find_paths(task: Task, split: str, language: str, source: DataSource) -> tuple[Path, ...]:
    """Returns the files that a split is read from, or raises ``DataError``."""
    return _paths_of(task, locate(task, split, language, source), source)


def _paths_of(task: Task, located: Sequence[tuple[Source, Found]], source: DataSource) -> tuple[Path, ...]:
    paths = [path for _, roles in located for role in sorted(roles) for path in roles[role]]
    return (*paths, *(files.find_files(source.root, task.labels_file) if task.labels_file else ()))


def find_gold_file(task: Task, language: str, root: Path) -> Path | None:
    """Returns the file that holds the reported split's gold alone, where a release has one."""
    sources = (one for one in task.sources if task.reported in one.splits and "gold" in one.paths)
    paths = (files.list_paths(one, task.reported, language)["gold"] for one in sources)
    return next((path for (pattern,) in paths for path in files.find_files(root, pattern)), None)


def list_patterns(task: Task, split: str, source: DataSource) -> list[str]:
    """Returns every path that is looked for, as it is declared (with ``{language}``), or the names of data sets."""
    found: list[str] = []
    for one in (one for part in sources_of(task, split, source).values() for one in part):
        declared, forms = one.patterns(split), list[Mapping[str, Sequence[str]]]()
        if "@" in task.name and task.source_language != one.language:
            forms.append(files.list_paths(one, split, "{language}"))
        if not forms or split != "train":  # the English dev set serves where it is not translated
            forms.append(declared)
        found += (path for form in forms for paths in form.values() for path in paths)
    return [*dict.fromkeys(found), *filter(None, [task.labels_file])]


def available_languages(
    task: Task, split: str, source: DataSource, *, beyond: bool = False
) -> tuple[str, ...]:
    """Returns the languages that a split has data for, in the task's order, and all where it names none (mlm).

    With ``beyond``, those that the benchmark does not have stand behind the others.
    """
    parts = [
        set().union(*(_languages(one, split, source.root) for one in sources))
        for sources in sources_of(task, split, source).values()
    ]
    found = set.intersection(*parts) if parts else set()
    listed = tuple(language for language in task.languages if language in found)
    if not listed and split == task.selection and "@" in task.name:
        listed = tuple({task.dev_language} & found)
    return (*listed, *sorted(found - set(listed))) if beyond or not task.languages else listed


def _languages(one: Source, split: str, root: Path) -> set[str]:
    find = MODULES[one.kind].find
    if one.by_language:
        paths = find(one, split, "", root).get("")
        return set(_group(one, split, files.state_of(paths))[0]) if paths else set()
    if one.kind == "files":
        return files.find_languages(one, split, root)
    return {language for language in one.languages or ("en",) if find(one, split, language, root)}


def selection_language(task: Task, source: DataSource) -> str:
    """Returns the language of the dev set that selects: of "mnli@de" English, unless the dev set is translated too."""
    found = available_languages(task, task.selection, source, beyond=True)
    return (
        task.dev_language if "@" in task.name and task.source_language not in found else task.source_language
    )


def fetching(task: Task, kinds: Iterable[str], source: DataSource) -> str:
    """Returns the commands that fetch a task, as they are typed; "" if there is none."""
    root = shlex.quote(f"--data_root={source.root}")
    offers = (kind for kind in dict.fromkeys(kinds) if kind != "files")
    return " or ".join(f"`stilts prepare {task.reference} --source={kind} {root}`" for kind in offers)


def _missing(task: Task, split: str, language: str, source: DataSource, part: str) -> DataError:
    kind = source.kind_of(task, split)
    sources = sources_of(task, split, source).get(part, [])
    there = set().union(*(_languages(one, split, source.root) for one in sources)) - {language}
    paths = (files.list_paths(one, split, language) for one in sources)
    tried = ", ".join(path for one in paths for role in one if role != "gold" for path in one[role])
    offers = fetching(task, source_kinds(task, split), source)
    fixes = ["copy the released files there"] if kind == "files" else []
    fixes += [f"fetch it: {offers}"] if offers else []
    what = f"no {split} data of {task.name} in language {language!r}" + (f": part {part}" if part else "")
    where = f"{source.root}: looked for {tried}" if tried else f"{task.name} has no {split} from {kind}"
    fix = f"take a language that is there: {' '.join(sorted(there))}" if there else ", or ".join(fixes)
    return DataError(what, where=where, fix=fix)


def read_examples(task: Task, split: str, language: str, source: DataSource) -> list[Example]:
    """Returns the examples of one split in one language; a DataError says what is missing or can't be used."""
    return read_counted(task, split, language, source).examples


def read_counted(task: Task, split: str, language: str, source: DataSource) -> Reading:
    """Returns the examples of one split in one language, with what was left out."""
    labels = with_labels(task, source).labels
    if task.labels_file and split != "train":
        labels = (*labels, UNKNOWN_LABEL)
    examples: list[Example] = []
    blank: dict[int, tuple[Path, Row]] = {}  # examples without gold, by index
    problems = Problems(f"{task.name}, {split}, {language}", source.skip_budget)
    dropped, shown = 0, task.pictures not in ("", "blind")
    for one, found in locate(task, split, language, source):
        problems.budget += one.tolerated
        seen: set[str] = set()
        rows = _read_rows(one, split, language, found, problems)
        if rows is None:
            raise _missing(task, split, language, source, one.part)
        for path, row in rows:
            with problems.skipping(path, row):
                example = one.convert(row, labels)
                if example is None:
                    dropped += 1
                elif task.keep is None or task.keep(example, split):
                    has_gold = check_example(example)
                    for picture in getattr(example, "pictures", ()) if shown else ():
                        check_picture(source.root, picture, source.pictures)
                    if example.id in seen:
                        raise BadRow(f"the id {example.id!r} occurred before")
                    seen.add(example.id)
                    if not has_gold:
                        blank[len(examples)] = path, row
                    examples.append(replace(example, id=f"{one.part}/{example.id}") if one.part else example)
    if blank and (split == "train" or len(blank) < len(examples)):
        reason = "training needs it" if split == "train" else "other rows of the file have it"
        for path, row in blank.values():
            with problems.skipping(path, row):
                raise BadRow(f"gold is blank, and {reason}; the columns are {', '.join(row.fields)}")
        examples = [example for index, example in enumerate(examples) if index not in blank]
    if not examples and task.kind != "mlm":  # of a few lines of text none may be kept for dev
        left_out = f"{dropped} rows are dropped, {len(problems.found)} skipped"
        what = f"there are no examples: {'; '.join((left_out, *problems.skipped[:1]))}"
        paths = ", ".join(map(str, find_paths(task, split, language, source)))
        raise problems.refuse(paths, what)
    return Reading(examples, problems.skipped, dropped)


def read_retrieval(task: Task, split: str, language: str, source: DataSource) -> RetrievalSet:
    """Returns queries, candidates and gold of one language of a retrieval task."""
    problems = Problems(f"{task.name}, {split}, {language}", source.skip_budget)
    ((one, found),) = locate(task, split, language, source)
    content = found if "" not in found else _read_rows(one, split, language, found, problems) or ()
    pools = one.build(content, language, problems)
    for empty in ("queries", "candidates", "gold"):
        listed = getattr(pools, empty)
        if listed is not None and not listed:
            paths = ", ".join(map(str, find_paths(task, split, language, source)))
            raise problems.refuse(paths, f"the list of {empty} is empty")
    return replace(pools, skipped=problems.skipped)


def _read_rows(one: Source, split: str, language: str, found: Found, problems: Problems) -> Rows | None:
    """Returns the rows of a language with the file that each is in; None where a file of several has none in it."""
    if not one.by_language:
        return _number_rows(one, split, language, found[""], problems)
    groups, bad = _group(one, split, files.state_of(found[""]))
    problems.add_all(bad)
    return groups.get(language)


def _number_rows(one: Source, split: str, language: str, paths: Sequence[Path], problems: Problems) -> Rows:
    """Yields the rows of files, numbered from the first file to the last."""
    names = Counter(path.name for path in paths)
    if twice := [path for path in paths if names[path.name] > 1 and "-ud-" in path.name]:
        fix = "keep one version of Universal Dependencies of each language"
        raise problems.refuse(", ".join(map(str, twice)), "A treebank is here twice.", fix)
    before = 0
    for path, rows in MODULES[one.kind].open_rows(one, split, language, paths, problems):
        last = -1
        try:
            for row in rows:
                last = row.number
                yield path, replace(row, number=before + last) if before else row
        except BadRow as error:  # of what several rows share
            raise problems.refuse(path, str(error), "compare it with the released file") from error
        before += last + 1


@functools.lru_cache(maxsize=2)  # it is read once for all its languages; a changed file is read again
def _group(one: Source, split: str, states: files.States) -> tuple[dict[str, Any], Problems]:
    """Returns the rows of a source that holds several languages by language, and the rows that can't be used."""
    ours = {theirs: language for language, theirs in one.codes.items()}
    problems = Problems(f"{split}, all languages", EVERY_ROW)
    groups: dict[str, list[tuple[Path, Row]]] = {}
    column = one.by_language
    for path, row in _number_rows(one, split, "", [state[0] for state in states], problems):
        with problems.skipping(path, row):
            for language, inner in [(row[column], row)] if isinstance(column, str) else column(row):
                groups.setdefault(ours.get(language, language), []).append((path, inner))
    return groups, problems


def with_labels(task: Task, source: DataSource) -> Task:
    """Returns a task whose ``labels`` are filled in from its data, where they come with it."""
    if not task.labels_file:
        return task
    paths = files.find_files(source.root, task.labels_file)
    if not paths:
        fix = "write a JSON object there from each label to its number, from 0 on"
        where = str(source.root / task.labels_file)
        raise DataError(f"{task.name} has no labels file", where=where, fix=fix)
    numbers = Row.document(paths[0]).fields
    if sorted(map(json.dumps, numbers.values())) != sorted(map(str, range(len(numbers)))):
        fix = "give each label one number from 0 on"
        raise DataError("labels are not numbered 0, 1, 2, ...", where=str(paths[0]), fix=fix)
    return replace(task, labels=tuple(sorted(numbers, key=numbers.__getitem__)))


def fingerprint(task: Task, split: str, language: str, source: DataSource) -> str:
    """Returns a hash of what a split is read from, by its bytes and not its path, and of how these become examples."""
    labels = [] if task.labels_file else task.labels  # those of a labels file are in its bytes
    declared: list[Any] = [task.kind, labels, task.keep]
    located = locate(task, split, language, source)
    for one, found in located:
        read = files.reader_of(one, found[""][0].name) if one.kind == "files" and "" in found else None
        # To a task of one's own languages are added, and none of them says how another one is read.
        own = ":" in task.reference
        codes = {ours: theirs for ours, theirs in one.codes.items() if not own or ours == language}
        declared += [read, one.convert, one.build, one.by_language, codes]
    made_of = hashlib.blake2b(json.dumps(describe(declared)).encode(), digest_size=8).hexdigest()
    content = files.hash_files(_paths_of(task, located, source))
    name = f"{task.name}-{task.version}-{split}-{language}-{made_of}-{content}"
    if task.pictures in ("", "blind"):
        return f"{name}-blind" if task.pictures else name
    # Controls show the same ones.
    key = f"{split}-{language}-{made_of}-{content}", source.root, source.pictures
    if key not in _PICTURES:
        rows = read_examples(task, split, language, source)
        shown = {picture for row in rows for picture in getattr(row, "pictures", ())}
        _PICTURES[key] = hash_pictures(source.root, sorted(shown), source.pictures)
    return f"{name}-{_PICTURES[key]}"


_PICTURES: dict[tuple[str, Path, str], str] = {}  # hashes of what was seen to be shown
