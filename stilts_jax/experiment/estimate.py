"""What a grid will cost, before it runs: phases, steps, tokens, FLOPs, disk and device-hours.

The training data are read, tokenized and planned by the code that the run itself uses, so that steps are the run's
own; the features stay in the cache for it. What is scored is measured on a sample of the first examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from stilts_jax.batches.mixture import Mixture
from stilts_jax.chips import CHIPS
from stilts_jax.experiment.context import Context, feature_settings
from stilts_jax.experiment.data import MLM, load_training, make_batches
from stilts_jax.experiment.grid import is_done
from stilts_jax.experiment.keys import evaluated_splits, phase_hyperparameters
from stilts_jax.experiment.models import head_config
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.results import read_result
from stilts_jax.experiment.start import read_shape, tokenizer_folder
from stilts_jax.experiment.train import can_adopt
from stilts_jax.features.build import build_features
from stilts_jax.features.records import Features, Ragged
from stilts_jax.model import Model, abstract_params
from stilts_jax.progress import SILENT
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.prepare import format_table
from stilts_jax.tasks.sources.read import read_retrieval, with_labels
from stilts_jax.tasks.spec import Example, Task

SAMPLE = 512  # examples whose lengths stand for a scored split's
UTILISATION = 0.4  # share of a chip's peak that training reaches at a good batch size
_CHIPS = ("h200", "a100", "v6e", "v5e")
_MOMENTS = 8  # bytes a parameter of AdamW's two moments


@dataclass(frozen=True)
class Training:
    """What training takes: steps, real tokens, parameters and their bytes in the finished model."""

    steps: int = 0
    tokens: float = 0.0
    parameters: int = 0
    model_bytes: int = 0


@dataclass(frozen=True)
class Cost:
    """What one phase costs.

    Attributes:
        scored: tokens.
        again: another phase before it trains the same, and its model will be taken over.
    """

    phase: Phase
    training: Training
    scored: float
    flops: float
    done: bool
    again: bool


class Estimator:
    """Counts phases one after the other; what they share is counted once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._trainings: dict[Any, Training] = {}
        self._scored: dict[tuple[str, str], float] = {}  # tokens by task and split
        self._trained: set[str] = set()  # keys of the phases so far

    def estimate(self, phase: Phase) -> Cost:
        """Returns the cost of one phase."""
        context, key = self._context, (phase.train, phase.hyperparameters, phase.encoder)
        if key not in self._trainings:
            self._trainings[key] = self._count_training(phase) if phase.train else Training()
        training = self._trainings[key]
        scored = sum(self._count_scored(phase, name) for name in phase.evaluate)
        per_token = read_shape(tokenizer_folder(phase.encoder)).training_flops()
        again = can_adopt(context) and context.key(phase) in self._trained
        self._trained.add(context.key(phase))
        flops = (0.0 if again else training.tokens * per_token) + scored * per_token / 3
        return Cost(phase, training, scored, flops, is_done(phase, context), again)

    def _count_training(self, phase: Phase) -> Training:
        context, settings = self._context, self._context.settings
        tokenizer = context.tokenizer(phase.encoder)
        data = load_training(phase, context, tokenizer)
        batches, steps = make_batches(phase, replace(context, progress=SILENT), data, tokenizer)
        shares = batches.shares if isinstance(batches, Mixture) else {data[0].task.name: 1.0}
        tokens = 0.0
        for item in data:
            # Rows of MLM are packed full.
            length = item.hyperparameters.max_length if item.task.name == MLM else _mean_length(item.features)
            length += item.features.visual_tokens
            tokens += shares[item.task.name] * steps * item.hyperparameters.batch_size * length
        heads = tuple(
            (item.task.name, head_config(item.task, settings, item.features.picture_shape)) for item in data
        )
        model = Model(read_shape(tokenizer_folder(phase.encoder)), heads, settings.compute)
        leaves = jax.tree.leaves(abstract_params(model))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        return Training(steps, tokens, sum(leaf.size for leaf in leaves), size)

    def _count_scored(self, phase: Phase, name: str) -> float:
        """Returns the tokens that scoring one task reads, over its splits."""
        context, task, total = self._context, with_labels(get_task(name), self._context.source), 0.0
        for split in evaluated_splits(phase, task):
            languages = context.languages(phase, task, split)
            if languages and (name, split) not in self._scored:
                self._scored[name, split] = self._measure(phase, task, split, languages)
            total += self._scored.get((name, split), 0.0)
        return total

    def _measure(self, phase: Phase, task: Task, split: str, languages: Sequence[str]) -> float:
        context = self._context
        settings = feature_settings(phase_hyperparameters(phase, task, context.settings))
        examples: Mapping[str, Sequence[Example]]
        if task.retrieval:
            sets = {one: read_retrieval(task, split, one, context.source) for one in languages}
            examples = {  # a shared pool counts with the first language
                one: [
                    *found.queries,
                    *(() if task.shared_candidates and one != languages[0] else found.candidates),
                ]
                for one, found in sets.items()
            }
        else:
            examples = context.examples(task, split, languages, context.settings.evaluation.limit)
        some = {language: rows[:SAMPLE] for language, rows in examples.items()}
        features = build_features(task.kind, some, context.tokenizer(phase.encoder), settings, training=False)
        share = sum(map(len, examples.values())) / max(1, sum(map(len, some.values())))
        return _mean_length(features) * round(len(features) * share)


