"""What a task is: one frozen record, and the plain examples that it yields.

Its ``kind`` decides how examples become features, which head and which loss it has, and how it is decoded.
"""

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

from stilts_jax.checked import Checked
from stilts_jax.errors import ConfigError, nearest
from stilts_jax.settings import EPOCHS, HEAD_RATE, LENGTH, POSITIVE, ROWS, SHARE, WARMUP, Preset, SourceKind

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
    """A question about a context."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()  # texts and where they begin; none if ``impossible`` or blanked
    impossible: bool = False  # the question has no answer (SQuAD 2.0)


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
    """What one language of a retrieval task is scored on: texts that look for a partner, and the pool."""

    queries: Sequence[EmbedExample]
    candidates: Sequence[EmbedExample]  # the very same object for every language if shared
    gold: Mapping[str, tuple[str, ...]] | None  # ids of the right candidates by query id; None if blanked
    skipped: tuple[str, ...] = ()  # place and reason of each row that can't be used


def names(text: str) -> tuple[str, ...]:
    """Returns the words of a text."""
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
    read: Callable[..., Iterable[Any]] | None = None  # (path, language, problems) -> rows; None: by extension
    convert: Any = None  # (row, labels) -> example; None where the row is no part of the data
    build: Any = None  # (rows, or files by role where paths have roles; language, problems) -> retrieval set
    # The column of a row's language, where a file holds several; or what yields (language, what the row is in it).
    by_language: str | Callable[[Any], Iterable[tuple[str, Any]]] = ""
    language: str = "en"  # of what does not name one
    languages: tuple[str, ...] = ()  # of a data set that has one configuration a language; empty: English
    codes: Mapping[str, str] = field(default_factory=dict)  # its own language codes by ours
    tolerated: int = 0  # rows that can't be used in the released data themselves; so many more may be skipped
    part: str = ""  # sources of several parts are read one part after the other (ANLI+)

    def patterns(self, split: str) -> dict[str, tuple[str, ...]]:
        """Returns the paths of a split by role, with ``{language}``."""
        theirs, by_role = self.splits[split], self.paths.items()
        return {role: tuple(one.replace("{split}", theirs) for one in paths) for role, paths in by_role}

    def names(self, split: str, language: str) -> tuple[str, str]:
        """Returns the configuration and the data set's own name of a split."""
        code = self.codes.get(language, language)
        return self.config.replace("{language}", code), self.splits[split].replace("{language}", code)

    def has(self, language: str) -> bool:
        """Returns whether a data set is published in a language; the rows say it where it holds several."""
        return bool(self.by_language) or language in (self.languages or ("en",))


SPLITS = "train dev test"  # "train dev:theirs": what does not say their name of a split has the usual one


def files(paths: str | Mapping[str, str], convert: Any = None, splits: str = SPLITS, **more: Any) -> Source:
    """Returns release files: paths joined by spaces, or one path by role."""
    by_role = {"": names(paths)} if isinstance(paths, str) else {role: (one,) for role, one in paths.items()}
    return _make_source("files", by_role, "dev", splits, convert=convert, **more)


def hub(data_set: str, convert: Any = None, splits: str = SPLITS, **more: Any) -> Source:
    """Returns a data set of the hub, ``OWNER/NAME`` with ``/CONFIGURATION`` behind it; its dev is "validation"."""
    owner, name, config, *_ = (*data_set.split("/", 2), "default")
    more |= {"name": f"{owner}/{name}", "config": config, "convert": convert}
    return _make_source("hub", {"": (f"hub/{owner}/{name}",)}, "validation", splits, **more)


def tfds(builder: str, convert: Any = None, splits: str = SPLITS, **more: Any) -> Source:
    """Returns a TFDS builder, ``NAME`` or ``NAME/CONFIGURATION``; its dev is "validation"."""
    name, _, config = builder.partition("/")
    more |= {"name": name, "config": config, "convert": convert}
    return _make_source("tfds", {"": (f"tfds/{name}",)}, "validation", splits, **more)


def _make_source(kind: SourceKind, paths: Mapping[str, Any], dev: str, splits: str, **more: Any) -> Source:
    parts = (item.partition(":") for item in splits.split())
    theirs = {ours: name or (dev if ours == "dev" else ours) for ours, _, name in parts}
    return Source(kind=kind, splits=theirs, paths=paths, **more)


