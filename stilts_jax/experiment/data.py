"""What a phase reads, chosen once: its keys, the check before a run, training and scoring look at this and no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from stilts_jax.automatic import MAX_LENGTHS
from stilts_jax.batches.collate import Masking
from stilts_jax.batches.plan import MLM, Mixture, TrainingBatches, count_steps, weigh_tasks
from stilts_jax.checked import split_names
from stilts_jax.errors import ConfigError, DataError
from stilts_jax.evaluation.evaluate import find_gold
from stilts_jax.evaluation.metrics import TUNED_METRICS
from stilts_jax.experiment.phases import Phase, hyperparameters_of
from stilts_jax.features.build import FeatureSettings
from stilts_jax.features.records import Features, Ragged
from stilts_jax.tasks import get_task, task_name
from stilts_jax.tasks.sources import read
from stilts_jax.tasks.sources.inventory import wanted_languages
from stilts_jax.tasks.spec import Hyperparameters, Task
from stilts_jax.tokenization import Tokenizer

if TYPE_CHECKING:
    from stilts_jax.experiment.context import Context

Loaded = Sequence[tuple["Part", Features]]


@dataclass(frozen=True)
class Part:
    """A split of a task in some languages, the first ``limit`` examples of each (0: all), as rows of some lengths."""

    task: Task
    split: str
    languages: tuple[str, ...]
    hyperparameters: Hyperparameters
    limit: int = 0

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


def choose_data(phase: Phase, context: "Context") -> PhaseData:
    """Returns what a phase reads; raises where that can't be told."""
    settings, source, train, selection = context.settings, context.source, [], {}
    mixture = settings.mixture
    for task in (read.with_labels(get_task(name), source) for name in phase.train):
        languages: tuple[str, ...] = (task.source_language,)
        chosen, own = hyperparameters_of(task, settings, phase), dict[str, Any]()
        selection[task.name] = _choose_selection(phase, task, context)
        if task.name == MLM:
            found = read.available_languages(task, "train", source, beyond=True)
            languages = split_names(mixture.mlm_languages) or found
            missing = ", ".join(language for language in languages if language not in found)
            if missing or not languages:
                what, where = f"There is no text in {missing or 'any language'}.", f"task mlm, {source.root}"
                fix = "put text/LANGUAGE.txt there, or set mixture.mlm_languages"
                raise DataError(what, where=where, fix=fix)
            own = {"batch_size": mixture.mlm_batch_size, "max_length": mixture.mlm_max_length}
        elif mixture.epochs:
            own = {"epochs": mixture.epochs}
        chosen = replace(chosen, **own) if len(phase.train) > 1 else chosen
        train.append(Part(task, "train", languages, chosen, settings.data.limit))
    scored = [choose_scored(name, context, phase) for name in phase.evaluate]
    last = train[-1] if phase.stage == "target" and phase.evaluate else None
    source_dev = None
    if last and last.task.kind != "embed" and last.task.selection:
        languages, limit = (read.selection_language(last.task, source),), settings.evaluation.limit
        source_dev = replace(last, split=last.task.selection, languages=languages, limit=limit)
    return PhaseData(tuple(train), selection, {parts[-1].task.name: parts for parts in scored}, source_dev)


def choose_scored(reference: str, context: "Context", phase: Phase | None = None) -> tuple[Part, ...]:
    """Returns what a task is scored on, the reported split last, in the languages that were asked for and are there.

    An intermediate reports its own dev set, and its source language in any case; SQuAD 2.0 reports dev, whose script
    tunes the threshold there. Others are tuned on the source language's dev set, those of mining on each language's.
    """
    settings, source = context.settings, context.source
    task, asked = read.with_labels(get_task(reference), source), split_names(settings.experiment.languages)
    chosen, limit = hyperparameters_of(task, settings, phase), settings.evaluation.limit
    intermediate = phase is not None and phase.stage == "intermediate"
    reported = task.selection if intermediate else task.reported
    tuned = task.metric in TUNED_METRICS and task.selection != reported
    parts = []
    for split in (task.selection, reported) if tuned else (reported,):
        wanted, tunes_all = asked, split != reported and task.retrieval != "mining"
        if intermediate and asked:
            wanted = (read.selection_language(task, source), *asked)
        elif tunes_all:  # in a language that the benchmark itself may not have
            wanted = (task.source_language,)
        found = read.available_languages(task, split, source, beyond=bool(wanted))
        languages = tuple(language for language in dict.fromkeys(wanted or found) if language in found)
        parts.append(Part(task, split, languages, chosen, limit))
    return tuple(parts)


def _choose_selection(phase: Phase, task: Task, context: "Context") -> tuple[Part, ...]:
    """Returns the dev sets that pick the best step of ``task``."""
    # The loss of masked language modelling is no measure of the task beside it; dual encoders are trained to the end.
    if task.kind in ("mlm", "embed") or not task.selection:
        return ()
    settings, source = context.settings, context.source
    own, chosen = (read.selection_language(task, source),), hyperparameters_of(task, settings, phase)
    limit = settings.train.eval_examples
    if settings.experiment.select_on == "en" or phase.stage != "target" or not phase.evaluate:
        return (Part(task, task.selection, own, chosen, limit),)
    parts = []
    for one in (read.with_labels(get_task(name), source) for name in phase.evaluate):
        there = read.available_languages(one, one.selection, source)
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


