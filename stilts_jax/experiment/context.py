"""What all phases of one experiment share: settings, tokenizers, mesh, folders; what each phase reads; its keys.

A training key holds what defines training, so that a changed setting never meets an old checkpoint. What only defines
how a finished model is scored (test files, reporting languages) is in the evaluation key: a test language more retrains
nothing. How a run is computed (mesh, accumulation, rematerialisation, logging) is in neither: it changes rounding only.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax

from stilts_jax.batches.plan import MLM
from stilts_jax.checked import split_names
from stilts_jax.distributed import initialize
from stilts_jax.errors import ConfigError, DataError
from stilts_jax.evaluation import metrics
from stilts_jax.evaluation.metrics import TUNED_METRICS
from stilts_jax.experiment.models import encoder_fingerprint, tokenizer_folder
from stilts_jax.experiment.phases import Phase, hyperparameters_of, name_tasks
from stilts_jax.features.build import FEATURE_VERSION, FeatureSettings, build_features, load_or_build
from stilts_jax.features.pictures import Sight, add_pictures
from stilts_jax.features.records import Features, keep_examples
from stilts_jax.files import cache_root, hash_record, local_folder, local_path
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import TASK_OPTIONS, Compute, MixtureSettings, Settings
from stilts_jax.sharding import Mesh, make_mesh
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.inventory import wanted_languages
from stilts_jax.tasks.sources.read import (
    DataSource,
    available_languages,
    fingerprint,
    read_counted,
    selection_language,
    with_labels,
)
from stilts_jax.tasks.spec import Hyperparameters, Task
from stilts_jax.tokenization import Tokenizer, load_tokenizer

FORMAT = 3  # of the keys; raised when what their records mean changes
_OF_SELECTION = ("eval_every", "eval_examples", "patience")
_NOT_IN_KEY = {
    # These change how a run is computed or watched, not what it computes.
    *("accumulation", "buckets", "checkpoint_every", "keep_latest", "log_every", "tensorboard"),
    # These are in the phase's own hyperparameters, after presets and overrides have met.
    *(*TASK_OPTIONS, "by_task"),
}


def open_source(settings: Settings, data_root: Path) -> DataSource:
    """Returns where the settings say that tasks are read from, by their names in results."""
    data = settings.data
    kinds = name_tasks(data.kinds, "data.sources")
    return DataSource(data_root, data.source, kinds, data.skip_budget, data.pictures)


def start_runtime(compute: Compute) -> None:
    """Joins the other hosts, if there are any, and applies the settings that JAX keeps globally."""
    initialize()
    if compute.matmul_precision:
        jax.config.update("jax_default_matmul_precision", compute.matmul_precision)
    if compute.check_nans:
        jax.config.update("jax_debug_nans", True)
    keep_programs()


def keep_programs() -> None:
    """Keeps compiled programs on disk, for the next command."""
    if not jax.config.values["jax_compilation_cache_dir"]:  # JAX_COMPILATION_CACHE_DIR names another one
        if jax.distributed.is_initialized() and jax.process_count() > 1 and jax.default_backend() == "gpu":
            # Only process 0 would find its programs again, and the others, which share the work of tuning them, wait
            # for its part of that for a day.
            return
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "compiled"))
    # Small programs are kept too: there are dozens in each process, and reading one takes a third of compiling it.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@dataclass(frozen=True)
class Part:
    """A split of a task in some languages, the first ``limit`` examples of each (0: all), as rows of some lengths."""

    task: Task
    split: str
    languages: tuple[str, ...]
    hyperparameters: Hyperparameters
    limit: int = 0
    absent: tuple[str, ...] = ()  # languages that were wanted too, and have no data

    @property
    def feature_settings(self) -> FeatureSettings:
        """How the task's texts become rows."""
        chosen = self.hyperparameters
        return FeatureSettings(chosen.max_length, chosen.max_query_length, chosen.stride)


@dataclass(frozen=True)
class PhaseData:
    """What a phase reads."""

    train: tuple[Part, ...] = ()
    # By trained task, the dev sets that pick its best step: in its source language, or the targets' own.
    selection: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    # By scored task, the split that is reported, and before it the one that a threshold is tuned on.
    scored: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    source_dev: Part | None = None  # of what a target's phase was trained on, in the language of its training


@dataclass
class Context:
    """An experiment as it runs."""

    settings: Settings
    source: DataSource
    workdir: Path  # in an object store features and locks are in this machine's cache instead
    command: str = ""  # the command line, for the record
    progress: Progress = SILENT
    is_main: bool = True  # whether this process writes results
    trace: Path | None = None  # folder for a profile of some training steps
    _found: dict[Any, Any] = field(default_factory=dict, init=False)

    def once(self, what: Hashable, find: Callable[[], Any]) -> Any:
        """Returns what ``find`` returned when ``what`` was first asked for."""
        if what not in self._found:
            self._found[what] = find()
        return self._found[what]

    @cached_property
    def mesh(self) -> Mesh:
        """All devices, arranged as the settings say."""
        return make_mesh(self.settings.mesh)

    def tokenizer(self, encoder: str) -> Tokenizer:
        """The tokenizer that came with an encoder."""
        return self.once(("tokenizer", encoder), lambda: load_tokenizer(tokenizer_folder(encoder)))

    def task(self, reference: str) -> Task:
        """A task, with the labels that its data bring."""
        return with_labels(get_task(reference), self.source)

    def data(self, phase: Phase) -> PhaseData:
        """What ``phase`` reads: chosen when it is first asked for, and the same from then on."""
        return self.once(("data", phase.name), lambda: _choose_data(phase, self))

    def hash_data(self, part: Part) -> str:
        """One hash of all that is read of a part."""
        return hash_record(list(self._fingerprints(part).values()))

    def _fingerprints(self, part: Part, prefix: str = "") -> dict[str, str]:
        found = (fingerprint(part.task, part.split, one, self.source) for one in part.languages)
        return dict(zip([prefix + one for one in part.languages], found))

    def training_record(self, phase: Phase) -> dict[str, Any]:
        """What the training of ``phase`` depends on."""
        settings, data, parent = self.settings, self.data(phase), phase.parent
        if not phase.train:  # it reads no option of training
            limitless, usual = replace(settings.data, limit=0), Settings()
            settings = replace(settings, train=usual.train, model=usual.model, data=limitless)
        if not any(data.selection.values()):  # trained to the last step
            unread = {name: getattr(Settings().train, name) for name in _OF_SELECTION}
            settings = replace(settings, train=replace(settings.train, **unread))
        trained, tasks, head_rates = [part.task for part in data.train], {}, list[float]()
        for part, task in zip(data.train, trained):
            read, selection = self._fingerprints(part, "train/"), dict[str, str]()
            for dev in data.selection[task.name]:
                selection |= self._fingerprints(dev, f"{dev.task.name}/{dev.task.metric}/")
            chosen = asdict(hyperparameters_of(task, settings, phase))
            head_rates.append(chosen.pop("head_rate"))
            tasks[task.name] = {
                "version": task.version,
                "hyperparameters": chosen,
                "data": read,
                "selection": selection,
            }
        # Several tasks, or masks and languages of MLM.
        mixed = len(trained) > 1 or any(task.kind == "mlm" for task in trained)
        seen, compute = any(task.pictures for task in trained), asdict(settings.compute)
        sight = [settings.data.pictures, settings.data.picture_size, settings.data.picture_patch]
        return {
            **({"pictures": sight} if seen else {}),
            **settings.model.dropout,
            "format": FORMAT,
            "features": FEATURE_VERSION,
            "start": self.key(parent) if parent else encoder_fingerprint(phase.encoder, settings),
            "carry_head": phase.carry_head,
            "tasks": tasks,
            "seed": phase.seed,
            "train": {
                **{name: value for name, value in asdict(settings.train).items() if name not in _NOT_IN_KEY},
                # It says whether a run may go on, not what it computes. It was here, so that keys stay the same.
                "skip_non_finite": 0,
                # The first task's is the run's. It stands here, where it was before tasks had it: keys stay the same.
                "head_rate": [*head_rates, settings.train.head_rate or 1.0][0],
            },
            "mixture": _mixture_record(settings.mixture, trained) if mixed else {},
            # The first one's rate and warm-up are the run's, and rows are drawn by place.
            **({"order": [task.name for task in trained]} if len(trained) > 1 else {}),
            "head": {"form": settings.model.head_form, "init": settings.model.head_init},
            "precision": {name: compute[name] for name in ("dtype", "param_dtype", "matmul_precision")},
            "limit": settings.data.limit,
            "select_on": settings.experiment.select_on if phase.stage == "target" else "en",
            "debug": settings.debug,
            # Since then such rows are sorted over fewer batches.
            **({"draw": 2} if any(map(_draws_by_label, trained, tasks.values())) else {}),
        }

    def key(self, phase: Phase) -> str:
        """The hash that names what ``phase`` trains."""
        return self.once(("key", phase.name), lambda: hash_record(self.training_record(phase)))

    def evaluation_record(self, phase: Phase) -> dict[str, Any]:
        """What the scores of a trained ``phase`` depend on."""
        model, evaluation, tasks = self.settings.model, self.settings.evaluation, {}
        for name, parts in self.data(phase).scored.items():
            task, data = parts[-1].task, dict[str, str]()
            for part in parts:
                again = part is not parts[-1] and part.split == parts[-1].split
                data |= self._fingerprints(part, "threshold/" if again else f"{part.split}/")
            metric = [task.metric, metrics.VERSIONS.get(task.metric, 1)]
            tasks[name] = {"version": task.version, "metric": metric, "data": data}
        retrieval = {"layer": model.retrieval_layer, "sweep": model.sweep_layers}
        retrieval |= {"neighbours": evaluation.mining_neighbours, "max_length": evaluation.max_length}
        about = {"format": FORMAT, "features": FEATURE_VERSION, "limit": evaluation.limit}
        return {**about, "tasks": tasks, "retrieval": retrieval}

    def evaluation_key(self, phase: Phase) -> str:
        """The hash that names what ``phase`` is scored on, and how."""
        return hash_record(self.evaluation_record(phase))

    def folder(self, phase: Phase) -> Path:
        """Where everything of ``phase`` is kept."""
        readable = phase.name.replace("/", "_").replace(":", "_")
        return self.workdir / "phases" / f"{readable}-{self.key(phase)[:8]}"

    def features(self, part: Part, tokenizer: Tokenizer) -> Features:
        """Returns tokenized rows from the cache, or makes them; what is scored stays open, as every phase asks for it.

        They carry their examples, unless they are trained on: a cache hit reads no file of the data.
        """
        task, data, training = part.task, self.settings.data, part.split == "train"
        # They are mapped into memory, which needs a file system.
        cache = local_path(data.cache) if data.cache else local_folder(self.workdir) / "features"
        pictures = data.pictures, data.picture_size, data.picture_patch
        sight = Sight(self.source.root, cache, *pictures, self.progress)
        parts = {
            "feature_version": FEATURE_VERSION,
            "task": task.name,
            "kind": task.kind,
            "split": part.split,
            "data": self._fingerprints(part),
            "skip_budget": self.source.skip_budget,
            "tokenizer": tokenizer.fingerprint,
            "settings": vars(part.feature_settings),
            "training": training,
            "limit": part.limit,
            **({"pictures": [task.pictures, *sight.settings]} if task.pictures else {}),
        }
        key = hash_record(parts)

        def build() -> Features:
            read = {one: read_counted(task, part.split, one, self.source) for one in part.languages}
            rows = {one: take_first(task, reading.examples, part.limit) for one, reading in read.items()}
            options: dict[str, Any] = {"training": training, "progress": self.progress}
            features = build_features(task.kind, rows, tokenizer, part.feature_settings, **options)
            if task.pictures:
                features = add_pictures(features, rows, task.pictures, sight)
            skipped = {one: reading.skipped for one, reading in read.items() if reading.skipped}
            return features if training else keep_examples(features, rows, skipped)

        load = partial(load_or_build, cache, parts, build, self.progress)
        return load() if training else self.once(("features", key), load)