@dataclass(frozen=True, slots=True)
class Hyperparameters(Checked):
    """How a task is fine-tuned, as far as the task decides it."""

    group: ClassVar[str] = "hyperparameters."
    learning_rate: Annotated[float, SHARE] = 1e-5
    batch_size: Annotated[int, ROWS] = 32  # examples of one optimizer step
    epochs: Annotated[float, EPOCHS] = 2.0
    max_length: Annotated[int, LENGTH] = 256
    warmup: Annotated[float, WARMUP] = 0.1  # a share of all steps if below 1, else a number of steps
    weight_decay: Annotated[float, SHARE] = 0.01
    # Subwords kept of a question (span), or of the first text of a pair (embed).
    max_query_length: Annotated[int, POSITIVE] = 64
    stride: Annotated[int, POSITIVE] = 128  # subwords from one window of a context to the next (span)
    # To this power of its rows a label is drawn (classify).
    label_alpha: Annotated[float, SHARE] = 1.0
    # Learning rate of the head, whose parameters are new, over that of the encoder.
    head_rate: Annotated[float, HEAD_RATE] = 1.0


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
    split_languages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of a split, if fewer
    aligned: bool = False  # whether an id is the same item in all languages: these are resampled together
    labels: tuple[str, ...] = ()  # label names in the order of their indices (classify, tag)
    labels_file: str = ""  # below the data root, a JSON object from label to index, in place of ``labels``
    metric: str = ""  # one of ``METRICS_OF`` its kind; the first of them if empty
    train_on: tuple[str, ...] = ()  # tasks whose training gives its model, in order; empty: its own, if any
    selection: str = "dev"  # picks the best checkpoint (in the source language); empty: the last is kept
    reported: str = ""  # the split that the tables show; if empty, test, or of intermediate tasks dev
    hyperparameters: Mapping[str, Hyperparameters] = field(  # a preset that is absent falls back to "paper"
        default_factory=lambda: {"paper": Hyperparameters()}
    )
    shared_candidates: bool = False  # one pool of candidates for all languages (embed)
    retrieval: Retrieval = ""  # how an embed task is scored: nearest neighbour, bitext mining or a ranking
    sources: tuple[Source, ...] = ()  # of each kind the first that has a split is read
    keep: Callable[[Any, str], bool] | None = None  # (example, split) -> whether it belongs there
    counts: Mapping[str, int | Mapping[str, int]] = field(default_factory=dict)  # of the released examples
    source_language: str = "en"  # the language that it is trained in ("mnli@de": de)
    pictures: Pictures = ""  # shown: themselves ("seen"), blanks ("blind"), those of other rows ("shuffled")
    reference: str = field(default="", compare=False)  # what ``get_task`` found it by; commands take it

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            what = f"{self.name!r} can't be the name of a task."
            raise ConfigError(what, where="name", fix="use letters, digits, _ - and .")
        refuse = partial(ConfigError, where=f"the declaration of task {self.name!r}, of kind {self.kind!r}")
        for name in ("languages", "labels", "train_on"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
                raise refuse(f"{name}={value!r} is no tuple of texts.", fix=f'write {name}=("a", "b")')
            if len(set(value)) < len(value):
                raise refuse(f"{name}={value!r} names something twice.", fix="name each once")
            object.__setattr__(self, name, tuple(value))
        if self.kind in ("classify", "tag") and not (self.labels or self.labels_file):
            raise refuse("There are no labels.", fix='write labels=("a", "b") or labels_file="labels.json"')
        presets = self.hyperparameters if isinstance(self.hyperparameters, Mapping) else {}
        named = "paper" in presets and presets.keys() <= {*get_args(Preset)}
        if not named or not all(isinstance(one, Hyperparameters) for one in presets.values()):
            fix = "write {'paper': Hyperparameters(...)}, and perhaps 'xtreme' beside it"
            raise refuse(f"hyperparameters={self.hyperparameters!r} does not say it.", fix=fix)
        metrics = METRICS_OF.get(self.retrieval or self.kind, ())
        group = self.group or _GROUP_OF.get(self.kind, "")
        reported = self.reported or ("dev" if group == "intermediate" else "test")
        metric = self.metric or next(iter(metrics), "")
        possible = {
            "kind": (self.kind, KINDS),
            "retrieval": (self.retrieval, get_args(Retrieval)[1:] if self.kind == "embed" else ("",)),
            "pictures": (self.pictures, get_args(Pictures) if self.kind in ("classify", "mlm") else ("",)),
            "metric": (metric, metrics),
            "group": (group, GROUPS),
        }
        for name, (value, known) in possible.items():
            if value not in known:
                raise refuse(f"{name}={value!r} is not possible.", fix=nearest(str(value), known))
        for name, value in (("group", group), ("reported", reported), ("metric", metric)):
            object.__setattr__(self, name, value)

    @property
    def dev_language(self) -> str:
        """The language of a dev set that was not translated together with the training data ("mnli@de": en)."""
        return next((source.language for source in self.sources), "en")

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

    A function is its name with what it was made with (cells of a closure, defaults: columns, labels). A function from
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
    code, there = value.__code__, value.__globals__
    made = {name: cell.cell_contents for name, cell in zip(code.co_freevars, value.__closure__ or ())}
    parts: list[Any] = [value.__qualname__, made | (value.__kwdefaults__ or {}), value.__defaults__]
    if not value.__module__.startswith("stilts_jax."):
        try:
            parts.append(inspect.getsource(value))
        except (OSError, TypeError):  # typed into an interpreter: no file holds it
            parts.append(code.co_code.hex())
        used = {}
        for name in filter(there.__contains__, (*code.co_names, *_names_within(code))):
            one = there[name]
            foreign = inspect.isfunction(one) and one.__module__ != value.__module__
            used[name] = one.__qualname__ if foreign else one
        parts.append(used)
    return describe(parts, (*above, value))


def _describe_object(value: Any, above: tuple) -> list[Any]:
    """Its type and state; of a user's own object that is called, the code too."""
    kind, state = type(value), describe(getattr(value, "__dict__", None), above)
    if isinstance(value, re.Pattern):
        state = [value.pattern, value.flags]
    elif state is None and kind.__repr__ is not object.__repr__:
        state = value.tolist() if hasattr(value, "tolist") else repr(value)  # an array; a path, bytes, a date
    described = [kind.__qualname__, state]
    if callable(value) and not kind.__module__.startswith("stilts_jax."):
        with suppress(OSError, TypeError):  # no file holds it
            described.append(inspect.getsource(kind))
    return described


def _names_within(code: Any) -> list[str]:
    """The names that the functions within a function use; those of its own code are known otherwise."""
    inner = [one for one in code.co_consts if inspect.iscode(one)]
    return sorted({name for one in inner for name in (*one.co_names, *_names_within(one))})
