"""What a task is: one frozen record, and the plain examples that it yields.

A task file defines ``TASK = Task(...)``; nothing registers it. ``kind`` decides four things: how examples become
features, which head reads the encoder, which loss trains it, and how predictions are decoded.
"""

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
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
    "classify": ("accuracy", "accuracy_f1", "open_accuracy", "vqa_accuracy"),
    "choice": ("accuracy",),
    "tag": ("chunk_f1", "token_accuracy"),
    "span": ("squad", "squad_v2", "mlqa"),
    "nearest": ("nearest_accuracy",),
    "mining": ("bucc_f1",),
    "ranking": ("mrr", "map"),
    "mlm": ("perplexity",),
}
_GROUP_OF = dict(zip(KINDS, (GROUPS[0], *GROUPS)))  # choice tasks are grouped with classification
# The gold tag of evaluation data that training data lack. No head has an output for it, so it is never predicted.
UNKNOWN_LABEL = "<other>"
_NAME = re.compile(r"\w[\w.-]*(@[\w-]+)?")  # it names folders, and + / : , = join names on the command line
EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ClassifyExample:
    """A sentence or a pair of sentences, perhaps about pictures, with one label (an index into ``Task.labels``)."""

    id: str
    text: str
    pair: str | None = None
    label: int | None = None
    pictures: tuple[str, ...] = ()  # paths below the data root
    answers: tuple[str, ...] = ()  # what ten people said to a question, for ``vqa_accuracy``
    votes: tuple[int, ...] = ()  # labels of answers that have one: min(votes / 3, 1) is a label's target


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
    """What one language of a retrieval task is scored on: texts that look for a partner, and the pool.

    ``candidates`` is the very same object for every language where ``Task.shared_candidates``.
    """

    queries: Sequence[EmbedExample]
    candidates: Sequence[EmbedExample]
    gold: Mapping[str, tuple[str, ...]] | None  # ids of the right candidates by query id; None if blanked
    skipped: tuple[str, ...] = ()  # place and reason of each row that can't be used


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

    In path patterns ``{split}`` and ``{language}`` stand for names, ``*`` and ``**`` for anything (all matches are
    read, in the order of their names); ``.gz`` may stand behind any. A pattern without ``{language}`` names the file in
    ``language``; the files of other languages have ``-LANGUAGE`` before the extension.
    """

    kind: SourceKind = "files"
    splits: Mapping[str, str]  # its names of our splits
    # Path patterns below the data root, tried in order, under ""; of files of a retrieval set by role, of which
    # ``gold`` may be absent. Of a data set only for messages.
    paths: Mapping[str, tuple[str, ...]]
    name: str = ""  # the repository or the builder
    config: str = ""  # its configuration; ``{language}`` stands for the language here and in names of splits
    # (path, language, problems) -> rows; by the extension if None
    read: Callable[..., Iterable[Any]] | None = None
    # (row, labels) -> example; None where the row is no part of the data
    convert: Any = None
    # (rows, language, problems) -> retrieval set; of files by role where ``paths`` has roles
    build: Any = None
    # The column of a row's language, where a file holds several; or what yields (language, what the row is in it).
    by_language: str | Callable[[Any], Iterable[tuple[str, Any]]] = ""
    language: str = "en"  # of files whose pattern does not name one
    languages: tuple[str, ...] = ()  # of a data set that has one configuration a language; empty: English
    codes: Mapping[str, str] = field(default_factory=dict)  # its own language codes by ours
    tolerated: int = 0  # rows of the released data themselves that can't be used; they don't count as skipped
    part: str = ""  # sources of several parts are read one part after the other (ANLI+)

    def patterns(self, split: str) -> dict[str, tuple[str, ...]]:
        """Returns the paths of a split by role, with ``{language}``."""
        theirs = self.splits[split]
        return {
            role: tuple(one.replace("{split}", theirs) for one in paths) for role, paths in self.paths.items()
        }

    def names(self, split: str, language: str) -> tuple[str, str]:
        """Returns the configuration and the data set's own name of a split."""
        code = self.codes.get(language, language)
        return self.config.replace("{language}", code), self.splits[split].replace("{language}", code)

    def has(self, language: str) -> bool:
        """Returns whether a data set is published in a language; the rows say it where it holds several."""
        return bool(self.by_language) or language in (self.languages or ("en",))


_SPLITS = "train dev test"  # "train dev:theirs": what does not say their name of a split has the usual one


def files(paths: str | Mapping[str, str], convert: Any = None, splits: str = _SPLITS, **more: Any) -> Source:
    """Returns release files: paths joined by spaces, or one path by role."""
    by_role = {"": names(paths)} if isinstance(paths, str) else {role: (one,) for role, one in paths.items()}
    return Source(splits=_name_splits(splits, "dev"), paths=by_role, convert=convert, **more)


