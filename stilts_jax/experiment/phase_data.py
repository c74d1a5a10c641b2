"""The data of one phase: what is trained on, and what picks the best step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stilts_jax.batches.masking import Masking
from stilts_jax.batches.mixture import Mixture, Sampler, count_steps
from stilts_jax.batches.plan import TrainingBatches
from stilts_jax.errors import DataError
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.keys import phase_hyperparameters
from stilts_jax.experiment.phases import Phase
from stilts_jax.features.build import FeatureSettings
from stilts_jax.features.records import Features
from stilts_jax.settings import split_pairs
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import find_paths, with_labels
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
    """What one task contributes to the choice of the best step."""

    task: Task
    head: str
    features: Features
    examples: Mapping[str, Sequence[Example]]
    max_length: int


def feature_settings(hyperparameters: Hyperparameters) -> FeatureSettings:
    """Returns how a task's texts become rows."""
    return FeatureSettings(
        max_length=hyperparameters.max_length,
        max_query_length=hyperparameters.max_query_length,
        stride=hyperparameters.stride,
    )


def load_training(phase: Phase, context: Context, tokenizer: Tokenizer) -> list[TrainingData]:
    """Returns the training rows of every task of ``phase``."""
    settings, found = context.settings, []
    for name in phase.train:
        task = with_labels(get_task(name), context.source)
        hyperparameters = phase_hyperparameters(phase, task, settings)
        languages: Sequence[str] = (task.source_language,)
        if task.kind == "mlm":
            languages = context.mlm_languages(phase)
            if len(phase.train) > 1:
                hyperparameters = replace(
                    hyperparameters,
                    batch_size=settings.mixture.mlm_batch_size,
                    max_length=settings.mixture.mlm_max_length,
                )
        features = context.features(
            task,
            "train",
            languages,
            tokenizer,
            feature_settings(hyperparameters),
            training=True,
            limit=settings.data.limit,
        )
        if not len(features):
            paths = [path for one in languages for path in find_paths(task, "train", one, context.source)]
            raise DataError(
                "There is nothing to train on: the data are empty.",
                where=f"task {name}: {', '.join(map(str, paths))}",
                fix="put the training data there",
            )
        found.append(TrainingData(task, hyperparameters, features))
    return found


def load_selection(phase: Phase, context: Context, tokenizer: Tokenizer) -> list[SelectionData]:
    """Returns what the best step is chosen on; see ``Context.selection``."""
    settings = context.settings
    found = []
    for name in phase.train:
        task = with_labels(get_task(name), context.source)
        length = feature_settings(phase_hyperparameters(phase, task, settings))
        for target, languages in context.selection(phase, task):
            chosen = with_labels(target, context.source)
            limit = settings.train.eval_examples
            examples = {
                language: rows[:limit] if limit else rows
                for language, rows in context.examples(chosen, chosen.selection, languages).items()
            }
            features = context.features(
                chosen,
                chosen.selection,
                languages,
                tokenizer,
                length,
                training=False,
                limit=limit,
                examples=examples,
            )
            found.append(SelectionData(chosen, task.name, features, examples, length.max_length))
    return found


def make_batches(
    phase: Phase, context: Context, data: Sequence[TrainingData], tokenizer: Tokenizer
) -> tuple[TrainingBatches | Mixture, int]:
    """Returns the batches of a phase and how many steps it takes."""
    settings, train = context.settings, context.settings.train
    masking = Masking(tokenizer.mask_id, tokenizer.vocab_size, rate=settings.mixture.mlm_rate)
    batches = {
        item.task.name: TrainingBatches(
            item.task.name,
            item.features,
            batch_size=item.hyperparameters.batch_size,
            seed=phase.seed,
            max_length=item.hyperparameters.max_length,
            window=train.window,
            max_buckets=train.buckets,
            masking=masking if item.task.kind == "mlm" else None,
            alpha=settings.mixture.mlm_alpha,
        )
        for item in data
    }
    for one in batches.values():
        context.progress.say(one.describe())
    sizes = [
        (batches[item.task.name].num_rows, item.hyperparameters.epochs, item.hyperparameters.batch_size)
        for item in data
        if item.task.kind != "mlm" or len(data) == 1
    ]
    if len(data) == 1:
        steps = count_steps(sizes, cap=sizes[0][0])
        return next(iter(batches.values())), _shorten(steps, train.max_steps)
    steps = count_steps(sizes, settings.mixture.cap)
    mixture = Mixture(batches, _make_sampler(context, batches), phase.seed)
    if MLM in batches:
        # The other tasks keep the steps that they have without it.
        steps = round(steps / (1 - mixture.shares[MLM]))
    return mixture, _shorten(steps, train.max_steps)


def _shorten(steps: int, limit: int) -> int:
    return max(1, min(steps, limit) if limit else steps)


def _make_sampler(context: Context, batches: Mapping[str, TrainingBatches]) -> Sampler:
    """Returns how often each task comes; MLM has a share of its own."""
    mixture = context.settings.mixture
    pairs = split_pairs(mixture.weights, "config.mixture.weights")
    given = {get_task(name).name: float(weight) for name, weight in pairs.items()}
    sampler = Sampler(
        kind=mixture.sampler,
        cap=mixture.cap,
        temperature=mixture.temperature,
        weights=tuple(given.items()),
    )
    if MLM not in batches or given:
        return sampler
    others = sampler.weigh({name: one.num_rows for name, one in batches.items() if name != MLM})
    total = sum(others.values())
    weights = {name: (1 - mixture.mlm_weight) * weight / total for name, weight in others.items()}
    weights[MLM] = mixture.mlm_weight
    return Sampler(kind="weights", weights=tuple(weights.items()))