def _mean_length(features: Features) -> float:
    columns = [features.columns.get(name) for name in ("tokens", "pair_tokens")]
    return sum(len(one.values) for one in columns if isinstance(one, Ragged)) / max(1, len(features))


def estimate_text(phases: Sequence[Phase], context: Context) -> str:
    """Returns the table that ``--dry_run`` prints."""
    estimator = Estimator(context)
    with context.progress.track("estimating", len(phases), "phases") as bar:
        costs = []
        for phase in phases:
            costs.append(estimator.estimate(phase))
            bar.advance()
    rows = [
        (
            cost.phase.name,
            "done" if cost.done else str(cost.training.steps),
            _short(cost.training.tokens),
            _short(cost.scored),
            _short(cost.flops),
            _short(cost.training.model_bytes) + "B",
        )
        for cost in costs
    ]
    left = [cost for cost in costs if not cost.done]
    trained = [cost.training for cost in left if not cost.again]
    flops = sum(cost.flops for cost in left)
    lines = [
        format_table(("phase", "steps", "tokens trained on", "tokens scored", "FLOP", "model"), rows),
        "",
        f"{len(phases)} phases, {len(left)} of them open: {sum(one.steps for one in trained)} steps, "
        f"{_short(sum(one.tokens for one in trained))} real tokens to train on (what trains the same counts once), "
        f"{_short(sum(cost.scored for cost in left))} to score, {_short(flops)} FLOP in the layers",
        _disk_text(costs, context),
        *_hours(flops, costs, context),
    ]
    return "\n".join(lines)


def _disk_text(costs: Sequence[Cost], context: Context) -> str:
    keep, train = context.settings.experiment.keep, context.settings.train
    kept = [
        cost.training
        for cost in costs
        if keep in ("models", "all") or (keep == "encoders" and cost.phase.stage == "intermediate")
    ]
    largest = max(
        (cost.training.model_bytes + _MOMENTS * cost.training.parameters for cost in costs), default=0
    )
    return (
        f"disk: {_short(sum(one.model_bytes for one in kept))}B of finished models "
        f"(experiment.keep={keep}); {'each phase keeps' if keep == 'all' else 'while a phase trains,'} up to "
        f"{train.keep_latest + 1} checkpoints of at most {_short(largest)}B each"
    )


def _hours(flops: float, costs: Sequence[Cost], context: Context) -> list[str]:
    """Device-hours at the speed of what is finished here, and at an assumed share of known peaks."""
    lines = []
    rates: dict[str, list[float]] = {}
    for cost in costs:
        result = read_result(context.folder(cost.phase)) if cost.done and cost.training.steps else None
        if result:
            environment, throughput = result["environment"], result["throughput"]
            per_token = read_shape(tokenizer_folder(cost.phase.encoder)).training_flops()
            rate = throughput["real_tokens_per_second"] * per_token / environment["device_count"]
            rates.setdefault(environment["device"], []).append(rate)
    for device, found in rates.items():
        rate = float(np.mean(found))
        lines.append(
            f"{_hour_text(flops / rate)} on {device}, as fast as the {len(found)} phases trained on it"
        )
    for chip in map(CHIPS.__getitem__, _CHIPS):
        lines.append(
            f"{_hour_text(flops / (UTILISATION * chip.flops))} on {chip.name}, assuming {UTILISATION:.0%} of its "
            f"peak of {_short(chip.flops)}FLOP/s"
        )
    return lines


def _hour_text(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:8.2f} device-hours" if hours >= 0.01 else "under 0.01 device-hours"


def _short(value: float) -> str:
    """``1.53 G``: three digits and a prefix."""
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "
