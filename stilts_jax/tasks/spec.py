"""What a task is: one frozen record, and the plain examples that it yields.

A task file defines ``TASK = Task(...)``; nothing registers it. ``kind`` decides four things: how examples become
features, which head reads the encoder, which loss trains it, and how predictions are decoded.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.settings import Preset, SourceKind

Kind = Literal["classify", "choice", "tag", "span", "embed", "mlm"]
Group = Literal["classification", "tagging", "qa", "retrieval", "intermediate"]
Retrieval = Literal["", "nearest", "mining", "ranking"]
Pictures = Literal["", "seen", "blind", "shuffled"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GROUPS: tuple[Group, ...] = get_args(Group)
# The metrics that can score a kind of task; of retrieval tasks, a way of retrieval.
METRICS_OF: Mapping[str, tuple[str, ...]] = {
    "classify": ("accuracy", "accuracy_f1", "vqa_accuracy"),
    "choice": ("accuracy",),
    "tag": ("chunk_f1", "token_accuracy"),
    "span": ("squad", "squad_v2", "mlqa"),
    "nearest": ("nearest_accuracy",),
    "mining": ("bucc_f1",),
    "ranking": ("mrr", "map"),
    "mlm": ("perplexity",),
}
# The gold tag of evaluation data that training data lack. No head has an output for it, so it is never predicted.
UNKNOWN_LABEL = "<other>"
_NAME = re.compile(r"\w[\w.-]*(@[\w-]+)?")  # it names folders, and + / : , = join names on the command line


@dataclass(frozen=True, slots=True)
class ClassifyExample:
    """A sentence or a pair of sentences, perhaps about pictures, with one label (an index into ``Task.labels``).

    Attributes:
        pictures: paths below the data root.
        answers: what ten people said to a question, for ``vqa_accuracy``.
        votes: the labels of those answers that have one, for training: ``min(votes / 3, 1)`` is a label's target.
    """

    id: str
    text: str
    pair: str | None = None
    label: int | None = None
    pictures: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    votes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceExample:
    """A prompt and several continuations; ``label`` is the index of the right one."""

    id: str
    prompt: str
    choices: tuple[str, ...]
    label: int | None = None


@dataclass(frozen=True, slots=True)
class TagExample:
    """A sentence of words with one tag for each word (indices into ``Task.labels``)."""

    id: str
    words: tuple[str, ...]
    tags: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class SpanExample:
    """A question about a context; each answer is ``(text, start)`` with a character offset.

    ``answers`` is empty where the question has no answer (SQuAD 2.0: ``impossible``) or gold is blanked.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()
    impossible: bool = False


@dataclass(frozen=True, slots=True)
class EmbedExample:
    """A text to embed; ``positive`` is its partner where a dual encoder is trained."""

    id: str
    text: str
    positive: str | None = None


@dataclass(frozen=True, slots=True)
class TextExample:
    """A line of running text, for masked language modelling, and pictures that it is about."""

    id: str
    text: str
    pictures: tuple[str, ...] = ()


Example = ClassifyExample | ChoiceExample | TagExample | SpanExample | EmbedExample | TextExample


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """What one language of a retrieval task is scored on.

    Attributes:
        queries: the texts that look for a partner.
        candidates: the pool; the very same object for every language where ``Task.shared_candidates``.
        gold: ids of the right candidates by query id; None where they are blanked.
        skipped: place and reason of each row that can't be used.
    """

    queries: Sequence[EmbedExample]
    candidates: Sequence[EmbedExample]
    gold: Mapping[str, tuple[str, ...]] | None
    skipped: tuple[str, ...] = ()


EMPTY: Mapping[str, Any] = MappingProxyType({})


def names(text: str) -> tuple[str, ...]:
    """Returns the words of a text, to write long lists of codes or labels in few lines."""
    return tuple(text.split())


def pairs(text: str) -> dict[str, str]:
    """Returns what ``"a:b c:d"`` says."""
    return dict(item.split(":") for item in text.split())