def hub(data_set: str, convert: Any = None, splits: str = _SPLITS, **more: Any) -> Source:
    """Returns a data set of the hub, ``OWNER/NAME`` with ``/CONFIGURATION`` behind it; its dev is "validation"."""
    owner, name, *config = data_set.split("/", 2)
    return _data_set("hub", f"{owner}/{name}", (*config, "default")[0], convert, splits, **more)


def tfds(builder: str, convert: Any = None, splits: str = _SPLITS, **more: Any) -> Source:
    """Returns a TFDS builder, ``NAME`` or ``NAME/CONFIGURATION``; its dev is "validation"."""
    name, _, config = builder.partition("/")
    return _data_set("tfds", name, config, convert, splits, **more)


def _data_set(kind: SourceKind, name: str, config: str, convert: Any, splits: str, **more: Any) -> Source:
    theirs, paths = _name_splits(splits, "validation"), {"": (f"{kind}/{name}",)}
    return Source(kind=kind, name=name, config=config, splits=theirs, paths=paths, convert=convert, **more)


def _name_splits(splits: str, dev: str) -> dict[str, str]:
    parts = (item.partition(":") for item in splits.split())
    return {ours: theirs or (dev if ours == "dev" else ours) for ours, _, theirs in parts}


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """How a task is fine-tuned, as far as the task decides it."""

    learning_rate: float = 1e-5
    batch_size: int = 32  # examples of one optimizer step
    epochs: float = 2.0
    max_length: int = 256
    warmup: float = 0.1  # a share of all steps if below 1, else a number of steps
    weight_decay: float = 0.01
    max_query_length: int = 64  # subwords kept of a question (span), or of the first text of a pair (embed)
    stride: int = 128  # subwords by which one window of a long context moves to the next (span)
    # A label is drawn as often as its rows to this power (classify); 1: as they come.
    label_alpha: float = 1.0