def _draws_by_label(task: Task, record: Mapping[str, Any]) -> bool:
    return not task.pictures and record["hyperparameters"]["label_alpha"] != 1.0


def _mixture_record(mixture: MixtureSettings, tasks: Sequence[Task]) -> dict[str, Any]:
    """Returns what a phase's tasks read of the mixture; what they do not read is as by default."""
    found, usual = asdict(mixture), MixtureSettings()
    if weights := name_tasks(mixture.pairs, "mixture.weights"):
        found["weights"] = {task.name: float(weights[task.name]) for task in tasks if task.name in weights}
    if all(task.kind != "mlm" for task in tasks):
        found |= {name: getattr(usual, name) for name in found if name.startswith("mlm_")}
    if len(tasks) == 1:  # texts alone
        read = ("mlm_alpha", "mlm_rate", "mlm_languages")
        found |= {name: getattr(usual, name) for name in found if name not in read}
    if len(tasks) == 2 and MLM in [task.name for task in tasks]:  # nothing to hold the other one down against
        del found["cap"]
        found |= {"temperature": usual.temperature, "sampler": "weights" if weights else usual.sampler}
    # What was added later is here where it is set.
    return {name: value for name, value in found.items() if value is not None}


def _choose_data(phase: Phase, context: Context) -> PhaseData:
    """Returns what a phase reads; raises where that can't be told."""
    settings, mixture, train, selection = context.settings, context.settings.mixture, [], {}
    for task in map(context.task, phase.train):
        languages: tuple[str, ...] = (task.source_language,)
        chosen, own = hyperparameters_of(task, settings, phase), dict[str, Any]()
        selection[task.name] = _choose_selection(phase, task, context)
        if task.name == MLM:
            languages = _choose_texts(task, context)
            own = {"batch_size": mixture.mlm_batch_size, "max_length": mixture.mlm_max_length}
        elif mixture.epochs:
            own = {"epochs": mixture.epochs}
        chosen = replace(chosen, **own) if len(phase.train) > 1 else chosen
        train.append(Part(task, "train", languages, chosen, settings.data.limit))
    scored = [choose_scored(name, context, phase) for name in phase.evaluate]
    own_dev = tuple[Part, ...]()
    if phase.stage == "target" and phase.evaluate:
        own_dev = _choose_dev(train[-1].task, train[-1].hyperparameters, settings.evaluation.limit, context)
        # Where the targets' own dev sets select, it is one more number, and may be absent.
        there = (available_languages(one.task, one.split, context.source, beyond=True) for one in own_dev)
        own_dev = tuple(one for one, found in zip(own_dev, there) if {*one.languages} <= {*found})
    by_name = {parts[-1].task.name: parts for parts in scored}
    return PhaseData(tuple(train), selection, by_name, *own_dev)


