"""What all phases of one experiment share: settings, data, tokenizers, mesh, folders, and the keys that name phases.

A training key holds what defines training, so that a changed setting never meets an old checkpoint. What only defines
how a finished model is scored (test files, reporting languages) is in the evaluation key: a test language more retrains
nothing. How a run is computed (mesh, accumulation, rematerialisation, logging) is in neither: it changes rounding only.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax

from stilts_jax.distributed import initialize
from stilts_jax.evaluation import metrics
from stilts_jax.experiment.data import Part, PhaseData, choose_data, take_first
from stilts_jax.experiment.models import encoder_fingerprint, tokenizer_folder
from stilts_jax.experiment.phases import Phase, hyperparameters_of
from stilts_jax.features.build import FEATURE_VERSION, build_features, load_or_build
from stilts_jax.features.pictures import Sight, add_pictures
from stilts_jax.features.records import Features, keep_examples
from stilts_jax.files import cache_root, local_folder, local_path
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import TASK_OPTIONS, Compute, Settings
from stilts_jax.sharding import Mesh, make_mesh
from stilts_jax.tasks.sources.read import DataSource, fingerprint, read_counted
from stilts_jax.tokenization import Tokenizer, load_tokenizer

FORMAT = 3  # of the keys; raised when what their records mean changes
_NOT_IN_KEY = {
    # These change how a run is computed or watched, not what it computes.
    *("accumulation", "buckets", "checkpoint_every", "keep_latest", "log_every", "tensorboard"),
    # These are in the phase's own hyperparameters, after presets and overrides have met.
    *(*TASK_OPTIONS, "by_task"),
}


def hash_record(record: Any) -> str:
    """Returns a hash of a record of plain values; the same in every process."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "compiled"))
    # Small programs are kept too: there are dozens in each process, and reading one takes a third of compiling it.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


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

    def data(self, phase: Phase) -> PhaseData:
        """What ``phase`` reads: chosen when it is first asked for, and the same from then on."""
        return self.once(("data", phase.name), lambda: choose_data(phase, self))

    def hash_data(self, part: Part) -> str:
        """One hash of all that is read of a part."""
        return hash_record([fingerprint(part.task, part.split, one, self.source) for one in part.languages])

    def _fingerprints(self, parts: Mapping[str, Part]) -> dict[str, str]:
        return {
            f"{name}/{language}": fingerprint(part.task, part.split, language, self.source)
            for name, part in parts.items()
            for language in part.languages
        }

    def training_record(self, phase: Phase) -> dict[str, Any]:
        """What the training of ``phase`` depends on."""
        settings, data, parent = self.settings, self.data(phase), phase.parent
        trained, tasks = [part.task for part in data.train], {}
        for part, task in zip(data.train, trained):
            chosen_on = {f"{dev.task.name}/{dev.task.metric}": dev for dev in data.selection[task.name]}
            tasks[task.name] = {
                "version": task.version,
                "hyperparameters": asdict(hyperparameters_of(task, settings, phase)),
                "data": self._fingerprints({"train": part}),
                "selection": self._fingerprints(chosen_on),
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
            "train": {k: value for k, value in asdict(settings.train).items() if k not in _NOT_IN_KEY},
            # What was added later is here where it is set.
            "mixture": {k: v for k, v in asdict(settings.mixture).items() if v is not None} if mixed else {},
            # The first one's rate and warm-up are the run's, and rows are drawn by place.
            **({"order": [task.name for task in trained]} if len(trained) > 1 else {}),
            "head": {"form": settings.model.head_form, "init": settings.model.head_init},
            "precision": {name: compute[name] for name in ("dtype", "param_dtype", "matmul_precision")},
            "limit": settings.data.limit,
            "select_on": settings.experiment.select_on,
            "debug": settings.debug,
        }

    def key(self, phase: Phase) -> str:
        """The hash that names what ``phase`` trains."""
        return self.once(("key", phase.name), lambda: hash_record(self.training_record(phase)))

    def evaluation_record(self, phase: Phase) -> dict[str, Any]:
        """What the scores of a trained ``phase`` depend on."""
        model, evaluation, tasks = self.settings.model, self.settings.evaluation, {}
        for name, parts in self.data(phase).scored.items():
            task, data = parts[-1].task, self._fingerprints({part.split: part for part in parts})
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
            "data": {one: fingerprint(task, part.split, one, self.source) for one in part.languages},
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
            options: dict[str, Any] = {"training": training, "fingerprint": key, "progress": self.progress}
            features = build_features(task.kind, rows, tokenizer, part.feature_settings, **options)
            if task.pictures:
                features = add_pictures(features, rows, task.pictures, sight)
            skipped = {one: reading.skipped for one, reading in read.items() if reading.skipped}
            return features if training else keep_examples(features, rows, skipped)

        load = partial(load_or_build, cache, parts, build, self.progress)
        return load() if training else self.once(("features", key), load)
