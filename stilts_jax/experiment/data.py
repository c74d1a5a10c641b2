"""The data of one phase: what is trained on, what picks the best step, and notes on what is scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stilts_jax.automatic import MAX_LENGTHS
from stilts_jax.batches.masking import Masking
from stilts_jax.batches.mixture import Mixture, Sampler, count_steps
from stilts_jax.batches.plan import TrainingBatches
from stilts_jax.errors import DataError
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.keys import phase_hyperparameters
from stilts_jax.experiment.phases import Phase
from stilts_jax.features.records import Features
from stilts_jax.settings import split_names, split_pairs
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.prepare import wanted_languages
from stilts_jax.tasks.sources.read import find_paths, read_retrieval, with_labels
from stilts_jax.tasks.spec import Example, Hyperparameters, Task
from stilts_jax.tokenization import Tokenizer

MLM = "mlm"


@dataclass(frozen=True)
class TrainingData:
    """One task of a phase, ready to be cut into batches."""

    task: Task
    hyperparameters: Hyperparameters
    features: Features


@dataclass(frozen=True)
class SelectionData:
    """What one task contributes to the choice of the best step; ``head`` predicts it."""

    task: Task
    head: str
    features: Features
    examples: Mapping[str, Sequence[Example]]


def load_training(phase: Phase, context: Context, tokenizer: Tokenizer) -> list[TrainingData]:
    """Returns the training rows of every task of ``phase``."""
    mixture, limit, found = context.settings.mixture, context.settings.data.limit, []
    for name in phase.train:
        task = with_labels(get_task(name), context.source)
        chosen = phase_hyperparameters(phase, task, context.settings)
        languages: Sequence[str] = (task.source_language,)
        if task.name == MLM:
            languages = context.mlm_languages(phase)
            if len(phase.train) > 1:
                chosen = replace(chosen, batch_size=mixture.mlm_batch_size, max_length=mixture.mlm_max_length)
        features = context.features(task, "train", languages, tokenizer, chosen, limit)
        if not len(features):
            paths = [path for one in languages for path in find_paths(task, "train", one, context.source)]
            raise DataError(
                "There is nothing to train on: the data are empty.",
                where=f"task {name}: {', '.join(map(str, paths))}",
                fix="put the training data there",
            )
        found.append(TrainingData(task, chosen, features))
    return found


def load_selection(phase: Phase, context: Context, tokenizer: Tokenizer) -> list[SelectionData]:
    """Returns what the best step is chosen on; see ``Context.selection``."""
    limit, found = context.settings.train.eval_examples, []
    for name in phase.train:
        task = with_labels(get_task(name), context.source)
        hyperparameters = phase_hyperparameters(phase, task, context.settings)
        for target, languages in context.selection(phase, task):
            chosen = with_labels(target, context.source)
            examples = context.examples(chosen, chosen.selection, languages, limit)
            features = context.features(
                chosen, chosen.selection, languages, tokenizer, hyperparameters, limit, examples
            )
            found.append(SelectionData(chosen, task.name, features, examples))
    return found


def make_batches(
    phase: Phase,
    context: Context,
    data: Sequence[TrainingData],
    tokenizer: Tokenizer,
    compile_tokens: float = 0.0,
) -> tuple[TrainingBatches | Mixture, int]:
    """Returns the batches of a phase and how many steps it takes.

    Args:
        compile_tokens: what one more padded length must save over the whole run, where ``train.buckets`` is 0.
    """
    mixture, train = context.settings.mixture, context.settings.train
    masking = Masking(tokenizer.mask_id, tokenizer.vocab_size, rate=mixture.mlm_rate)
    batches = {
        item.task.name: TrainingBatches(
            item.task.name,
            item.features,
            batch_size=item.hyperparameters.batch_size,
            seed=phase.seed,
            max_length=item.hyperparameters.max_length,
            window=train.window,
            max_buckets=train.buckets or MAX_LENGTHS,
            price=0.0 if train.buckets else compile_tokens / _count_steps(item, train.max_steps),
            masking=masking if item.task.kind == "mlm" else None,
            alpha=mixture.mlm_alpha,
        )
        for item in data
    }
    for one in batches.values():
        context.progress.say(one.describe())
    sizes = [
        (batches[item.task.name].num_rows, item.hyperparameters.epochs, item.hyperparameters.batch_size)
        for item in data
        if item.task.name != MLM or len(data) == 1
    ]
    steps = count_steps(sizes, sizes[0][0] if len(data) == 1 else mixture.cap)
    made: TrainingBatches | Mixture = next(iter(batches.values()))
    if len(data) > 1:
        made = Mixture(batches, _make_sampler(context, batches), phase.seed)
        if MLM in batches:  # the other tasks keep the steps that they have without it
            steps = round(steps / (1 - made.shares[MLM]))
    return made, max(1, min(steps, train.max_steps or steps))


def _count_steps(item: TrainingData, limit: int) -> int:
    """Returns the steps of one task, about: what its own epochs need."""
    chosen = item.hyperparameters
    steps = count_steps([(len(item.features), chosen.epochs, chosen.batch_size)], cap=len(item.features))
    return max(1, min(steps, limit or steps))


def _make_sampler(context: Context, batches: Mapping[str, TrainingBatches]) -> Sampler:
    """Returns how often each task comes; MLM has a share of its own."""
    mixture = context.settings.mixture
    pairs = split_pairs(mixture.weights, "config.mixture.weights")
    given = {get_task(name).name: float(weight) for name, weight in pairs.items()}
    sampler = Sampler(mixture.sampler, mixture.cap, mixture.temperature, tuple(given.items()))
    if MLM not in batches or given:
        return sampler
    others = sampler.weigh({name: one.num_rows for name, one in batches.items() if name != MLM})
    total = sum(others.values())
    weights = {name: (1 - mixture.mlm_weight) * weight / total for name, weight in others.items()}
    return Sampler("weights", weights=(*weights.items(), (MLM, mixture.mlm_weight)))


def describe_data(phase: Phase, task: Task, split: str, context: Context) -> list[str]:
    """Reads a split in all languages that ``phase`` scores, and returns what will be missing from the scores.

    Raises:
        DataError: a file is damaged.
    """
    languages = context.languages(phase, task, split)
    key = (task.name, split, languages)
    if key not in context.data_notes:
        context.data_notes[key] = _describe(task, split, languages, context)
    return context.data_notes[key]


def _describe(task: Task, split: str, languages: tuple[str, ...], context: Context) -> list[str]:
    counts: dict[str, int] = {}
    blank, skipped = [], []
    for language in languages:
        if task.retrieval:
            part = read_retrieval(task, split, language, context.source)
            counts[language], has_gold, left_out = len(part.queries), part.gold is not None, part.skipped
        else:
            reading = context.reading(task, split, language)
            counts[language], has_gold, left_out = len(reading.examples), reading.has_gold, reading.skipped
        blank += [] if has_gold else [language]
        skipped += [f"{len(left_out)} in {language} ({left_out[0]})"] if left_out else []
    wanted = split_names(context.settings.experiment.languages) or wanted_languages(task, split)
    absent = [language for language in wanted if language not in counts and split == task.reported]
    shown = ", ".join(f"{language} {count}" for language, count in counts.items())
    if len(set(counts.values())) == 1:
        shown = f"{counts[languages[0]]} examples each in {', '.join(counts)}"
    context.progress.say(f"data: {task.name} {split}: {shown}")
    notes = {
        f"gold is blank in {', '.join(blank)}: predicted, not scored": blank,
        f"there are no data in {', '.join(absent)}": absent,
        f"rows that can't be used were skipped: {'; '.join(skipped)}": skipped,
    }
    said = [f"{task.name} {split}: {note}" for note, holds in notes.items() if holds]
    for note in said:
        context.progress.say(note)
    return said