# What XTREME's own scripts have in common.
XTREME = partial(Hyperparameters, max_length=128, warmup=0, weight_decay=0)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything that the package knows about a task."""

    name: str  # what it is called in results, in files of predictions and as a head
    kind: Kind
    group: Group = ""  # type: ignore[assignment]  # that of the kind if empty
    version: int = 1  # raised when reading or featurizing changes what is trained or scored
    title: str = ""  # its name in tables and on the report's page; the name itself if empty
    languages: tuple[str, ...] = ("en",)  # those that it is evaluated in
    # Of a split that not all languages have (or need).
    split_languages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Whether an id names the same item in every language, as in a translated test set: items are resampled together.
    aligned: bool = False
    labels: tuple[str, ...] = ()  # label names in the order of their indices (classify, tag)
    labels_file: str = ""  # below the data root, a JSON object from label to index, in place of ``labels``
    metric: str = ""  # one of ``METRICS_OF`` its kind; the first of them if empty
    # Tasks whose training gives this task's model, in order; empty if it trains itself, or needs no training.
    train_on: tuple[str, ...] = ()
    # The split that picks the best checkpoint of a run (in the source language); empty: the last step is kept.
    selection: str = "dev"
    reported: str = ""  # the split that the tables show; if empty, test, or of intermediate tasks dev
    # By preset; a preset that is absent falls back to "paper".
    hyperparameters: Mapping[str, Hyperparameters] = field(
        default_factory=lambda: {"paper": Hyperparameters()}
    )
    shared_candidates: bool = False  # one pool of candidates for all languages (embed)
    retrieval: Retrieval = ""  # how an embed task is scored: nearest neighbour, bitext mining or a ranking
    sources: tuple[Source, ...] = ()  # of each kind the first that has a split is read
    # (example, split) -> whether it belongs to the split, where one file holds several
    keep: Callable[[Example, str], bool] | None = None
    # Examples of the released data by split, for all languages alike or by language.
    counts: Mapping[str, int | Mapping[str, int]] = field(default_factory=dict)
    source_language: str = "en"  # the language that it is trained in ("mnli@de": de)
    pictures: Pictures = ""  # shown: themselves ("seen"), blanks ("blind"), those of other rows ("shuffled")

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            what = f"{self.name!r} can't be the name of a task."
            raise ConfigError(what, where="name", fix="use letters, digits, _ - and .")
        refuse = partial(ConfigError, where=f"the declaration of task {self.name!r}")
        for name in ("languages", "labels", "train_on"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
                raise refuse(f"{name}={value!r} is no tuple of texts.", fix=f'write {name}=("a", "b")')
            if len(set(value)) < len(value):
                raise refuse(f"{name}={value!r} names something twice.", fix="name each once")
            object.__setattr__(self, name, tuple(value))
        metrics = METRICS_OF.get(self.retrieval or self.kind, ())
        group = self.group or _GROUP_OF.get(self.kind, "")
        reported = self.reported or ("dev" if group == "intermediate" else "test")
        metric = self.metric or next(iter(metrics), "")
        for name, value in (("group", group), ("reported", reported), ("metric", metric)):
            object.__setattr__(self, name, value)
        given = self.hyperparameters
        presets = given if isinstance(given, Mapping) else {}
        if "paper" not in presets or not all(isinstance(one, Hyperparameters) for one in presets.values()):
            fix = "write {'paper': Hyperparameters(...)}, to which other presets fall back"
            raise refuse(f"hyperparameters={given!r} does not say it.", fix=fix)
        if (self.kind == "embed") != bool(self.retrieval):
            what = f"retrieval={self.retrieval!r} does not suit kind {self.kind!r}."
            raise refuse(what, fix="only embed has one")
        if self.pictures and self.kind not in ("classify", "mlm"):
            raise refuse(f"a {self.kind} task has no pictures.", fix="take classify or mlm")
        possible = {"kind": KINDS, "group": GROUPS, "retrieval": get_args(Retrieval), "metric": metrics}
        possible |= {"pictures": get_args(Pictures)}
        chosen = [(name, getattr(self, name), known) for name, known in possible.items()]
        for name, value, known in (*chosen, *(("a preset", one, get_args(Preset)) for one in presets)):
            if value not in known:
                raise refuse(f"{name}={value!r} is not possible.", fix=nearest(str(value), known))

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


def describe(value: Any, above: tuple[Callable, ...] = ()) -> Any:
    """Returns what a record declares as values for JSON, the same in every process.

    A function is its name with what it was made with (the cells of a closure: columns, labels). A function from
    outside this package is also its source code, and what of its module it uses (of libraries, only the names); one of
    the package changes together with the ``version`` of the tasks that use it. ``above``: functions that are being
    described, for those that call themselves.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: describe(getattr(value, one.name), above) for one in fields(value)}
    if isinstance(value, Mapping):
        return [[describe(key, above), describe(one, above)] for key, one in value.items()]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [describe(one, above) for one in value]
    if isinstance(value, partial):
        return describe([value.func, value.args, value.keywords], above)
    if isinstance(value, logging.Logger):  # it leads to all others
        return value.name
    if isinstance(value, type) or inspect.isbuiltin(value) or inspect.ismodule(value):
        return value.__name__
    if inspect.ismethod(value):
        return describe([value.__func__, value.__self__], above)
    if any(value is one for one in above):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if not inspect.isfunction(value):
        return _describe_object(value, (*above, value))
    used = inspect.getclosurevars(value)
    parts: list[Any] = [value.__qualname__, used.nonlocals, value.__defaults__]
    if not value.__module__.startswith("stilts_jax."):
        try:
            code = inspect.getsource(value)
        except (OSError, TypeError):  # typed into an interpreter: no file holds it
            code = value.__code__.co_code.hex()
        foreign = {
            name: one.__qualname__
            for name, one in used.globals.items()
            if inspect.isfunction(one) and one.__module__ != value.__module__
        }
        there = value.__globals__
        inner = {name: there[name] for name in sorted(_names_within(value.__code__) & there.keys())}
        parts += [
            code,
            {**used.globals, **{k: inner[k] for k in inner.keys() - used.globals.keys()}, **foreign},
        ]
    return describe(parts, (*above, value))


def _describe_object(value: Any, above: tuple) -> list[Any]:
    """Its type and state; of a user's own object that is called, the code too."""
    kind, state = type(value), describe(getattr(value, "__dict__", None), above)
    if isinstance(value, re.Pattern):
        state = [value.pattern, value.flags]
    elif state is None and kind.__repr__ is not object.__repr__:
        state = value.tolist() if hasattr(value, "tolist") else repr(value)  # an array; a path, bytes, a date
    if callable(value) and not kind.__module__.startswith("stilts_jax."):
        with suppress(OSError, TypeError):  # no file holds it
            return [kind.__qualname__, state, inspect.getsource(kind)]
    return [kind.__qualname__, state]


def _names_within(code: Any) -> set[str]:
    """The names that the functions within a function use; those of its own code are known otherwise."""
    inner = [one for one in code.co_consts if inspect.iscode(one)]
    return {name for one in inner for name in (*one.co_names, *_names_within(one))}