def counts(text: str) -> dict[str, int]:
    """Returns numbers by language, written as ``"de:10 en:12"``."""
    return {code: int(count) for code, count in pairs(text).items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """One place where splits of a task come from: release files, a data set of the hub, or a TFDS builder.

    Attributes:
        kind: files, hub or tfds.
        splits: its names of our splits; several, joined by spaces, are tried in their order.
        paths: files: path patterns below the data root, tried in order. ``{split}`` and ``{language}`` stand for
            names, ``*`` and ``**`` for anything (all matches are read, in the order of their names); ``.gz`` may
            stand behind any. A pattern without ``{language}`` names the file in ``language``; the files of other
            languages have ``-LANGUAGE`` before the extension.
        roles: files of a retrieval evaluation: a pattern for each role; ``gold`` may be absent.
        name: the repository or the builder.
        config: its configuration; ``{language}`` stands for the language here and in the names of splits.
        read: ``read(path, language, problems)`` yields the rows of a file; by its extension if None.
        convert: ``convert(row, labels)`` makes an example of a row; None where the row is no part of the data.
        build: ``build(rows, language, problems)`` makes a ``RetrievalSet``; with ``roles`` of files by role.
        by_language: the column that holds a row's language, where a file holds several; or a function that yields
            the languages of a row, each with what the row is in it.
        language: the language of files whose pattern does not name one.
        languages: those that a data set has, where its configuration depends on the language; empty for English.
        codes: its own language codes, where they differ from ours.
        tolerated: rows that can't be used in the released data themselves; they don't count as skipped.
        part: sources of several parts are read one part after the other (ANLI+).
    """

    kind: SourceKind = "files"
    splits: Mapping[str, str]
    paths: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    config: str = ""
    read: Callable[..., Iterable[Any]] | None = None
    convert: Callable[[Any, tuple[str, ...]], Example | None] | None = None
    build: Callable[..., RetrievalSet] | None = None
    by_language: str | Callable[[Any], Iterable[tuple[str, Any]]] = ""
    language: str = "en"
    languages: tuple[str, ...] = ()
    codes: Mapping[str, str] = field(default_factory=dict)
    tolerated: int = 0
    part: str = ""

    def patterns(self, split: str) -> tuple[str, ...]:
        """Returns every path that a split is looked for at, with ``{language}``, or the name of the data set."""
        if self.kind != "files":
            return (f"{self.kind}/{self.name}",)
        return tuple(path for paths in self.role_paths(split).values() for path in paths)

    def role_paths(self, split: str) -> dict[str, tuple[str, ...]]:
        """Returns the path patterns of a split by role, which is "" where a source has none."""
        theirs = self.splits[split].split()
        roles: dict[str, tuple[str, ...]] = {role: (path,) for role, path in self.roles.items()}
        roles = roles or {"": self.paths}
        return {
            role: tuple(path.replace("{split}", name) for path in paths for name in theirs)
            for role, paths in roles.items()
        }

    def names(self, split: str, language: str) -> tuple[str, str]:
        """Returns the configuration and the data set's own name of a split."""
        code = self.codes.get(language, language)
        return self.config.replace("{language}", code), self.splits[split].replace("{language}", code)

    def has(self, language: str) -> bool:
        """Returns whether a data set is published in a language; the rows say it where it holds several."""
        return bool(self.by_language) or language in (self.languages or ("en",))


Splits = str | Mapping[str, str]
_ALL = "train dev test"


def files(paths: str | Mapping[str, str], convert: Any = None, splits: Splits = _ALL, **more: Any) -> Source:
    """Returns release files: paths joined by spaces, or paths by role; splits by name where theirs differ from ours."""
    splits = {split: split for split in splits.split()} if isinstance(splits, str) else splits
    where: dict[str, Any] = {"paths": names(paths)} if isinstance(paths, str) else {"roles": paths}
    return Source(splits=splits, convert=convert, **where, **more)


def hub(data_set: str, convert: Any = None, splits: Splits = _ALL, **more: Any) -> Source:
    """Returns a data set of the hub, ``OWNER/NAME`` with ``/CONFIGURATION`` behind it; its dev is "validation"."""
    owner, name, *config = data_set.split("/", 2)
    return _prepared("hub", f"{owner}/{name}", config[0] if config else "default", convert, splits, more)


def tfds(builder: str, convert: Any = None, splits: Splits = _ALL, **more: Any) -> Source:
    """Returns a TFDS builder, ``NAME`` or ``NAME/CONFIGURATION``; its dev is "validation"."""
    name, _, config = builder.partition("/")
    return _prepared("tfds", name, config, convert, splits, more)


def _prepared(
    kind: SourceKind, name: str, config: str, convert: Any, splits: Splits, more: Mapping[str, Any]
) -> Source:
    if isinstance(splits, str):
        splits = {split: "validation" if split == "dev" else split for split in splits.split()}
    return Source(kind=kind, name=name, config=config, convert=convert, splits=splits, **more)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """How a task is fine-tuned, as far as the task decides it.

    Attributes:
        batch_size: examples of one optimizer step.
        warmup: a share of all steps if below 1, else a number of steps.
        max_query_length: subwords kept of a question (span), or of the first text of a pair (embed).
        stride: subwords by which one window of a long context moves to the next (span).
    """

    learning_rate: float = 1e-5
    batch_size: int = 32
    epochs: float = 2.0
    max_length: int = 256
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_query_length: int = 64
    stride: int = 128


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything that the package knows about a task.

    Attributes:
        name: what the task is called in results, in files of predictions and as a head.
        version: raised when reading or featurizing changes what is trained or scored.
        title: its name in tables and on the report's page; the name itself if empty.
        languages: those that the task is evaluated in.
        split_languages: those of a split that not all languages have (or need).
        aligned: whether an id names the same item in every language, as in a translated test set: then items are
            resampled together.
        labels: label names in the order of their indices (classify, tag).
        labels_file: a JSON object from label to index below the data root, for labels that come with the data (CCG).
        metric: one of ``METRICS_OF`` its kind; the first of them if empty.
        train_on: tasks whose training gives this task's model, in order; empty if it has its own train split
            or needs no training.
        selection: the split that picks the best checkpoint of a run on this task (in its source language); empty
            if there is none: then the last step is kept.
        reported: the split whose scores the tables show.
        hyperparameters: by preset; a preset that is absent falls back to "paper".
        shared_candidates: one pool of candidates for all languages (embed).
        retrieval: how an embed task is scored: nearest neighbour, bitext mining or a ranking.
        sources: where the splits come from; of each kind the first that has a split is read.
        keep: ``keep(example, split)`` is false for examples of the same file that belong to another split.
        counts: examples of the released data by split, for all languages alike or by language.
        source_language: the language that it is trained in ("mnli@de": de).
        pictures: what a model is shown of its pictures: themselves ("seen"), blanks ("blind"), those of other rows
            ("shuffled"), or nothing.
    """

    name: str
    kind: Kind
    group: Group
    version: int = 1
    title: str = ""
    languages: tuple[str, ...] = ("en",)
    split_languages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aligned: bool = False
    labels: tuple[str, ...] = ()
    labels_file: str = ""
    metric: str = ""
    train_on: tuple[str, ...] = ()
    selection: str = "dev"
    reported: str = "test"
    hyperparameters: Mapping[str, Hyperparameters] = field(
        default_factory=lambda: {"paper": Hyperparameters()}
    )
    shared_candidates: bool = False
    retrieval: Retrieval = ""
    sources: tuple[Source, ...] = ()
    keep: Callable[[Example, str], bool] | None = None
    counts: Mapping[str, int | Mapping[str, int]] = field(default_factory=dict)
    source_language: str = "en"
    pictures: Pictures = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            what = f"{self.name!r} can't be the name of a task."
            raise ConfigError(what, where="name", fix="use letters, digits, _ - and .")
        self._check_lists()
        self._one_of("kind", self.kind, KINDS)
        self._one_of("group", self.group, GROUPS)
        if (self.kind == "embed") != bool(self.retrieval):
            self._refuse(
                f"retrieval={self.retrieval!r} does not suit kind {self.kind!r}", "only embed has one"
            )
        self._one_of("retrieval", self.retrieval, get_args(Retrieval))
        self._one_of("pictures", self.pictures, get_args(Pictures))
        if self.pictures and self.kind not in ("classify", "mlm"):
            self._refuse(f"a {self.kind} task has no pictures", "take classify or mlm")
        known = METRICS_OF[self.retrieval or self.kind]
        if not self.metric:
            object.__setattr__(self, "metric", known[0])
        self._one_of("metric", self.metric, known)
        if not all(isinstance(one, Hyperparameters) for one in self.hyperparameters.values()):
            self._refuse("hyperparameters holds something else", "give Hyperparameters(...) by preset")
        for preset in self.hyperparameters:
            self._one_of("the preset", preset, get_args(Preset))
        if "paper" not in self.hyperparameters:
            self._refuse("hyperparameters has no 'paper'", "other presets fall back to it: add it")

    @property
    def is_trained(self) -> bool:
        """Whether scoring takes a trained head; only retrieval from an encoder as it is needs none."""
        own = any("train" in source.splits for source in self.sources)
        return self.retrieval in ("", "ranking") or bool(self.train_on) or own

    @property
    def is_scored_on_selection(self) -> bool:
        """Whether an intermediate phase has a score to report: on its selection split, where there is one."""
        pools = any(source.build and self.selection in source.splits for source in self.sources)
        return bool(self.selection) and self.kind != "mlm" and (self.kind != "embed" or pools)

    def _check_lists(self) -> None:
        for name in ("languages", "labels", "train_on"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
                self._refuse(f"{name}={value!r} is no tuple of texts", f'write {name}=("a", "b")')
            if len(set(value)) < len(value):
                self._refuse(f"{name}={value!r} names something twice", "name each once")
        if not isinstance(self.hyperparameters, Mapping):
            self._refuse("hyperparameters is no mapping", 'write {"paper": Hyperparameters(...)}')

    def _one_of(self, name: str, value: str, known: Sequence[str]) -> None:
        if value not in known:
            self._refuse(f"{name}={value!r} is not possible", nearest(str(value), known))

    def _refuse(self, what: str, fix: str) -> None:
        raise ConfigError(f"{what}.", where=f"the declaration of task {self.name!r}", fix=fix)