def describe_data(part: Part, tokenizer: Tokenizer, context: "Context") -> tuple[int, list[str]]:
    """Returns how many examples (or queries) are scored, and what will be missing from the scores; says it once."""
    what = "described", part.task.name, part.split, part.languages
    return context.once(what, lambda: _describe_data(part, tokenizer, context))


def _describe_data(part: Part, tokenizer: Tokenizer, context: "Context") -> tuple[int, list[str]]:
    task, split, languages = part.task.name, part.split, part.languages
    counts, blank, skipped = {}, [], []
    features = None if part.task.retrieval else context.features(part, tokenizer)
    for language in languages:
        if features is None:
            pool: Any = read.read_retrieval(part.task, split, language, context.source)
            rows, left_out, gold = pool.queries, pool.skipped, pool.gold
        else:
            rows, left_out = features.examples[language], features.skipped.get(language, ())
            gold = find_gold(part.task, rows)
        counts[language] = len(rows)
        blank += [language] if gold is None else []
        skipped += [f"{len(left_out)} in {language} ({left_out[0]})"] if left_out else []
    wanted = split_names(context.settings.experiment.languages) or wanted_languages(part.task, split)
    absent = [one for one in wanted if one not in counts and split == part.task.reported]
    shown = ", ".join(f"{language} {count}" for language, count in counts.items())
    if len(set(counts.values())) == 1:
        shown = f"{counts[languages[0]]} examples each in {', '.join(counts)}"
    notes = {
        f"gold is blank in {', '.join(blank)}: predicted, not scored": blank,
        f"there are no data in {', '.join(absent)}": absent,
        f"rows that can't be used were skipped: {'; '.join(skipped)}": skipped,
    }
    said = [f"{task} {split}: {note}" for note, holds in notes.items() if holds]
    for line in (f"data: {task} {split}: {shown}", *said):
        context.progress.say(line)
    return sum(counts.values()), said


def load_training(phase: Phase, context: "Context") -> Loaded:
    """Returns the training rows of every task of ``phase``."""
    tokenizer = context.tokenizer(phase.encoder)
    found = [(part, context.features(part, tokenizer)) for part in context.data(phase).train]
    for part in (part for part, features in found if not len(features)):
        paths = [read.find_paths(part.task, "train", one, context.source) for one in part.languages]
        where = f"task {part.task.name}: {', '.join(map(str, chain(*paths)))}"
        raise DataError("There is nothing to train on.", where=where, fix="put the training data there")
    return found


def load_selection(phase: Phase, context: "Context") -> Loaded:
    """Returns what the best step is chosen on."""
    tokenizer, parts = context.tokenizer(phase.encoder), chain(*context.data(phase).selection.values())
    return [(part, context.features(part, tokenizer)) for part in parts]


def token_columns(features: Features) -> dict[str, Ragged]:
    """Returns the columns that hold tokens, by name."""
    columns: Mapping[str, Any] = features.columns
    return {name: columns[name] for name in ("tokens", "pair_tokens") if name in columns}


def make_batches(
    phase: Phase, context: "Context", data: Loaded, tokenizer: Tokenizer, compile_tokens: float = 0.0
) -> tuple[TrainingBatches | Mixture, int]:
    """Returns the batches of a phase and how many steps it takes.

    ``compile_tokens`` is what one more padded length must save over the whole run, where ``train.buckets`` is 0.
    """
    mixture, train = context.settings.mixture, context.settings.train
    masking = Masking(tokenizer.mask_id, tokenizer.vocab_size, rate=mixture.mlm_rate)
    batches, sizes = {}, []
    for part, features in data:
        chosen, name = part.hyperparameters, part.task.name
        # About: what the task's own epochs need.
        steps = count_steps([(len(features), chosen.epochs, chosen.batch_size)], cap=len(features))
        batches[name] = one = TrainingBatches(
            name,
            features,
            batch_size=chosen.batch_size,
            seed=phase.seed,
            max_length=chosen.max_length,
            window=train.window,
            max_buckets=train.buckets or MAX_LENGTHS,
            price=0.0 if train.buckets else compile_tokens / max(1, min(steps, train.max_steps or steps)),
            masking=masking if part.task.kind == "mlm" else None,
            alpha=mixture.mlm_alpha,
            label_alpha=chosen.label_alpha,
        )
        context.progress.say(one.describe())
        if name != MLM or len(data) == 1:
            sizes.append((one.num_rows, chosen.epochs, chosen.batch_size))
    steps = count_steps(sizes, sizes[0][0] if len(data) == 1 else mixture.cap)
    made: TrainingBatches | Mixture = one
    if len(data) > 1:
        # Of several rows each takes the weights of its own tasks.
        named = {task_name(name): float(weight) for name, weight in mixture.pairs.items()}
        given = {name: named[name] for name in named.keys() & batches.keys()}
        weights = weigh_tasks({name: one.num_rows for name, one in batches.items()}, mixture, given)
        made = Mixture(batches, weights, phase.seed)
        if MLM in batches:  # the other tasks keep the steps that they have without it
            steps = round(steps / (1 - made.shares[MLM]))
    return made, max(1, min(steps, train.max_steps or steps))