def _choose_texts(task: Task, context: Context) -> tuple[str, ...]:
    """Returns the languages of masked language modelling."""
    found = available_languages(task, "train", context.source, beyond=True)
    asked = split_names(context.settings.mixture.mlm_languages) or found
    languages = tuple(one for one in found if one in asked)  # in one order: features in the cache know none
    missing = ", ".join(one for one in asked if one not in found)
    if missing or not languages:
        what, where = f"There is no text in {missing or 'any language'}.", f"task mlm, {context.source.root}"
        raise DataError(what, where=where, fix="put text/LANGUAGE.txt there, or set mixture.mlm_languages")
    return languages


def choose_scored(reference: str, context: Context, phase: Phase | None = None) -> tuple[Part, ...]:
    """Returns what a task is scored on, the reported split last, in the languages that were asked for and are there.

    An intermediate reports its own dev set, and its source language in any case. Thresholds are tuned on the source
    language's dev set, those of mining on each language's; SQuAD 2.0 reports dev, whose script tunes it there.
    """
    settings, source, task = context.settings, context.source, context.task(reference)
    chosen, limit = hyperparameters_of(task, settings, phase), settings.evaluation.limit
    intermediate = phase is not None and phase.stage == "intermediate"
    reported = task.selection if intermediate else task.reported
    tuned = task.metric in TUNED_METRICS and task.selection != reported
    parts = []
    for split in (task.selection, reported) if tuned else (reported,):
        asked, absent = split_names(settings.experiment.languages), tuple[str, ...]()
        wanted = asked
        if intermediate and asked:
            wanted = (selection_language(task, source), *asked)
        elif split != reported and task.retrieval != "mining":  # a language that the benchmark may not have
            wanted = (task.source_language,)
        found = available_languages(task, split, source, beyond=bool(wanted))
        languages = tuple(language for language in dict.fromkeys(wanted or found) if language in found)
        if split == reported and not intermediate:
            absent = tuple(one for one in asked or wanted_languages(task, split) if one not in languages)
        parts.append(Part(task, split, languages, chosen, limit, absent))
    home = selection_language(task, source)
    if task.metric == "squad_v2" and not tuned and set(languages) - {home}:  # no other language tunes its own
        there = available_languages(task, reported, source, beyond=True)
        parts.insert(0, replace(parts[0], languages=tuple({home}.intersection(there)), absent=()))
    return tuple(parts)


def _choose_dev(task: Task, chosen: Hyperparameters, limit: int, context: Context) -> tuple[Part, ...]:
    """Returns a trained task's dev set in the language of its training, if it has one that says how good it is."""
    # The loss of masked language modelling is no measure of the task beside it; dual encoders are trained to the end.
    if task.kind in ("mlm", "embed") or not task.selection:
        return ()
    return (Part(task, task.selection, (selection_language(task, context.source),), chosen, limit),)


def _choose_selection(phase: Phase, task: Task, context: Context) -> tuple[Part, ...]:
    """Returns the dev sets that pick the best step of ``task``."""
    settings = context.settings
    chosen, limit = hyperparameters_of(task, settings, phase), settings.train.eval_examples
    own = _choose_dev(task, chosen, limit, context)
    if not own or settings.experiment.select_on == "en" or phase.stage != "target" or not phase.evaluate:
        return own
    parts = []
    for one in map(context.task, phase.evaluate):
        there = available_languages(one, one.selection, context.source)
        parts.append(Part(one, one.selection, there, chosen, limit))
    if bare := ", ".join(part.task.name for part in parts if not part.languages):
        what, fix = f"{bare} has no dev set in any language to select on.", "set it to en for this target"
        raise ConfigError(what, where="config.experiment.select_on", fix=fix)
    return tuple(parts)


def take_first(task: Task, examples: Sequence[Any], limit: int) -> Sequence[Any]:
    """Returns the first ``limit`` examples (0: all); of a task in parts (ANLI's) as large a share of each of them."""
    count = min(limit or len(examples), len(examples))
    if any(one.part for one in task.sources):
        return [examples[place * len(examples) // count] for place in range(count)]
    return examples[:count]
