"""What all phases of one experiment share: settings, data, tokenizers, mesh, folders and keys."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from stilts_jax.distributed import initialize
from stilts_jax.experiment.data import Part, PhaseData, choose_data
from stilts_jax.experiment.keys import evaluation_record, hash_record, training_record
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.start import encoder_fingerprint, tokenizer_folder
from stilts_jax.features.build import FEATURE_VERSION, FeatureSettings, build_features
from stilts_jax.features.pictures import Sight, add_pictures
from stilts_jax.features.records import Features, keep_examples
from stilts_jax.features.store import load_or_build
from stilts_jax.files import cache_root, local_folder
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import Compute, Settings
from stilts_jax.sharding import Mesh, make_mesh
from stilts_jax.tasks.sources.read import DataSource, fingerprint, read_counted
from stilts_jax.tasks.spec import Hyperparameters, Task
from stilts_jax.tokenization import Tokenizer, load_tokenizer


def start_runtime(compute: Compute) -> None:
    """Joins the other hosts, if there are any, and applies the settings that JAX keeps globally."""
    initialize()
    if compute.matmul_precision:
        jax.config.update("jax_default_matmul_precision", compute.matmul_precision)
    jax.config.update("jax_debug_nans", compute.check_nans)
    if not jax.config.values["jax_compilation_cache_dir"]:  # JAX_COMPILATION_CACHE_DIR names another one
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "compiled"))
    # Small programs are worth keeping too: a demo compiles dozens that take half a second each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@dataclass
class Context:
    """An experiment as it runs.

    Attributes:
        workdir: ``phases/`` (a folder each), ``features/``, ``report/`` lie in it. In an object store, features
            and locks are in this machine's cache instead.
        command: the command line, for the record.
        is_main: whether this process writes results.
        trace: folder for a profile of some training steps.
        described: what was said of data; see ``describe_data``.
    """

    settings: Settings
    source: DataSource
    workdir: Path
    command: str = ""
    progress: Progress = SILENT
    is_main: bool = True
    trace: Path | None = None
    described: dict[tuple[str, str, tuple[str, ...]], tuple[int, list[str]]] = field(default_factory=dict)
    _data: dict[str, PhaseData] = field(default_factory=dict, init=False)
    _keys: dict[str, str] = field(default_factory=dict, init=False)
    _features: dict[str, Features] = field(default_factory=dict, init=False)
    _tokenizers: dict[str, Tokenizer] = field(default_factory=dict, init=False)

    @cached_property
    def mesh(self) -> Mesh:
        """All devices, arranged as the settings say."""
        return make_mesh(self.settings.mesh)

    def tokenizer(self, encoder: str) -> Tokenizer:
        """The tokenizer that came with an encoder."""
        if encoder not in self._tokenizers:
            self._tokenizers[encoder] = load_tokenizer(tokenizer_folder(encoder))
        return self._tokenizers[encoder]

    def data(self, phase: Phase) -> PhaseData:
        """What ``phase`` reads: chosen when it is first asked for, and the same from then on."""
        if phase.name not in self._data:
            self._data[phase.name] = choose_data(phase, self.settings, self.source)
        return self._data[phase.name]

    def fingerprint(self, task: Task, split: str, language: str) -> str:
        """A hash of the bytes that a split is read from, and of how the task understands them."""
        return fingerprint(task, split, language, self.source)

    def training_record(self, phase: Phase) -> dict[str, Any]:
        """What the training of ``phase`` depends on."""
        start = self.key(phase.parent) if phase.parent else encoder_fingerprint(phase.encoder, self.settings)
        return training_record(phase, self.settings, self.data(phase), start, self.fingerprint)

    def key(self, phase: Phase) -> str:
        """The hash that names what ``phase`` trains."""
        if phase.name not in self._keys:
            self._keys[phase.name] = hash_record(self.training_record(phase))
        return self._keys[phase.name]

    def evaluation_key(self, phase: Phase) -> str:
        """The hash that names what ``phase`` is scored on."""
        return hash_record(evaluation_record(self.settings, self.data(phase), self.fingerprint))

    def folder(self, phase: Phase) -> Path:
        """Where everything of ``phase`` is kept."""
        readable = phase.name.replace("/", "_").replace(":", "_")
        return self.workdir / "phases" / f"{readable}-{self.key(phase)[:8]}"

    def features(self, part: Part, tokenizer: Tokenizer) -> Features:
        """Returns tokenized rows from the cache, or makes them; what is scored stays open, as every phase asks for it.

        They carry their examples, unless they are trained on: a cache hit reads no file of the data.
        """
        task, settings, data = part.task, feature_settings(part.hyperparameters), self.settings.data
        # They are mapped into memory, which needs a file system.
        cache = Path(data.cache or local_folder(self.workdir) / "features")
        sight = Sight(
            self.source.root, cache, data.pictures, data.picture_size, data.picture_patch, self.progress
        )
        training = part.split == "train"
        parts = {
            "feature_version": FEATURE_VERSION,
            "task": task.name,
            "kind": task.kind,
            "split": part.split,
            "data": {one: self.fingerprint(task, part.split, one) for one in part.languages},
            "skip_budget": self.source.skip_budget,
            "tokenizer": tokenizer.fingerprint,
            "settings": vars(settings),
            "training": training,
            "limit": part.limit,
            **({"pictures": [task.pictures, *sight.settings]} if task.pictures else {}),
        }
        key = hash_record(parts)

        def build() -> Features:
            read = {one: read_counted(task, part.split, one, self.source) for one in part.languages}
            rows = {one: reading.examples[: part.limit or None] for one, reading in read.items()}
            features = build_features(
                *(task.kind, rows, tokenizer, settings),
                training=training,
                fingerprint=key,
                progress=self.progress,
            )
            if task.pictures:
                features = add_pictures(features, rows, task.pictures, sight)
            skipped = {one: reading.skipped for one, reading in read.items() if reading.skipped}
            return features if training else keep_examples(features, rows, skipped)

        if key in self._features:
            return self._features[key]
        features = load_or_build(cache, parts, build, progress=self.progress)
        if not training:
            self._features[key] = features
        return features


def feature_settings(chosen: Hyperparameters) -> FeatureSettings:
    """Returns how a task's texts become rows."""
    return FeatureSettings(chosen.max_length, chosen.max_query_length, chosen.stride)
