"""What all phases of one experiment share: settings, data, tokenizers, mesh, folders and keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.experiment.keys import evaluation_record, hash_record, training_record
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.start import encoder_fingerprint, tokenizer_folder
from stilts_jax.features.build import FEATURE_VERSION, FeatureSettings, build_features
from stilts_jax.features.pictures import Sight, add_pictures
from stilts_jax.features.records import Features
from stilts_jax.features.store import load_or_build
from stilts_jax.files import local_folder
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import Settings, split_names
from stilts_jax.sharding import Mesh, make_mesh
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import (
    DataSource,
    Reading,
    available_languages,
    fingerprint,
    read_counted,
    selection_language,
)
from stilts_jax.tasks.spec import Example, Hyperparameters, Task
from stilts_jax.tokenization import Tokenizer, load_tokenizer


@dataclass
class Context:
    """An experiment as it runs.

    Attributes:
        workdir: ``phases/`` (a folder each), ``features/``, ``report/`` lie in it. In an object store, features
            and locks are in this machine's cache instead.
        command: the command line, for the record.
        is_main: whether this process writes results.
        trace: folder for a profile of some training steps.
        data_notes: what is known of the data of a task's split; see ``data.describe_data``.
    """

    settings: Settings
    source: DataSource
    workdir: Path
    command: str = ""
    progress: Progress = SILENT
    is_main: bool = True
    trace: Path | None = None
    data_notes: dict[tuple[str, str, tuple[str, ...]], list[str]] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)
    _readings: dict[tuple[str, str, str], Reading] = field(default_factory=dict)
    _tokenizers: dict[str, Tokenizer] = field(default_factory=dict)

    @cached_property
    def mesh(self) -> Mesh:
        """All devices, arranged as the settings say."""
        return make_mesh(self.settings.mesh)

    def tokenizer(self, encoder: str) -> Tokenizer:
        """The tokenizer that came with an encoder."""
        if encoder not in self._tokenizers:
            self._tokenizers[encoder] = load_tokenizer(tokenizer_folder(encoder))
        return self._tokenizers[encoder]

    # -- keys and folders

    def training_record(self, phase: Phase) -> dict[str, Any]:
        """What the training of ``phase`` depends on."""
        start = self.key(phase.parent) if phase.parent else encoder_fingerprint(phase.encoder, self.settings)
        languages = self.mlm_languages(phase)
        return training_record(
            phase, self.settings, get_task, start, self.fingerprint, self.selection, languages
        )

    def key(self, phase: Phase) -> str:
        """The hash that names what ``phase`` trains."""
        if phase.name not in self._keys:
            self._keys[phase.name] = hash_record(self.training_record(phase))
        return self._keys[phase.name]

    def evaluation_key(self, phase: Phase) -> str:
        """The hash that names what ``phase`` is scored on."""
        return hash_record(
            evaluation_record(phase, self.settings, get_task, self.fingerprint, self.languages)
        )

    def folder(self, phase: Phase) -> Path:
        """Where everything of ``phase`` is kept."""
        readable = phase.name.replace("/", "_").replace(":", "_")
        return self.workdir / "phases" / f"{readable}-{self.key(phase)[:8]}"

    def fingerprint(self, task: Task, split: str, language: str) -> str:
        """A hash of the bytes that a split is read from, and of how the task understands them."""
        return fingerprint(task, split, language, self.source)

    # -- languages and data

    def languages(self, phase: Phase, task: Task, split: str) -> tuple[str, ...]:
        """The languages in which a phase scores ``split``: those that were asked for, as far as there are data.

        What was asked for filters what is reported only: an intermediate phase is always scored in its source
        language, and a threshold is tuned on the source language's dev set (of mining, on each language's own).
        """
        asked = split_names(self.settings.experiment.languages)
        found = available_languages(task, split, self.source, beyond=bool(asked))
        if phase.stage != "intermediate" and split != task.reported and task.retrieval != "mining":
            return tuple({task.source_language}.intersection(found))
        if asked and phase.stage == "intermediate":
            asked = tuple(dict.fromkeys((selection_language(task, self.source), *asked)))
        return tuple(language for language in asked or found if language in found)

    def selection(self, phase: Phase, task: Task) -> list[tuple[Task, tuple[str, ...]]]:
        """The dev sets that pick the best step of ``task`` in ``phase``: in its source language, or the targets' own.

        Masked language modelling has none: its loss is no measure of the task that it accompanies. Neither has a dual
        encoder, which is trained to the end, as XTREME-R does, nor a task without dev files.
        """
        if task.kind in ("mlm", "embed") or not task.selection:
            return []
        if self.settings.experiment.select_on == "en" or not phase.evaluate:
            return [(task, (selection_language(task, self.source),))]
        targets = [get_task(name) for name in phase.evaluate]
        scored = [(one, available_languages(one, one.selection, self.source)) for one in targets]
        bare = [target.name for target, languages in scored if not languages]
        if bare:
            raise ConfigError(
                f"{', '.join(bare)} has no dev set in any language to select on.",
                where="config.experiment.select_on",
                fix="set it to en for this target",
            )
        return scored

    def mlm_languages(self, phase: Phase) -> tuple[str, ...]:
        """The languages of masked language modelling; empty where a phase has none."""
        if "mlm" not in phase.train:
            return ()
        found = available_languages(get_task("mlm"), "train", self.source, beyond=True)
        asked = split_names(self.settings.mixture.mlm_languages) or found
        missing = [language for language in asked if language not in found]
        if missing or not asked:
            raise DataError(
                f"There is no text in {', '.join(missing) or 'any language'}.",
                where=f"task mlm, {self.source.root}",
                fix="put text/LANGUAGE.txt there, or set mixture.mlm_languages",
            )
        return asked

    def reading(self, task: Task, split: str, language: str) -> Reading:
        """Reads a split in one language; what is scored is kept, because every phase asks for it."""
        if split == "train":
            return read_counted(task, split, language, self.source)
        key = (split, language, self.fingerprint(task, split, language))
        if key not in self._readings:
            self._readings[key] = read_counted(task, split, language, self.source)
        return self._readings[key]

    def examples(
        self, task: Task, split: str, languages: Sequence[str], limit: int = 0
    ) -> dict[str, Sequence[Example]]:
        """Reads a split in several languages: the first examples of each, or all (0)."""
        return {one: self.reading(task, split, one).examples[: limit or None] for one in languages}

    def features(
        self,
        task: Task,
        split: str,
        languages: Sequence[str],
        tokenizer: Tokenizer,
        hyperparameters: Hyperparameters,
        limit: int = 0,
        examples: Mapping[str, Sequence[Example]] | None = None,
    ) -> Features:
        """Returns tokenized rows from the cache, or makes them, of ``examples`` if they were read already."""
        settings = feature_settings(hyperparameters)
        training = split == "train"
        parts = {
            "feature_version": FEATURE_VERSION,
            "task": task.name,
            "kind": task.kind,
            "split": split,
            "data": {language: self.fingerprint(task, split, language) for language in languages},
            "skip_budget": self.source.skip_budget,
            "tokenizer": tokenizer.fingerprint,
            "settings": vars(settings),
            "training": training,
            "limit": limit,
        }

        # They are mapped into memory, which needs a file system.
        cache = Path(self.settings.data.cache or local_folder(self.workdir) / "features")
        data = self.settings.data
        sight = Sight(
            self.source.root, cache, data.pictures, data.picture_size, data.picture_patch, self.progress
        )
        if task.pictures:
            parts["pictures"] = [task.pictures, *sight.settings]

        def build() -> Features:
            rows = examples or self.examples(task, split, languages, limit)
            features = build_features(
                task.kind,
                rows,
                tokenizer,
                settings,
                training=training,
                fingerprint=hash_record(parts),
                progress=self.progress,
            )
            return add_pictures(features, rows, task.pictures, sight) if task.pictures else features

        return load_or_build(cache, parts, build, progress=self.progress)


def feature_settings(hyperparameters: Hyperparameters) -> FeatureSettings:
    """Returns how a task's texts become rows."""
    return FeatureSettings(
        max_length=hyperparameters.max_length,
        max_query_length=hyperparameters.max_query_length,
        stride=hyperparameters.stride,
    )
